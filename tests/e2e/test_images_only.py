"""A collection of radiographs with findings and no dates, through the verbs: twins that are valid FHIR and DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pydicom
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json
from medtwin.core.images import table_to_images
from tests.e2e.conftest import Medtwin
from tests.e2e.radiographs import write_collection

pytestmark = pytest.mark.slow
NUM = 60


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chests of pneumonia are brighter."""
    rng = np.random.default_rng(0)
    illnesses = [number % 3 == 0 for number in range(NUM)]
    return write_collection(
        tmp_path_factory.mktemp("collection"),
        (
            (rng.normal(170 if ill else 90, 10, (64, 64)), number, 0, ill, 40, "FM"[number % 2])
            for number, ill in enumerate(illnesses)
        ),
    )


def test_images_without_dates_become_twins_with_images(medtwin: Medtwin, collection: Path, tmp_path: Path) -> None:
    data, vae, scans, twins, out = (tmp_path / name for name in ("data", "vae", "scans", "twins", "out"))
    medtwin("ingest", f"source.images={collection}", f"source.labels={collection / 'labels.csv'}", "labels=nih_cxr",
            f"out={data}")  # fmt: skip
    medtwin("train", "model=temporal_vae", "net.width=32", "trainer.max_steps=300", f"dataset={data}", f"out={vae}")
    medtwin("train", "model=scan_diffusion", f"dataset={data}", "data.size=16", "net.channels=[16,32]",
            "trainer.max_steps=4", f"out={scans}")  # fmt: skip
    medtwin("generate", f"timelines={vae}", f"scans={scans}", "n=30", "sampling.num_steps=2", f"out={twins}")
    dataset = open_dataset(twins)
    assert all(pc.all(pc.is_null(table["time"])).as_py() for table in dataset.iter_events())
    images = table_to_images(dataset.images())
    assert len(images) == read_json(twins / "counts.json")["scans made"]["CR"] > 10
    labels = [None if row.labels is None else tuple(row.labels) for row in images]
    assert labels.count(None) < 0.2 * len(labels), "images show the findings of their own record's reports"
    assert {(), ("SNOMED//233604007",)} <= set(labels)
    files = [file for row in images for file in sorted((twins / row.path).iterdir())]
    assert len(files) == len(images)
    assert not any(pydicom.dcmread(file, stop_before_pixels=True).StudyDate for file in files)
    of_whom = ("generate", f"timelines={vae}", f"twin.of={data}", f"out={tmp_path / 'none'}")
    for asked, message in (("twin.until=30", "no record that the model learned from has a date"),
                           ("set.age=75", "no record that the model learned from says a birth date")):  # fmt: skip
        assert message in medtwin(*of_whom, asked, code=2).stderr
    check = tmp_path / "check"
    medtwin("check", f"synthetic={twins}", f"real={data}", f"timelines={vae}", f"scans={scans}", f"out={check}")
    medtwin("export", f"dataset={twins}", "formats=[fhir,dicom]", "fhir.check=all", "override.reason=test",
            f"check={check}", f"out={out}")  # fmt: skip
    counts = read_json(out / "counts.json")
    assert counts["dicom"] == {"files": len(files), "series": len(files)}
    assert counts["fhir"]["Patient"] == 30
    assert counts["fhir"]["ImagingStudy"] == len(files)
    assert counts["fhir"]["checked by schema"] > 60
    assert not any("error" in what for what in counts["fhir"])
