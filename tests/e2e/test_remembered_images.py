"""A model that is trained far too long on five patients draws those five: it is caught, and not exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json
from tests.check.images_samples import chest
from tests.e2e.conftest import Medtwin
from tests.e2e.radiographs import Radiograph, write_collection

pytestmark = pytest.mark.slow
NUM_PATIENTS, NUM_VISITS, SIZE = 60, 4, 32
MEMORY_GATES = ("image-near-copies", "image-memory")


def _radiographs() -> Iterator[Radiograph]:
    """Chests of 60 patients, each with ribs, scars and a device of their own, four visits each."""
    y, x = (np.indices((SIZE, SIZE)) - (SIZE - 1) / 2) / (SIZE / 2)
    for patient in range(NUM_PATIENTS):
        rng = np.random.default_rng([7, patient])
        marks = [(rng.uniform(-0.7, 0.7, 2), rng.uniform(0.05, 0.2), rng.uniform(-0.3, 0.3)) for _ in range(12)]
        sex, age = "FM"[patient % 2], int(rng.integers(30, 80))
        for visit in range(NUM_VISITS):
            ill = (patient + visit) % 2 == 0
            pixels = chest(rng, spot=ill, sex=sex, age=age, view="PA").astype(np.float64)
            for (row, column), width, height in marks:
                pixels += height * np.exp(-(((y - row) ** 2 + (x - column) ** 2) / width**2))
            yield 255 * pixels, patient, visit, ill, age, sex


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("collection"), _radiographs())


def test_five_remembered_patients_are_caught_and_not_exported(
    medtwin: Medtwin, collection: Path, key_file: Path, tmp_path: Path
) -> None:
    data, records, scans, twins = (tmp_path / name for name in ("data", "records", "scans", "twins"))
    medtwin("ingest", f"source.images={collection}", f"source.labels={collection / 'labels.csv'}", "labels=nih_cxr",
            "splits.tuning=0.05", "splits.held_out=0.867", f"pseudonyms.key_file={key_file}",
            f"out={data}")  # fmt: skip
    split_of = open_dataset(data).subject_splits()
    assert list(split_of.values()).count("train") == 5
    medtwin("train", "model=marginals", f"dataset={data}", f"out={records}")
    medtwin("train", "model=scan_diffusion", f"dataset={data}", f"data.size={SIZE}", "data.align=false",
            "net.patch=2", "net.channels=[48,64]", "net.dropout=0", "model.rank=0", "model.training.noise.mean=-0.8",
            "model.training.noise.deviation=1.4", "data.batch_size=16", "trainer.max_steps=1500",
            "callbacks.early_stopping=null", "callbacks.checkpoints.monitor=null", f"out={scans}")  # fmt: skip
    medtwin("generate", f"timelines={records}", f"scans={scans}", "n=60", f"out={twins}")
    for profile in ("research", "public"):
        check, out = (tmp_path / f"{name}_{profile}" for name in ("check", "out"))
        asked = (f"synthetic={twins}", f"real={data}", f"scans={scans}", f"gates={profile}", f"out={check}")
        medtwin("check", *asked)
        gates = read_json(check / "verdict.json")["gates"]
        assert {name: gates[name]["outcome"] for name in MEMORY_GATES} == dict.fromkeys(MEMORY_GATES, "failed")
        told = medtwin("export", f"dataset={twins}", "formats=[dicom]", f"check={check}", f"out={out}", code=2).stderr
        assert all(name in told for name in MEMORY_GATES)
        assert not out.exists()
