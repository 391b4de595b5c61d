"""Series of slices through the verbs: learned as volumes, drawn for the records that call for them, written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydicom
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import file_digest, list_files, read_json
from medtwin.core.images import images_to_table, table_to_images
from medtwin.dicom import Patient, Study, open_series, validate_folder, write_volume
from tests.e2e.conftest import Medtwin
from tests.scans.volume_samples import VolumeSpec, volume

pytestmark = pytest.mark.slow
SHAPE, SPACING_MM = (8, 16, 16), (20.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def volumes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hospital's records, in which every radiograph is a CT of eight slices."""
    folder = tmp_path_factory.mktemp("volumes") / "dataset"
    shutil.copytree(dataset / "metadata", folder / "metadata")
    for file in (dataset / "data").rglob("*.parquet"):
        table = pq.ParquetFile(file).read()
        table = table.filter(pc.not_equal(table["code"], "FHIR//ImagingStudy.series.view"))
        code = pc.replace_substring(table["code"], "DCM//CR", "DCM//CT")
        is_count = pc.equal(code, "FHIR//ImagingStudy.series.numberOfInstances")
        number = pc.if_else(is_count, pa.scalar(8.0, pa.float32()), table["numeric_value"])
        for name, column in (("code", code), ("numeric_value", number)):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), column)
        target = folder / file.relative_to(dataset)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
    rows = []
    for number, row in enumerate(table_to_images(open_dataset(dataset).images())):
        made = volume(VolumeSpec(number % 2 == 1, shape=SHAPE, spacing_mm=SPACING_MM, shift_mm=(number % 5, 0.0, 0.0)))
        study = Study(row.study_uid, row.series_uid, "simulated", body_part="CHEST")
        write_volume(folder / row.path, made, Patient(str(row.subject_id)), study)
        rows.append(
            replace(
                row, modality="CT", view=None, rows=16, columns=16, num_slices=8, pixel_spacing_row_mm=10.0,
                pixel_spacing_column_mm=10.0, spacing_source="PixelSpacing", slice_spacing_mm=20.0,
                slice_thickness_mm=20.0, intensity_unit="HU", photometric="MONOCHROME2", bits_stored=12,
            )
        )  # fmt: skip
    pq.write_table(images_to_table(rows), folder / "images.parquet")
    return folder


def test_twins_have_volumes_that_are_valid_series_and_the_record_names(
    medtwin: Medtwin, volumes: Path, tmp_path: Path
) -> None:
    vae, scans, twins = (tmp_path / name for name in ("vae", "scans", "twins"))
    medtwin("train", "model=markov", f"dataset={volumes}", f"out={vae}")
    medtwin(
        "train", "model=scan_volumes", f"dataset={volumes}", "data.size=[8,16,16]", "data.voxel_ratio=2",
        "net.channels=[16,32]", "trainer.max_steps=4", "logger=csv", f"out={scans}",
    )  # fmt: skip
    described = read_json(scans / "data" / "scans.json")
    assert (described["size"], described["voxel_ratio"]) == ([8, 16, 16], 2.0)
    asked = ("generate", f"timelines={vae}", f"scans={scans}", "n=40", "sampling.num_steps=2", "sampling.tile=2")
    medtwin(*asked, f"out={twins}", alone=True)
    assert "is valid: 40 subjects" in medtwin("validate", f"dataset={twins}").stdout
    images = table_to_images(open_dataset(twins).images())
    assert len(images) == read_json(twins / "counts.json")["scans made"]["CT"] > 0
    for row in images:
        assert (row.modality, row.num_slices, row.slice_spacing_mm, row.intensity_unit) == ("CT", 8, 20.0, "HU")
        series = open_series(twins / row.path)
        affine = series.affine()
        assert affine is not None
        assert np.allclose(np.diag(affine), (10.0, 10.0, 20.0, 1.0))
        slices = [pydicom.dcmread(file) for file in sorted((twins / row.path).glob("*.dcm"))]
        assert [int(one.InstanceNumber) for one in slices] == list(range(1, 9))
        assert len({one.FrameOfReferenceUID for one in slices}) == 1
        assert {one.SyntheticData for one in slices} == {"YES"}
        assert -1024 <= series.pixels().min() < series.pixels().max() <= 3071
    validation = validate_folder(twins / "images")
    assert validation.num_errors == 0, validation.findings()
    assert validation.num_objects["ct-image"] == 8 * len(images)
    rows = open_dataset(twins).events().to_pylist()
    counts = [row["numeric_value"] for row in rows if row["code"] == "FHIR//ImagingStudy.series.numberOfInstances"]
    assert counts == [8.0] * len(images)
    again = tmp_path / "again"
    medtwin(*asked, "sampling.batch_size=1", f"out={again}", alone=True)
    assert _images(again) == _images(twins)


def _images(folder: Path) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in list_files(folder) if name.startswith("images/")}
