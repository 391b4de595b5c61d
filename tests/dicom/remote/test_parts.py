"""The parts that need no server: settings, waits, the journal, the list of what to send, multipart answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtwin.core.errors import ConfigError, OutputError
from medtwin.core.patience import Pace, Stopped
from medtwin.dicom.network import NetworkError
from medtwin.dicom.remote.instances import Instance, Outcome, parcels, read_instances
from medtwin.dicom.remote.journal import Journal
from medtwin.dicom.remote.multipart import BrokenMultipartError, boundary_of, split_parts
from medtwin.dicom.remote.settings import AuthSettings, PacsSettings, WebSource
from tests.dicom.remote.samples import listed, write_objects


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"url": "http://pacs.example/dicom-web"}, "plain http to pacs.example"),
        ({"url": "ftp://pacs.example"}, "must be an http"),
        ({"url": "https://me:secret@pacs.example"}, "must not hold a user"),
        ({"url": "https://pacs.example/rs?x=1"}, "a base without"),
        ({"host": "pacs.example"}, "DIMSE without TLS"),
        ({"called_aet": ""}, "called_aet must be 1 to 16 characters"),
        ({"called_aet": "A" * 17}, "got 17 characters"),
        ({"calling_aet": "A\\B"}, "without a backslash"),
        ({"calling_aet": "ÄRZTE"}, "ASCII"),
        ({"port": 0}, "port must be between"),
        ({"port": 70_000}, "port must be between"),
        ({"max_pdu": 100}, "max_pdu must be"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"concurrency": 0}, "concurrency must be more than 0"),
        ({"client_key_file": Path("key")}, "client_key_file goes with client_cert_file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as refused:
        PacsSettings(**settings)
    assert "secret" not in str(refused.value)


def test_what_the_user_allows_is_allowed() -> None:
    PacsSettings(url="http://pacs.example/rs", allow_http=True)
    PacsSettings(url="http://[::1]:8042/dicom-web")
    PacsSettings(host="pacs.example", tls=True)
    PacsSettings(host="pacs.example", allow_plain=True)
    PacsSettings(host="127.0.0.1", called_aet=" ORTHANC ")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"modalities": ("ct",)}, "modalities must be DICOM modalities"),
        ({"study_uids": ("1.2.x",)}, "study_uids must be UIDs"),
        ({"study_uids": ("1." * 40 + "1",)}, "study_uids must be UIDs"),
        ({"date_from": "yesterday"}, "date_from must be a day"),
        ({"date_from": "2024-02-01", "date_to": "2024-01-01"}, "date_from must not be after"),
        ({"max_studies": 0}, "max_studies must be 1 or more"),
        ({"page_size": 0}, "page_size must be more than 0"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        WebSource(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "bearer"},
        {"kind": "bearer", "token_env": "A", "token_file": Path("b")},
        {"kind": "basic", "user": "me"},
        {"kind": "basic", "user": "a:b", "password_env": "P"},
        {"kind": "basic", "password_env": "P"},
    ],
)
def test_a_secret_stands_in_one_place(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"auth.kind={settings['kind']} needs"):
        AuthSettings(**settings)


def test_a_wait_is_held_by_retry_after_and_ended_by_a_stop() -> None:
    moments = iter([0.0, 1.0, 4.0, 9.0])
    pace = Pace(10.0, clock=lambda: next(moments))
    with pytest.raises(NetworkError, match="asks to wait 11 s, more than max_wait_s=10"):
        pace.hold(11.0)
    pace.stop()
    with pytest.raises(Stopped):
        pace.again(0)


@pytest.fixture
def one(tmp_path: Path) -> Instance:
    return read_instances(listed(write_objects(tmp_path / "one", 1))).instances[0]


ABOUT = {"pacs": "here"}


def test_a_journal_knows_after_a_kill_what_was_confirmed(tmp_path: Path, one: Instance) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, ABOUT)
    journal.record(one, Outcome("refused", "A900"))
    journal.record(one, Outcome("warning", "B000"))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"sop":"1.2","sha2')  # the line that a kill cut short
    again = Journal(path, ABOUT)
    assert again.outcome(one) == Outcome("warning", "B000")
    again.record(one, Outcome("stored", "0000"))
    again.close()
    third = Journal(path, ABOUT)
    assert third.outcome(one) == Outcome("stored", "0000")
    third.close()
    assert path.read_bytes().count(b"\n") == 4


def test_what_the_pacs_holds_of_another_content_does_not_count(tmp_path: Path, one: Instance) -> None:
    journal = Journal(tmp_path / "journal.jsonl", ABOUT)
    journal.record(one, Outcome("stored", "0000"))
    with one.path.open("ab") as file:
        file.write(b"\0\0")
    changed = read_instances([(one.path, one.name)]).instances[0]
    assert changed.sop_uid == one.sop_uid
    assert journal.outcome(changed) is None
    journal.close()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b'{"medtwin_pacs_journal":1,"about":{"pacs":"there"}}\n', "tells what another PACS holds"),
        (b'{"medtwin_pacs_journal":9,"about":{"pacs":"here"}}\n', "no journal of this version"),
        (b'{"medtwin_pacs_journal":1,"about":{"pacs":"here"}}\n{"sop":"1"}\n', "damaged in line 2"),
        (b"hello\n", "damaged in line 1"),
        (b'{"medtwin_pacs_journal":1,"about":{"pacs":"here"}}\n[]\n', "damaged in line 2"),
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path: Path, data: bytes, rule: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data)
    with pytest.raises(OutputError, match=rule):
        Journal(path, ABOUT)
    assert path.read_bytes() == data


def test_every_file_is_listed_or_unfit(tmp_path: Path) -> None:
    folder = write_objects(tmp_path / "in", 3)
    (folder / "a.txt").write_text("hello")
    (folder / "empty.dcm").touch()
    (folder / "s0" / "0000 copy.dcm").write_bytes((folder / "s0" / "0000.dcm").read_bytes())
    (folder / "DICOMDIR").write_bytes(b"x")
    cut = (folder / "s0" / "0001.dcm").read_bytes()[:200]
    (folder / "cut.dcm").write_bytes(cut)
    found = read_instances(listed(folder))
    assert [each.name for each in found.instances] == ["s0/0000 copy.dcm", "s0/0001.dcm", "s0/0002.dcm"]
    assert {each.name: each.status.partition("-")[0] for each in found.unfit} == {
        "a.txt": "not",
        "empty.dcm": "not",
        "s0/0000.dcm": "duplicate",
        "cut.dcm": found.unfit[1].status.partition("-")[0],
    }
    assert len(found.unfit) == 4


def test_unmarked_objects_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_objects(tmp_path / "in", 5, marked=False)
    with pytest.raises(NetworkError, match=r"5 of 5 objects do not say SyntheticData = YES \(s0/0000.dcm, .*\.\.\.\)"):
        read_instances(listed(folder)).require_marked()


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 100), max_size=30),
    max_instances=st.integers(1, 7),
    max_bytes=st.integers(1, 150),
)
def test_parcels_hold_all_in_order_within_their_bounds(sizes: list[int], max_instances: int, max_bytes: int) -> None:
    instances = [
        Instance(Path("x"), str(number), "1", str(number), "1", "1", "1", size, "0", True)
        for number, size in enumerate(sizes)
    ]
    made = list(parcels(instances, max_instances=max_instances, max_bytes=max_bytes))
    assert [each for parcel in made for each in parcel] == instances
    for parcel in made:
        assert 1 <= len(parcel) <= max_instances
        assert len(parcel) == 1 or sum(each.size for each in parcel) <= max_bytes


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


def _multipart(parts: list[bytes], boundary: bytes, *, preamble: bytes = b"") -> bytes:
    body = preamble
    for part in parts:
        body += b"\r\n--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + part
    return body + b"\r\n--" + boundary + b"--\r\n"


_HARD = st.lists(st.sampled_from([b"\r\n", b"--", b"b", b"\r\n--", b"\r", b"-", b"x", b"\r\n--B", b"\0"])).map(b"".join)


@settings(deadline=None)
@given(parts=st.lists(_HARD, max_size=4), size=st.integers(1, 40), lead=st.booleans())
def test_parts_come_whole_however_the_answer_is_cut(parts: list[bytes], size: int, lead: bool) -> None:
    body = _multipart(parts, b"bound")
    found = [b"".join(part) for part in split_parts(_chunks(body if lead else body[2:], size), b"bound")]
    assert found == parts


@settings(deadline=None)
@given(parts=st.lists(_HARD, min_size=1, max_size=3), size=st.integers(1, 40), data=st.data())
def test_an_answer_that_ends_early_is_noticed(parts: list[bytes], size: int, data: st.DataObject) -> None:
    body = _multipart(parts, b"bound")
    end = data.draw(st.integers(0, len(body) - 5))  # without the last `--` and line end
    with pytest.raises(BrokenMultipartError):
        [b"".join(part) for part in split_parts(_chunks(body[:end], size), b"bound")]


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ("Multipart/Related;boundary='q';type=application/dicom", b"'q'"),
        ("multipart/form-data; boundary=abc", None),
        ("multipart/related", None),
        ('multipart/related; boundary="a\r\nb"', None),
        ("application/dicom", None),
    ],
)
def test_the_boundary_is_read_as_mime_has_it(kind: str, boundary: bytes | None) -> None:
    assert boundary_of(kind) == boundary
