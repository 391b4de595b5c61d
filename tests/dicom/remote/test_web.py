"""STOW-RS against a server that has every fault we know of."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pydicom
import pytest

from medtwin.core.errors import ConfigError
from medtwin.dicom.network import AuthSettings, NetworkError, PacsSettings, Sender, SendReport, check_pacs
from tests.dicom.remote.fake_web import FakeWeb
from tests.dicom.remote.samples import listed, write_objects


def settings(web: FakeWeb, **more: object) -> PacsSettings:
    return PacsSettings(url=web.base, retries=3, concurrency=1, max_instances=5, **more)  # type: ignore[arg-type]


def send(folder: Path, chosen: PacsSettings, journal: Path) -> SendReport:
    with Sender(listed(folder), chosen, "dicomweb", journal) as sender:
        assert sum(sender.steps()) == len(sender)
        if chosen.verify:
            assert sum(sender.verify()) == len(sender)
        return sender.report()


def files(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.dcm")}


def test_the_server_gets_the_very_files(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    report = send(ten, settings(web), tmp_path / "j")
    assert report.counts == {"stored": 10}
    assert set(web.stored.values()) == files(ten)
    assert web.posts() == 2
    again = send(ten, settings(web), tmp_path / "j")
    assert again.counts == {"stored": 10}
    assert web.posts() == 2  # nothing was sent again


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    "script",
    [
        [503, 503, 503],
        [(429, {"Retry-After": "0"}), 408, 504],
        ["drop", "drop"],
        ["drop-after"],
        ["truncate"],
        [None, "drop-after", "truncate", 500],
    ],
)
def test_faults_that_pass_lose_and_double_nothing(
    web: FakeWeb, ten: Path, tmp_path: Path, script: list[object]
) -> None:
    with Sender(listed(ten), settings(web), "dicomweb", tmp_path / "j") as sender:
        web.script = list(script)
        list(sender.steps())
        report = sender.report()
    assert report.counts == {"stored": 10}
    assert report.num_retries >= 1
    assert set(web.stored.values()) == files(ten)


@pytest.mark.usefixtures("no_waits")
def test_a_fault_that_stays_ends_the_run_and_the_next_goes_on(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    with Sender(listed(ten), settings(web), "dicomweb", tmp_path / "j") as sender:
        web.script = [None, *[503] * 4]
        with pytest.raises(NetworkError, match=r"still answers 503 after 4 attempts.*continues where it was"):
            list(sender.steps())
        assert sender.report().counts == {"not sent": 5, "stored": 5}
    assert send(ten, settings(web), tmp_path / "j").counts == {"stored": 10}
    assert web.posts() == 2 + 4


def test_each_object_has_its_own_outcome(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(ten.rglob("*.dcm"))]
    web.reasons = {uids[0]: [0xB000], uids[1]: [0xA900] * 9, uids[2]: [0x0111], uids[7]: [0xC000] * 9}
    report = send(ten, settings(web, verify=False), tmp_path / "j")
    assert report.counts == {
        "refused": 2,
        "stored": 6,
        "stored with warning 0111": 1,
        "stored with warning B000": 1,
    }
    assert [(each.name, each.sop_uid, each.status) for each in report.failures] == [
        ("s0/0001.dcm", uids[1], "A900"),
        ("s1/0007.dcm", uids[7], "C000"),
    ]
    web.reasons = {}
    assert send(ten, settings(web, verify=False), tmp_path / "j").counts["stored"] == 8
    assert web.posts() == 3  # the two that were refused, in one request


@pytest.mark.usefixtures("no_waits")
def test_out_of_resources_passes_or_is_refused(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(ten.rglob("*.dcm"))]
    web.reasons = {uids[3]: [0xA700, 0xA700], uids[4]: [0xA701] * 9}
    report = send(ten, settings(web), tmp_path / "j")
    assert report.counts == {"refused": 1, "stored": 9}
    assert report.failures[0].status == "A701"


@pytest.mark.usefixtures("no_waits")
def test_a_refusal_that_names_nobody_is_narrowed_down(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(ten.rglob("*.dcm"))]
    web.reasons, web.says_what_failed = {uids[2]: [0xA900] * 99}, False
    report = send(ten, settings(web), tmp_path / "j")
    assert report.counts == {"refused": 1, "stored": 9}
    assert (report.failures[0].sop_uid, report.failures[0].status) == (uids[2], "not-confirmed")


def test_a_request_that_is_too_large_is_divided(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    size = next(ten.rglob("*.dcm")).stat().st_size
    web.max_bytes = 3 * size
    assert send(ten, settings(web), tmp_path / "j").counts == {"stored": 10}
    web.max_bytes = size // 2
    report = send(ten, settings(web), tmp_path / "other")
    assert report.counts == {"refused": 10}
    assert {each.status for each in report.failures} == {"http-413"}


def test_too_many_refusals_stop_the_run(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in ten.rglob("*.dcm")]
    web.reasons = {uid: [0xA900] * 9 for uid in uids}
    with pytest.raises(NetworkError, match=r"3 objects were refused .* more than pacs.max_failures=2"):
        send(ten, settings(web, max_failures=2), tmp_path / "j")


@pytest.mark.usefixtures("no_waits")
def test_what_the_server_does_not_hold_is_missing_and_goes_again(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(ten.rglob("*.dcm"))]
    web.hidden = {uids[6]}
    report = send(ten, settings(web), tmp_path / "j")
    assert report.counts == {"missing": 1, "stored": 9}
    assert report.failures[0].status == "not-found"
    web.hidden = set()
    assert send(ten, settings(web), tmp_path / "j").counts == {"stored": 10}
    assert web.posts() == 3


def test_verification_reads_every_page(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    web.page = 2
    assert send(ten, settings(web), tmp_path / "j").counts == {"stored": 10}


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        (404, "answers 404 to QIDO-RS for studies"),
        (403, "the server forbids this"),
        (401, "wants to know who we are"),
        ((302, {"Location": "http://elsewhere.example/"}), "the server redirects"),
        ("text", "is no JSON"),
        ((429, {"Retry-After": "9999"}), "asks to wait 9999 s"),
    ],
)
def test_what_is_no_dicomweb_server_is_told_at_once(web: FakeWeb, step: object, rule: str) -> None:
    web.script = [step] * 9
    with pytest.raises(NetworkError, match=re.escape(rule)):
        check_pacs(settings(web), "dicomweb")


@pytest.mark.parametrize(("status", "rule"), [(404, "does it take objects"), (405, "does it take objects")])
def test_a_server_that_only_searches_is_told(web: FakeWeb, ten: Path, tmp_path: Path, status: int, rule: str) -> None:
    with Sender(listed(ten), settings(web), "dicomweb", tmp_path / "j") as sender:
        web.script = [status]
        with pytest.raises(NetworkError, match=rule):
            list(sender.steps())


@pytest.mark.usefixtures("no_waits")
def test_nobody_there_is_told() -> None:
    with pytest.raises(NetworkError, match=r"127.0.0.1: it cannot be reached.* after 2 attempts"):
        check_pacs(PacsSettings(url="http://127.0.0.1:1/dicom-web", retries=1), "dicomweb")


def test_a_token_is_renewed_and_stays_secret(
    web: FakeWeb, ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("stale\n")
    chosen = settings(web, auth=AuthSettings(kind="bearer", token_file=token))
    web.authorization = "Bearer fresh"
    with pytest.raises(NetworkError, match=r"refuses what auth gives it \(401\)") as refused:
        check_pacs(chosen, "dicomweb")
    assert "stale" not in str(refused.value)
    with pytest.raises(ConfigError, match="MEDTWIN_TEST_TOKEN holds nothing"):
        check_pacs(settings(web, auth=AuthSettings(kind="bearer", token_env="MEDTWIN_TEST_TOKEN")), "dicomweb")
    web.authorization = "Bearer stale"
    with Sender(listed(ten), chosen, "dicomweb", tmp_path / "j") as sender:
        web.authorization = "Bearer fresh"
        token.write_text("fresh\n")
        list(sender.steps())
        assert sender.report().counts == {"stored": 10}
    assert "fresh" not in (tmp_path / "j").read_text()
    monkeypatch.setenv("MEDTWIN_TEST_PASSWORD", "pass word")
    web.authorization = "Basic bWU6cGFzcyB3b3Jk"
    check_pacs(
        settings(web, auth=AuthSettings(kind="basic", user="me", password_env="MEDTWIN_TEST_PASSWORD")), "dicomweb"
    )


def test_the_port_stands_in_the_host_header(web: FakeWeb) -> None:
    check_pacs(settings(web), "dicomweb")
    assert web.headers[0]["host"] == web.base.split("/")[2]


def test_a_file_that_changes_under_us_is_told(web: FakeWeb, tmp_path: Path) -> None:
    folder = write_objects(tmp_path / "in", 2)
    with Sender(listed(folder), settings(web), "dicomweb", tmp_path / "j") as sender:
        (folder / "s0" / "0001.dcm").unlink()
        with pytest.raises(NetworkError, match=r"s0/0001.dcm: cannot be read any more"):
            list(sender.steps())


@pytest.mark.usefixtures("no_waits")
def test_an_object_that_a_success_does_not_list_is_asked_for_again(web: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(ten.rglob("*.dcm"))]
    web.unlisted = {uids[4]: 1, uids[8]: 99}
    report = send(ten, settings(web), tmp_path / "j")
    # Sent alone, the second is answered by a success that lists nothing; that it is not there, the search tells.
    assert report.counts == {"missing": 1, "stored": 9}
    assert [(each.sop_uid, each.status) for each in report.failures] == [(uids[8], "not-found")]


def test_https_by_an_authority_of_its_own_and_with_our_certificate(
    ten: Path, tmp_path: Path, certificates: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    ours = {"client_cert_file": certificates / "client.pem", "client_key_file": certificates / "client.key"}
    with FakeWeb(tls=context) as web:
        report = send(ten, settings(web, ca_file=certificates / "ca.pem", **ours), tmp_path / "j")
        assert report.counts == {"stored": 10}
        assert set(web.stored.values()) == files(ten)
        with pytest.raises(NetworkError, match="ca_file=FILE"):
            check_pacs(settings(web, **ours), "dicomweb")
