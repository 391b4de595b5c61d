"""Against Orthanc, which others wrote: 200 objects there and back, killed half-way, through a faulty proxy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import RLELossless

from medtwin.core.sources import Ledger
from medtwin.dicom.network import (
    NetworkError,
    PacsSettings,
    Sender,
    SendReport,
    WebSource,
    check_pacs,
    fetch_studies,
)
from tests.dicom.remote.fake_web import FakeWeb
from tests.dicom.remote.samples import NAME, listed, write_objects
from tests.dicom.samples import ROOT
from tests.peers import ROOT as PROJECT
from tests.servers.orthanc import AET, Orthanc, running_orthanc

NUM = 200
WAYS = ["dimse", "dicomweb"]


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("many") / "objects", NUM)


def settings(orthanc: Orthanc, **more: Any) -> PacsSettings:
    chosen = {"url": orthanc.base, "host": "127.0.0.1", "port": orthanc.port, "called_aet": AET}
    return PacsSettings(**(chosen | more))


def send(folder: Path, chosen: PacsSettings, by: Any, journal: Path) -> SendReport:
    with Sender(listed(folder), chosen, by, journal) as sender:
        list(sender.steps())
        list(sender.verify())
        return sender.report()


def read(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, folder.rglob("*.dcm"))}


@pytest.mark.parametrize("by", WAYS)
def test_there_and_back(orthanc: Orthanc, objects: Path, tmp_path: Path, by: str) -> None:
    assert send(objects, settings(orthanc), by, tmp_path / "j").counts == {"stored": NUM}
    assert orthanc.count() == NUM
    # A client that others wrote finds and gets the same.
    client = DICOMwebClient(orthanc.base)
    study = client.search_for_studies(search_filters={"PatientID": "MR4711"}, fields=["PatientName"])
    assert [each["0020000D"]["Value"] for each in study] == [[f"{ROOT}.77"]]
    assert study[0]["00100010"]["Value"] == [{"Alphabetic": NAME}]
    assert len(client.search_for_instances(f"{ROOT}.77")) == NUM
    sent = read(objects)
    got = client.retrieve_series(f"{ROOT}.77", f"{ROOT}.77.1")
    assert len(got) == 50
    for one in got:
        assert np.array_equal(one.pixel_array, sent[str(one.SOPInstanceUID)].pixel_array)
        assert (one.SyntheticData, str(one.PatientName)) == ("YES", NAME)
    # And so do we, for all.
    report = fetch_studies(WebSource(url=orthanc.base, modalities=("CT",)), tmp_path / "back", Ledger())
    assert (report.num_series, report.num_objects) == (4, NUM)
    back = read(tmp_path / "back")
    assert back.keys() == sent.keys()
    assert all(back[uid] == sent[uid] for uid in sent)
    # Sent again from the beginning, nothing is doubled.
    again = send(objects, settings(orthanc), by, tmp_path / "other")
    assert sum(again.counts.values()) == NUM
    assert not again.failures
    assert orthanc.count() == NUM


@pytest.fixture
def own_orthanc() -> Iterator[Orthanc]:
    """An Orthanc for one test: what a killed client had under way there must not come into another."""
    with running_orthanc() as server:
        yield server


@pytest.mark.parametrize("by", [pytest.param(WAYS[0], marks=pytest.mark.slow), *WAYS[1:]])
def test_killed_half_way_and_continued(own_orthanc: Orthanc, objects: Path, tmp_path: Path, by: str) -> None:
    orthanc = own_orthanc
    script = """
import sys
from pathlib import Path
from medtwin.dicom.network import PacsSettings, Sender, files_below
url, port, folder, by, journal = sys.argv[1:]
chosen = PacsSettings(url=url, host="127.0.0.1", port=int(port), called_aet="ORTHANC", max_instances=10, concurrency=1)
with Sender(files_below(Path(folder)), chosen, by, Path(journal)) as sender:
    for _ in sender.steps():
        pass
"""
    journal = tmp_path / "j"
    command = [sys.executable, "-c", script, orthanc.base, str(orthanc.port), str(objects), by, str(journal)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, cwd=PROJECT, env=environment)
    end = time.monotonic() + 60
    while orthanc.count() < 20 and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    before = journal.read_bytes().count(b'"stored"')
    assert 20 <= orthanc.count() < NUM
    assert 0 < before < NUM
    assert send(objects, settings(orthanc), by, journal).counts == {"stored": NUM}
    assert orthanc.count() == NUM
    # What was confirmed before was not sent again.
    assert journal.read_bytes().count(b'"stored"') == NUM


@pytest.mark.usefixtures("no_waits")
def test_through_a_faulty_proxy(orthanc: Orthanc, objects: Path, tmp_path: Path) -> None:
    with FakeWeb(target=orthanc.base) as proxy:
        chosen = settings(orthanc, url=proxy.base, max_instances=20, concurrency=2, retries=30)
        with Sender(listed(objects), chosen, "dicomweb", tmp_path / "j") as sender:
            proxy.script = [503, None, "drop-after", (429, {"Retry-After": "0"}), None, "drop", "truncate", 502] * 3
            list(sender.steps())
            list(sender.verify())
            report = sender.report()
        assert report.counts == {"stored": NUM}, (orthanc.count(), [each.name for each in report.failures])
        assert report.num_retries >= 10
        assert orthanc.count() == NUM
        proxy.script = [None, 503, "truncate", None, "truncate", "drop", 429, None] * 2
        fetch_studies(WebSource(url=proxy.base, concurrency=2, retries=30), tmp_path / "back", Ledger())
    sent, back = read(objects), read(tmp_path / "back")
    assert back.keys() == sent.keys()
    assert all(back[uid].PixelData == sent[uid].PixelData for uid in sent)


@pytest.mark.parametrize(("by", "held"), [("dicomweb", 5), ("dimse", 6)])
def test_what_orthanc_refuses_is_refused_alone(orthanc: Orthanc, tmp_path: Path, by: str, held: int) -> None:
    folder = write_objects(tmp_path / "in", 6)
    cut = folder / "s0" / "0003.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])  # STOW-RS refuses such a file; to C-STORE its shorter data set is one
    report = send(folder, settings(orthanc, retries=1), by, tmp_path / "j")
    assert orthanc.count() == report.counts["stored"] == held
    assert [(each.name, each.status) for each in report.failures] == [("s0/0003.dcm", "http-400")] * (6 - held)


@pytest.mark.parametrize("by", WAYS)
def test_compressed_objects_stay_as_they_are(orthanc: Orthanc, tmp_path: Path, by: str) -> None:
    folder = write_objects(tmp_path / "in", 4)
    for path in sorted(folder.rglob("*.dcm"))[:2]:
        one = pydicom.dcmread(path)
        one.compress(RLELossless, generate_instance_uid=False)
        one.save_as(path)
    assert send(folder, settings(orthanc), by, tmp_path / "j").counts == {"stored": 4}
    assert fetch_studies(WebSource(url=orthanc.base), tmp_path / "back", Ledger()).num_objects == 4
    sent, back = read(folder), read(tmp_path / "back")
    for uid, one in sent.items():
        assert back[uid].file_meta.TransferSyntaxUID == one.file_meta.TransferSyntaxUID
        assert back[uid].PixelData == one.PixelData


def test_a_stranger_is_told_why(orthanc: Orthanc) -> None:

    with pytest.raises(NetworkError, match=r"does not know our AE title|is not called that|for good"):
        check_pacs(settings(orthanc, calling_aet="STRANGER", retries=1), "dimse")
