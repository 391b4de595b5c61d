"""QIDO-RS and WADO-RS into a folder, from a server that has every fault we know of."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtwin.core.errors import OutputError
from medtwin.core.sources import Ledger
from medtwin.dicom.network import FetchReport, NetworkError, PacsSettings, Sender, WebSource, fetch_studies
from tests.dicom.remote.fake_web import FakeWeb
from tests.dicom.remote.samples import listed
from tests.dicom.samples import ROOT


@pytest.fixture
def full(web: FakeWeb, ten: Path, tmp_path: Path) -> FakeWeb:
    """The server with ten objects in two series."""
    with Sender(listed(ten), PacsSettings(url=web.base), "dicomweb", tmp_path / "filled") as sender:
        list(sender.steps())
    web.requests.clear()
    return web


def source(web: FakeWeb, **more: object) -> WebSource:
    return WebSource(url=web.base, retries=3, concurrency=1, **more)  # type: ignore[arg-type]


def files(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.dcm")}


def num_series_asked(web: FakeWeb) -> int:
    return sum(1 for _, path in web.requests if path.count("/") == 5 and "?" not in path)


def test_the_folder_gets_the_very_files(full: FakeWeb, ten: Path, tmp_path: Path) -> None:
    ledger, told = Ledger(), []
    report = fetch_studies(source(full), tmp_path / "in", ledger, on_number=told.append)
    size = sum(path.stat().st_size for path in ten.rglob("*.dcm"))
    assert report == FetchReport(num_studies=1, num_series=2, num_objects=10, num_bytes=size)
    assert files(tmp_path / "in") == files(ten)
    assert told == [5, 5]
    assert not ledger.rejects
    names = " ".join(str(path.relative_to(tmp_path)) for path in (tmp_path / "in").rglob("*"))
    assert ROOT not in names  # the identifiers of the source stand in no name
    asked = num_series_asked(full)
    assert fetch_studies(source(full), tmp_path / "in", Ledger()) == report
    assert num_series_asked(full) == asked == 2  # what is there is not fetched again


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("step", ["drop", "truncate", 503, (429, {"Retry-After": "0"})])
def test_faults_that_pass_lose_nothing(full: FakeWeb, ten: Path, tmp_path: Path, step: object) -> None:
    full.script = [step, None, step, None, step, step, None, step]
    report = fetch_studies(source(full), tmp_path / "in", Ledger())
    assert report.num_objects == 10
    assert files(tmp_path / "in") == files(ten)


@pytest.mark.usefixtures("no_waits")
def test_an_answer_without_its_last_boundary_is_not_whole(full: FakeWeb, ten: Path, tmp_path: Path) -> None:
    full.page = 1
    full.script = [None] * 5 + ["half", "half"]
    assert fetch_studies(source(full), tmp_path / "in", Ledger()).num_objects == 10
    assert files(tmp_path / "in") == files(ten)
    assert num_series_asked(full) == 4


@pytest.mark.usefixtures("no_waits")
def test_a_fault_that_stays_ends_the_call_and_the_next_goes_on(full: FakeWeb, ten: Path, tmp_path: Path) -> None:
    full.page = 1  # two pages for the study, three for its series: then the fault is in the second series
    full.script = [None] * 6 + [503] * 4
    with pytest.raises(NetworkError, match="still answers 503"):
        fetch_studies(source(full), tmp_path / "in", Ledger())
    assert len(files(tmp_path / "in")) == 5
    assert fetch_studies(source(full), tmp_path / "in", Ledger()).num_objects == 10
    assert files(tmp_path / "in") == files(ten)
    assert not list((tmp_path / "in").glob(".partial-*"))


@pytest.mark.usefixtures("no_waits")
def test_a_series_that_does_not_come_whole_is_a_reject(full: FakeWeb, ten: Path, tmp_path: Path) -> None:
    uids = sorted(full.uids)
    full.hidden = {uid for uid in uids if full.uids[uid][1].endswith(".1")}  # all of one, and still listed below
    lost = {uid for uid in uids if uid not in full.hidden}
    full.hidden = {sorted(lost)[0]}
    ledger = Ledger()
    report = fetch_studies(source(full), tmp_path / "in", ledger)
    assert report.num_objects == 9
    assert [each.rule for each in ledger.rejects] == ["series-incomplete"]
    assert "states 5 objects, and gave 4" in ledger.rejects[0].reason
    assert ROOT not in ledger.rejects[0].file + ledger.rejects[0].reason
    assert not ledger.imbalance()
    again = Ledger()
    fetch_studies(source(full), tmp_path / "in", again)
    assert again.rejects == ledger.rejects  # also where nothing was fetched any more


def test_a_series_that_is_listed_and_not_given_is_a_reject(full: FakeWeb, tmp_path: Path) -> None:
    full.page = 1
    full.script = [None] * 6 + [404]
    ledger = Ledger()
    assert fetch_studies(source(full), tmp_path / "in", ledger).num_objects == 5
    assert [each.rule for each in ledger.rejects] == ["series-not-given"]


def test_other_settings_do_not_continue_a_folder(full: FakeWeb, tmp_path: Path) -> None:
    fetch_studies(source(full), tmp_path / "in", Ledger())
    with pytest.raises(OutputError, match="with other filters"):
        fetch_studies(source(full, modalities=("CT",)), tmp_path / "in", Ledger())


def test_filters_and_bounds(full: FakeWeb, tmp_path: Path) -> None:
    assert fetch_studies(source(full, modalities=("MR",)), tmp_path / "a", Ledger()).num_objects == 0
    assert fetch_studies(source(full, study_uids=("1.2.3",)), tmp_path / "b", Ledger()).num_studies == 0
    chosen = source(full, study_uids=(f"{ROOT}.77",), date_from="2020-01-01", date_to="2020-12-31", max_studies=1)
    assert fetch_studies(chosen, tmp_path / "c", Ledger()).num_objects == 10
    assert any("StudyDate=20200101-20201231" in path for _, path in full.requests)
    with pytest.raises(NetworkError, match=r"more than max_bytes=5,000"):
        fetch_studies(source(full, max_bytes=5_000), tmp_path / "d", Ledger())


def test_an_answer_without_dicom_is_told(full: FakeWeb, tmp_path: Path) -> None:
    full.page = 1
    full.script = [None] * 6 + ["text"]
    with pytest.raises(NetworkError, match="holds no DICOM"):
        fetch_studies(source(full), tmp_path / "in", Ledger())


def test_a_server_that_does_not_know_any_transfer_syntax_is_asked_again(full: FakeWeb, tmp_path: Path) -> None:
    full.page = 1
    full.script = [None] * 5 + [406]
    assert fetch_studies(source(full, max_wait_s=0.01), tmp_path / "in", Ledger()).num_objects == 10
    accepts = [headers["accept"] for headers in full.headers if "multipart" in headers.get("accept", "")]
    assert ["transfer-syntax=*" in accept for accept in accepts] == [True, False, False]
