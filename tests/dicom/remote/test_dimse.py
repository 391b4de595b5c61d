"""C-STORE against a PACS that has every fault we know of: an SCP by pynetdicom."""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from medtwin.core.errors import ConfigError
from medtwin.dicom.network import NetworkError, PacsSettings, Sender, SendReport, check_pacs
from medtwin.dicom.remote.dimse import MAX_CONTEXTS, context_groups
from medtwin.dicom.remote.instances import Instance
from tests.dicom.remote.samples import listed, write_objects
from tests.dicom.samples import ct, save


@dataclass
class Pacs:
    """An SCP in this process. `script` is consumed first: a status, `abort`, or `slow`, for each C-STORE."""

    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    finds: bool = True
    title: str = "PACS"
    script: list[Any] = field(default_factory=list)
    stored: dict[str, Dataset] = field(default_factory=dict)
    num_stores: int = 0
    num_associations: int = 0
    reject_first: int = 0
    port: int = 0
    hidden: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def store(self, event: Any) -> int:
        with self._lock:
            self.num_stores += 1
            step = self.script.pop(0) if self.script else 0
        if step == "abort":
            event.assoc.abort()
            return 0
        if step == "slow":
            time.sleep(0.6)
            step = 0
        if step == 0 or 0xB000 <= step < 0xC000:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            with self._lock:
                self.stored[str(dataset.SOPInstanceUID)] = dataset
        return int(step)

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for uid, dataset in sorted(self.stored.items()):
            if dataset.SeriesInstanceUID == event.identifier.SeriesInstanceUID and uid not in self.hidden:
                item = Dataset()
                item.QueryRetrieveLevel, item.SOPInstanceUID = "IMAGE", uid
                yield 0xFF00, item

    def requested(self, event: Any) -> None:
        with self._lock:
            self.num_associations += 1
            if self.reject_first > 0:
                self.reject_first -= 1
                event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient, presentation, local limit exceeded
                event.assoc.kill()


@contextmanager
def running(pacs: Pacs, context: ssl.SSLContext | None = None) -> Iterator[Pacs]:
    entity = AE(ae_title=pacs.title)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    entity.add_supported_context(CTImageStorage, list(pacs.syntaxes))
    if pacs.finds:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, pacs.store), (evt.EVT_C_FIND, pacs.find), (evt.EVT_REQUESTED, pacs.requested)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with running(Pacs()) as one:
        yield one


def settings(pacs: Pacs, **more: Any) -> PacsSettings:
    chosen = {"retries": 3, "concurrency": 1, "called_aet": pacs.title, "max_instances": 5}
    return PacsSettings(host="127.0.0.1", port=pacs.port, **(chosen | more))


def send(folder: Path, chosen: PacsSettings, journal: Path) -> SendReport:
    with Sender(listed(folder), chosen, "dimse", journal) as sender:
        assert sum(sender.steps()) == len(sender)
        if chosen.verify:
            assert sum(sender.verify()) == len(sender)
        return sender.report()


def test_the_pacs_gets_the_very_objects_over_one_association(pacs: Pacs, ten: Path, tmp_path: Path) -> None:
    assert send(ten, settings(pacs, verify=False), tmp_path / "j").counts == {"stored": 10}
    assert pacs.num_associations == 2  # C-ECHO, and one for all ten
    for path in ten.rglob("*.dcm"):
        sent = pydicom.dcmread(path)
        got = pacs.stored[sent.SOPInstanceUID]
        assert got == sent
        assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert send(ten, settings(pacs), tmp_path / "j").counts == {"stored": 10}
    assert pacs.num_stores == 10


def test_a_pacs_that_knows_implicit_alone_gets_the_same_values(ten: Path, tmp_path: Path) -> None:
    with running(Pacs(syntaxes=(ImplicitVRLittleEndian,))) as pacs:
        assert send(ten, settings(pacs), tmp_path / "j").counts == {"stored": 10}
        for path in ten.rglob("*.dcm"):
            sent = pydicom.dcmread(path)
            got = pacs.stored[sent.SOPInstanceUID]
            assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
            assert got.PixelData == sent.PixelData
            assert (got.PatientName, got.SyntheticData) == (sent.PatientName, "YES")


def test_what_the_pacs_does_not_take_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_objects(tmp_path / "in", 2)
    other = ct(0, SyntheticData="YES", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", SOPInstanceUID="1.2.3")
    other.file_meta.MediaStorageSOPClassUID = other.SOPClassUID
    save(folder / "other.dcm", other)
    with running(Pacs()) as pacs:
        report = send(folder, settings(pacs), tmp_path / "j")
    assert report.counts == {"refused": 1, "stored": 2}
    assert [(each.name, each.status) for each in report.failures] == [("other.dcm", "context-not-accepted")]


def test_each_object_has_its_own_status(pacs: Pacs, ten: Path, tmp_path: Path) -> None:
    pacs.script = [0, 0xB000, 0xB006, 0xA900, 0xC123, 0x0111, 0x0122]
    report = send(ten, settings(pacs, verify=False), tmp_path / "j")
    assert report.counts == {
        "refused": 3,
        "stored": 4,
        "stored with warning 0111": 1,
        "stored with warning B000": 1,
        "stored with warning B006": 1,
    }
    assert [each.status for each in report.failures] == ["A900", "C123", "0122"]
    assert send(ten, settings(pacs, verify=False), tmp_path / "j").counts["stored"] == 7
    assert pacs.num_stores == 13


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    "script", [["abort"], [0, "abort", "abort", 0, "abort"], [0xA700, 0xA701, 0], [0, 0, 0xA700, "abort", 0xA700]]
)
def test_faults_that_pass_lose_nothing(pacs: Pacs, ten: Path, tmp_path: Path, script: list[Any]) -> None:
    pacs.script = list(script)
    report = send(ten, settings(pacs), tmp_path / "j")
    assert report.counts == {"stored": 10}
    assert report.num_retries == sum(1 for step in script if step)
    assert len(pacs.stored) == 10


@pytest.mark.usefixtures("no_waits")
def test_an_answer_that_does_not_come_is_a_drop(pacs: Pacs, ten: Path, tmp_path: Path) -> None:
    pacs.script = [0, "slow"]
    report = send(ten, settings(pacs, read_timeout_s=0.3, verify=False), tmp_path / "j")
    assert report.counts == {"stored": 10}
    assert report.num_retries == 1


@pytest.mark.usefixtures("no_waits")
def test_an_object_that_always_drops_the_association_does_not_stop_the_others(
    pacs: Pacs, ten: Path, tmp_path: Path
) -> None:
    pacs.script = [0, *["abort"] * 4]
    report = send(ten, settings(pacs), tmp_path / "j")
    assert report.counts == {"refused": 1, "stored": 9}
    assert report.failures[0].status == "dropped"


@pytest.mark.usefixtures("no_waits")
def test_a_transient_rejection_passes_and_a_lasting_one_is_explained(pacs: Pacs, tmp_path: Path) -> None:
    pacs.reject_first = 2
    check_pacs(settings(pacs), "dimse")
    assert pacs.num_associations == 3
    pacs.reject_first = 4
    with pytest.raises(NetworkError, match="rejects associations after 4 attempts"):
        check_pacs(settings(pacs), "dimse")
    pacs.reject_first = 0
    before = pacs.num_associations
    with pytest.raises(NetworkError, match="is not called that: check called_aet"):
        check_pacs(settings(pacs, called_aet="OTHER"), "dimse")
    assert pacs.num_associations == before + 1  # a lasting rejection is not tried again


@pytest.mark.usefixtures("no_waits")
def test_nobody_there_is_told() -> None:
    with pytest.raises(NetworkError, match=r"127.0.0.1:1 cannot be reached after 2 attempts"):
        check_pacs(PacsSettings(host="127.0.0.1", port=1, retries=1), "dimse")


@pytest.mark.usefixtures("no_waits")
def test_what_the_pacs_does_not_hold_is_missing_and_goes_again(pacs: Pacs, ten: Path, tmp_path: Path) -> None:
    pacs.hidden = {str(pydicom.dcmread(next(ten.rglob("*.dcm"))).SOPInstanceUID)}
    report = send(ten, settings(pacs), tmp_path / "j")
    assert report.counts == {"missing": 1, "stored": 9}
    pacs.hidden = set()
    assert send(ten, settings(pacs), tmp_path / "j").counts == {"stored": 10}
    assert pacs.num_stores == 11


def test_a_pacs_without_c_find_is_told(ten: Path, tmp_path: Path) -> None:
    with running(Pacs(finds=False)) as pacs, pytest.raises(NetworkError, match=r"pacs.verify=false"):
        send(ten, settings(pacs), tmp_path / "j")


def test_several_associations_at_once(pacs: Pacs, tmp_path: Path) -> None:
    folder = write_objects(tmp_path / "in", 60, per_series=20)
    report = send(folder, settings(pacs, concurrency=4), tmp_path / "j")
    assert report.counts == {"stored": 60}
    assert len(pacs.stored) == pacs.num_stores == 60


def test_a_run_that_is_stopped_ends_soon_and_goes_on_later(
    pacs: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medtwin.dicom.remote.send._GRACE_S", 0.2)
    folder = write_objects(tmp_path / "in", 60, per_series=20)
    chosen = settings(pacs, concurrency=2, verify=False)
    pacs.script = [*[0] * 20, *["slow"] * 40]
    started = time.monotonic()
    with Sender(listed(folder), chosen, "dimse", tmp_path / "j") as sender:
        steps = sender.steps()
        next(steps)
        next(steps)
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
        confirmed = sender.report().counts["stored"]
    assert time.monotonic() - started < 10
    assert 0 < confirmed < 60
    pacs.script = []
    before = pacs.num_stores
    assert send(folder, chosen, tmp_path / "j").counts == {"stored": 60}
    assert pacs.num_stores - before == 60 - confirmed


def test_no_association_is_asked_for_more_contexts_than_there_are_numbers() -> None:
    instances = [
        Instance(Path("x"), "x", f"1.2.{number}", "1", "1", "1", syntax, 1, "0", True)
        for number in range(200)
        for syntax in (ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.80")
    ]
    groups = context_groups(instances)
    assert len(groups) == 400
    for number in {group for group, _ in groups.values()}:
        asked = {
            (cx.abstract_syntax, cx.transfer_syntax[0])
            for group, offered in groups.values()
            if group == number
            for cx in offered
        }
        assert 0 < len(asked) <= MAX_CONTEXTS
    assert {group for group, _ in groups.values()} == {0, 1, 2, 3, 4}


def test_tls_both_ways(ten: Path, tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "pynetdicom")  # a logged exception would keep its socket open
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    whole: dict[str, Any] = {
        "tls": True,
        "ca_file": certificates / "ca.pem",
        "client_cert_file": certificates / "client.pem",
        "client_key_file": certificates / "client.key",
    }
    with running(Pacs(), context) as pacs:
        assert send(ten, settings(pacs, **whole), tmp_path / "j").counts == {"stored": 10}
        for lack in ("ca_file", "tls"):
            with pytest.raises(NetworkError, match=re.escape(f"127.0.0.1:{pacs.port} ")):
                check_pacs(settings(pacs, **{**whole, lack: None}, retries=0, read_timeout_s=1.0), "dimse")


def test_a_key_that_does_not_fit_is_told(certificates: Path) -> None:
    chosen = {"host": "127.0.0.1", "tls": True, "client_cert_file": certificates / "client.pem"}
    with pytest.raises(ConfigError, match="do not belong together"):
        check_pacs(PacsSettings(**chosen, client_key_file=certificates / "server.key"), "dimse")
    with pytest.raises(ConfigError, match="cannot be read as PEM certificates"):
        check_pacs(PacsSettings(**chosen, ca_file=certificates / "none.pem"), "dimse")
