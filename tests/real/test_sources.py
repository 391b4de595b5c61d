"""The four public sources, whole: ingested, valid, books balanced, exported with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
import pytest

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.files import read_json
from tests.e2e.conftest import (
    Medtwin,
    medtwin,  # noqa: F401
)

pytestmark = pytest.mark.real


def balanced(dataset: Dataset) -> dict[str, Counter[str]]:
    counts = {name: Counter(part) for name, part in read_json(dataset.path / "counts.json").items()}
    for kind, number in counts["read"].items():
        parts = [counts[name][kind] for name in ("carried", "not_carried", "rejected")]
        assert number == sum(parts), kind
    return counts


def checked(path: Path) -> tuple[Dataset, dict[str, Counter[str]]]:
    dataset = open_dataset(path)
    assert dataset.validate() == []
    return dataset, balanced(dataset)


@pytest.mark.slow
def test_mimic_demo(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    medtwin("ingest", f"source.fhir={public_data / 'mimic4_demo_fhir'}", f"out={tmp_path / 'd'}")
    dataset, counts = checked(tmp_path / "d")
    assert counts["read"].total() == 260_073
    assert counts["read"]["Patient"] == counts["carried"]["Patient"] == 100
    assert counts["rejected"].total() < 100
    assert len(dataset.subject_splits()) == 100
    events = dataset.events()
    dated_at_end = pc.sum(pc.equal(events["code"], "FHIR//Condition.time//encounter-end")).as_py()
    assert dated_at_end > 4000
    text = pc.unique(events["text_value"]).to_pylist()
    assert not [value for value in text if value and len(value.split()) > 6]


@pytest.mark.slow
def test_synthea(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    medtwin(
        "ingest",
        f"source.fhir={public_data / 'synthea_r4' / 'ndjson'}",
        "source.origin=simulated",
        f"out={tmp_path / 'd'}",
    )
    dataset, counts = checked(tmp_path / "d")
    assert counts["read"]["Observation"] == counts["carried"]["Observation"] == 70_101
    assert counts["carried"]["Patient"] == 494
    export = medtwin("export", f"dataset={dataset.path}", f"out={tmp_path / 'e'}", "formats=[fhir,csv]")
    assert "Observation" in export.stdout


def test_synthea_transaction_bundles(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    medtwin("ingest", f"source.fhir={public_data / 'synthea_r4' / 'bundles'}", f"out={tmp_path / 'd'}")
    dataset, counts = checked(tmp_path / "d")
    assert counts["carried"]["Patient"] == 8
    assert counts["rules"]["no-subject"] == 0
    assert dataset.origin == "real"


def test_physionet_2012(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    source = open_dataset(public_data / "physionet2012_meds")
    medtwin("ingest", f"source.meds={source.path}", f"out={tmp_path / 'd'}")
    dataset, counts = checked(tmp_path / "d")
    assert counts["carried"]["row"] == 3_290_287
    assert dataset.subject_splits() == source.subject_splits()
    assert set(pc.unique(dataset.events("train")["code"]).to_pylist()) <= set(source.codes()["code"].to_pylist())


def test_nih_radiographs_as_png_and_as_dicom(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    nih = public_data / "nih_cxr"
    medtwin(
        "ingest",
        f"source.images={nih / 'png256'}",
        f"source.labels={nih / 'labels.csv'}",
        "labels=nih_cxr",
        f"out={tmp_path / 'a'}",
    )
    images, counts = checked(tmp_path / "a")
    assert counts["carried"]["image"] == len(images.images()) == 802
    assert len(images.subject_splits()) == 550
    medtwin("ingest", f"source.dicom={nih / 'dicom'}", f"out={tmp_path / 'b'}")
    scans, counts = checked(tmp_path / "b")
    assert counts["carried"]["DICOM"] == len(scans.images()) == 154
    refused = medtwin("export", f"dataset={scans.path}", f"out={tmp_path / 'e'}", code=2)
    assert "holds real patients" in refused.stderr
    medtwin("export", f"dataset={scans.path}", f"out={tmp_path / 'e'}", "override.reason=a test on public data")
    assert len(list((tmp_path / "e" / "dicom").rglob("*.dcm"))) == 154


@pytest.mark.slow
def test_the_largest_sources_export_with_a_reason(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    for name, kind in (("mimic4_demo_fhir", "fhir"), ("physionet2012_meds", "meds")):
        medtwin("ingest", f"source.{kind}={public_data / name}", f"out={tmp_path / name}")
        medtwin(
            "export",
            f"dataset={tmp_path / name}",
            f"out={tmp_path / f'{name}-e'}",
            "override.reason=a test on public data",
        )
        assert (tmp_path / f"{name}-e" / "fhir" / "Observation.ndjson").is_file()


@pytest.mark.slow
def test_the_other_images(medtwin: Medtwin, public_data: Path, tmp_path: Path) -> None:  # noqa: F811
    mhh, mnist = public_data / "mhh_covid_cxr", public_data / "pneumoniamnist" / "pneumoniamnist.npz"
    medtwin(
        "ingest",
        f"source.images={mhh / 'png256'}",
        f"source.labels={mhh / 'data.csv'}",
        "labels=mhh_covid_cxr",
        f"out={tmp_path / 'a'}",
    )
    assert len(checked(tmp_path / "a")[0].images()) == 243
    medtwin("ingest", f"source.images={mnist}", "labels=pneumoniamnist", f"out={tmp_path / 'b'}")
    assert len(checked(tmp_path / "b")[0].images()) == 4708 + 524
    for name in ("ct_covid_ny_sbu", "mr_t1_studyforrest"):
        medtwin("ingest", f"source.dicom={public_data / name}", f"out={tmp_path / name}")
        checked(tmp_path / name)
