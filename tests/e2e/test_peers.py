"""Programs that medtwin's authors did not write take what it exports."""

from __future__ import annotations

import io
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from medtwin.cli import main
from tests.e2e.conftest import Medtwin
from tests.peers import require_peer
from tests.servers.fhir import running_server
from tests.servers.orthanc import Orthanc, running_orthanc


def ask(url: str, body: bytes | None = None, kind: str = "application/fhir+json") -> dict[str, object]:
    request = urllib.request.Request(url, body, {"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="module")
def transactions(medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A transaction bundle for each of six patients, then the one that speaks of them all."""
    folder = tmp_path_factory.mktemp("transactions")
    medtwin("hospital", "n=6", "seed=5", f"out={folder / 'h'}")
    medtwin("ingest", f"source={folder / 'h'}", f"out={folder / 'd'}")
    medtwin("export", f"dataset={folder / 'd'}", f"out={folder / 'e'}", "formats=[fhir]", "fhir.form=transaction")
    bundles = sorted((folder / "e" / "fhir").glob("*.json"), key=lambda path: path.name == "shared.json")
    assert len(bundles) == 7
    return bundles


@pytest.fixture
def fhir_server() -> Iterator[str]:
    with running_server(maxEntries=100_000, maxBytes=100_000_000) as server:
        yield server.base


def test_a_fhir_server_with_strict_validation_takes_the_transactions(
    fhir_server: str, transactions: list[Path]
) -> None:
    num_resources = 0
    for path in transactions:
        entries = ask(fhir_server, path.read_bytes())["entry"]
        assert isinstance(entries, list)
        num_resources += len(entries)
        assert {entry["response"]["status"][:3] for entry in entries} <= {"200", "201"}
    assert num_resources > 300
    assert ask(f"{fhir_server}/Patient?_summary=count&_total=accurate")["total"] == 6


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture(scope="module")
def study_series(dataset: Path, medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The series UIDs of each study, as the ImagingStudy resources of the FHIR export tell them."""
    out = tmp_path_factory.mktemp("records") / "fhir"
    medtwin("export", f"dataset={dataset}", f"out={out}", "formats=[fhir]")
    found: dict[str, set[str]] = {}
    for line in (out / "fhir" / "ImagingStudy.ndjson").read_text().splitlines():
        study = json.loads(line)
        (uid,) = (each["value"] for each in study["identifier"] if each.get("system") == "urn:dicom:uid")
        assert uid.startswith("urn:oid:")
        found[uid.removeprefix("urn:oid:")] = {series["uid"] for series in study["series"]}
    assert found
    return found


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_orthanc_takes_the_images_and_knows_what_the_records_say_of_them(
    medtwin: Medtwin, dataset: Path, tmp_path: Path, orthanc: Orthanc, study_series: dict[str, set[str]], way: str
) -> None:
    orthanc.empty()
    files = sorted((dataset / "images").rglob("*.dcm"))
    place = {
        "dicomweb": [f"pacs.url={orthanc.base}"],
        "dimse": ["pacs.host=127.0.0.1", f"pacs.port={orthanc.port}"],
    }
    order = ["export", f"dataset={dataset}", f"to={way}", "pacs=orthanc", *place[way], f"out={tmp_path / 'sent'}"]
    medtwin(*order)
    assert orthanc.count() == len(files)
    counts = json.loads((tmp_path / "sent" / "counts.json").read_text())[way]
    assert counts["stored"] == len(files)
    assert not (tmp_path / "sent" / "rejected").exists()
    assert {pydicom.dcmread(io.BytesIO(data)).SyntheticData for data in orthanc.files()} == {"YES"}
    # PatientIDs as in the dataset; the studies and series of the records are those that QIDO-RS finds.
    assert {each["MainDicomTags"]["PatientID"] for each in orthanc.ask("/patients?expand")} == {
        path.name for path in (dataset / "images").iterdir()
    }
    for study_uid, series_uids in study_series.items():
        held = orthanc.ask(f"/dicom-web/studies/{study_uid}/series")
        assert {each["0020000E"]["Value"][0] for each in held} == series_uids
    medtwin(*order, "overwrite=true")  # sent anew, nothing is doubled
    assert orthanc.count() == len(files)


def test_a_dataset_comes_back_from_the_pacs(medtwin: Medtwin, dataset: Path, tmp_path: Path, orthanc: Orthanc) -> None:
    orthanc.empty()
    medtwin("export", f"dataset={dataset}", "to=dicomweb", f"pacs.url={orthanc.base}", f"out={tmp_path / 'sent'}")
    source = [f"source.dicomweb.url={orthanc.base}", "source.origin=simulated", f"out={tmp_path / 'back'}"]
    medtwin("ingest", *source)
    sent, back = (sorted(pixels(folder)) for folder in (dataset, tmp_path / "back"))
    assert len(sent) > 10
    assert back == sent
    assert orthanc.base.split("/")[2] in (tmp_path / "back" / "provenance.json").read_text()


def pixels(folder: Path) -> Iterator[bytes]:
    return (pydicom.dcmread(path).PixelData for path in (folder / "images").rglob("*.dcm"))


@pytest.mark.parametrize(
    ("way", "settings", "rule"),
    [
        ("dicomweb", [], "pacs.url=... is required"),
        ("dimse", [], "pacs.host=... is required"),
        ("dimse", ["pacs.host=pacs.example"], "DIMSE without TLS"),
        ("dimse", ["pacs.called_aet=A_TITLE_THAT_IS_TOO_LONG"], "called_aet must be 1 to 16 characters"),
        ("dicomweb", ["pacs.url=http://pacs.example/rs"], "plain http to pacs.example"),
        ("dicomweb", ["pacs.url=http://127.0.0.1:1/rs", "pacs.retries=0"], "it cannot be reached"),
        ("dimse", ["pacs.host=127.0.0.1", "pacs.port=1", "pacs.retries=0"], "127.0.0.1:1 cannot be reached"),
        (
            "dicomweb",
            ["pacs=dcm4chee", "pacs.url=https://x.example/rs"],
            "environment variable PACS_TOKEN holds nothing",
        ),
    ],
)
def test_a_pacs_that_cannot_be_used_is_told_at_once(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str, settings: list[str], rule: str
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["export", f"dataset={dataset}", f"out={tmp_path / 'sent'}", f"to={way}", *settings])
    assert done.value.code == 2
    assert rule in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_dciodvfy_finds_no_error_in_the_images(dataset: Path) -> None:
    dciodvfy = require_peer("dciodvfy")
    folders = sorted({path.parent for path in (dataset / "images").rglob("*.dcm")})
    for folder in folders[:20]:
        done = subprocess.run([dciodvfy, next(folder.iterdir())], capture_output=True, text=True, check=False)
        errors = [
            line
            for line in done.stderr.splitlines()
            if line.startswith("Error") and "(0x0008,0x001c)" not in line.lower()
        ]
        assert errors == []
