"""Public scans are read, de-identified and written without loss; what remains invalid was so in the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from medtwin.config import build, compose
from medtwin.core.images import images_to_table, validate_images
from medtwin.core.sources import Ledger
from medtwin.dicom import Series, deidentify_series, open_series, read_folder, series_to_image_row, write_series
from medtwin.pipelines.ingest import main
from tests.dicom.samples import PSEUDONYMS

pytestmark = pytest.mark.real

KNOWN_FAULTS = {
    "nih_cxr/dicom": set(),
    "ct_covid_ny_sbu": set(),
    # The source has no MR acquisition attributes (nifti2dicom made it), and they cannot be invented.
    "mr_t1_studyforrest": {
        "A value is required for value 3 in MR Images - attribute <ImageType>",
        "Missing attribute Type 1 Required Element=<ScanningSequence> Module=<MRImage>",
        "Missing attribute Type 1 Required Element=<SequenceVariant> Module=<MRImage>",
    },
}


def _read(folder: Path) -> tuple[list[Series], Ledger]:
    if not folder.is_dir():
        pytest.skip(f"needs the public data set {folder.name}")
    ledger = Ledger()
    return read_folder(folder, ledger), ledger


@pytest.mark.parametrize("name", KNOWN_FAULTS)
def test_deidentified_scans_keep_their_pixels_and_conform(
    public_data: Path, tmp_path: Path, name: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    series, ledger = _read(public_data / name)
    assert ledger.rejects == []
    rows, faults = [], Counter[str]()
    for one in series:
        subject_id = PSEUDONYMS.subject_id(one.identity)
        row = series_to_image_row(one, PSEUDONYMS, subject_id)
        paths = write_series(tmp_path / row.path, deidentify_series(one, PSEUDONYMS, subject_id, ledger=ledger))
        again = open_series(tmp_path / row.path)
        assert np.array_equal(again.pixels(), one.pixels())
        assert again.geometry.slice_spacing_mm == pytest.approx(one.geometry.slice_spacing_mm)
        for instance, path in zip(one.instances, paths, strict=True):
            source, kept = pydicom.dcmread(instance.path), path.read_bytes()
            assert pydicom.dcmread(path).PixelData == source.PixelData
            for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
                value = str(source[keyword].value)
                assert len(value) < 4 or value.encode() not in kept
        faults.update(line.removeprefix("Error - ").strip() for line in dciodvfy(paths[0]))
        rows.append(row)
    assert validate_images(images_to_table(rows)) == []
    assert set(faults) == KNOWN_FAULTS[name]


def test_radiographs(public_data: Path) -> None:
    series, ledger = _read(public_data / "nih_cxr" / "dicom")
    assert ledger.read == {"DICOM": 154}
    assert len(series) == 154
    assert {one.header.modality for one in series} == {"CR"}
    assert {one.header.view for one in series} == {"AP", "PA"}
    assert all(one.header.age_years and one.header.study_time is None for one in series)
    assert all(one.identity.startswith("mr:NIH-") for one in series)
    assert all(one.geometry.spacing_source == "ImagerPixelSpacing" for one in series)


def test_ct_slices(public_data: Path) -> None:
    series, _ = _read(public_data / "ct_covid_ny_sbu")
    assert len(series) == 20
    assert len({one.identity for one in series}) == 10
    assert {one.header.intensity_unit for one in series} == {"HU"}
    lung_and_air = [float(np.mean(one.pixels() < -500)) for one in series]
    assert min(lung_and_air) > 0.1


def test_mr_volume(public_data: Path) -> None:
    (series,), ledger = _read(public_data / "mr_t1_studyforrest")
    assert (series.geometry.num_slices, series.geometry.rows, series.geometry.columns) == (32, 384, 274)
    assert series.geometry.slice_spacing_mm == pytest.approx(2 / 3, abs=1e-4)
    assert series.header.age_years == 42
    assert ledger.flags["DICOM.bad-value.PatientAge"] == 32
    numbers = [instance.instance_number for instance in series.instances]
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


def test_the_comments_of_all_radiographs_say_what_the_label_table_says(public_data: Path, tmp_path: Path) -> None:
    nih = public_data / "nih_cxr"
    config = compose("ingest", ["labels=nih_cxr", "dicom_label=nih_cxr"])
    tag, table = build(config["dicom_label"]), build(config["labels"])
    series, _ = _read(nih / "dicom")
    ledger = Ledger()
    images = {Path(image.file).stem: image.labels for image in table.read(nih / "png256", nih / "labels.csv", Ledger())}
    found = {Path(one.instances[0].file).stem: tag.labels(one, ledger) for one in series}
    assert len(found) == 154
    assert found == {name: images[name] for name in found}
    assert ledger.flags == {}

    # The same way into the dataset: images.parquet, and the events of a report.
    main(compose("ingest", [f"source.dicom={nih / 'dicom'}", "dicom_label=nih_cxr", f"out={tmp_path / 'out'}"]))
    rows = pq.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    assert Counter(map(tuple, (row["labels"] for row in rows))) == Counter(map(tuple, found.values()))
    codes = [code for path in (tmp_path / "out" / "data").rglob("*.parquet") for code in _codes(path)]
    assert sum("conclusionCode" in code for code in codes) == sum(len(labels) or 1 for labels in found.values())


def _codes(path: Path) -> list[str]:
    codes: list[str] = pq.read_table(path, columns=["code"])["code"].to_pylist()
    return codes
