from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pydicom
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import file_digest, list_files, verify_manifest
from tests.e2e.conftest import Medtwin, command, environment
from tests.e2e.test_generate import _wait_for

SMALL = (
    "n=45",
    "twins=20",
    "stages.temporal_vae=trainer.max_steps=40 data.min_subjects=2 data.max_positions=256",
    "stages.scan_diffusion=trainer.max_steps=6",
    "stages.generate=sampling.num_steps=4",
    "stages.simulate=num_trials=100 num_curve=100",
)
STAGES = ("source", "dataset", "runs/temporal_vae", "runs/scan_diffusion", "twins", "check", "export", "trial")
REFUSING = (
    "stages.check=gates.judge.length.min_subjects=10 gates.judge.length.bound=0 gates.judge.length.times_baseline=0"
)


@pytest.fixture(scope="module")
def made(medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small run of everything, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "run"
    return out, medtwin("run", *SMALL, f"out={out}", alone=True).stdout


def test_a_run_leaves_every_stage_finished_and_says_where_it_is(made: tuple[Path, str]) -> None:
    out, told = made
    for stage in STAGES:
        assert verify_manifest(out / stage) == [], stage
    assert {path.name for path in (out / "export").iterdir()} >= {"fhir", "dicom"}
    written = json.loads((out / "export" / "counts.json").read_text())["fhir"]
    assert written["checked by rules"] > 0
    assert not [name for name in written if name.startswith("error")]
    assert not list(out.rglob("*.partial"))
    for name in ("report.html", "twins", "export/fhir", "export/dicom", "trial"):
        assert str(out / name) in told
    last = told.strip().splitlines()[-1]
    assert last.startswith("done in ")
    assert "peak memory" in last


def test_the_twins_of_a_run_have_records_and_scans(made: tuple[Path, str]) -> None:
    twins = open_dataset(made[0] / "twins")
    assert twins.origin == "synthetic"
    assert len(twins.subject_splits()) == 20
    images = twins.images().to_pylist()
    assert images
    files = sorted((made[0] / "export" / "dicom").rglob("*.dcm"))
    assert len(files) == len(images)
    for path in files:
        image = pydicom.dcmread(path)
        spacing = image.get("PixelSpacing", image.get("ImagerPixelSpacing"))
        assert 250 <= image.Columns * spacing[1] <= 480  # the width of a detector, in mm


def test_its_page_stands_alone(made: tuple[Path, str]) -> None:
    page = (made[0] / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert page.count("data:image/png;base64,") >= 2 or page.count("<svg") >= 2
    for heading in ("HbA1c with diabetes minus without", "Do patients come back after the right time?"):
        assert heading in page


def test_a_finished_run_is_not_made_again(medtwin: Medtwin, made: tuple[Path, str]) -> None:
    before = {name: file_digest(made[0] / name) for name in list_files(made[0])}
    told = medtwin("run", *SMALL, f"out={made[0]}").stdout
    assert told.count("finished already") >= len(STAGES)
    assert {name: file_digest(made[0] / name) for name in list_files(made[0])} == before


def test_other_settings_do_not_mix_with_what_is_there(medtwin: Medtwin, made: tuple[Path, str]) -> None:
    told = medtwin("run", *SMALL, "seed=1", f"out={made[0]}", code=2).stderr
    assert "overwrite=true" in told


@pytest.mark.slow
def test_a_refused_export_leaves_the_rest(medtwin: Medtwin, made: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(made[0], out)
    for part in ("check", "export", "trial"):
        shutil.rmtree(out / part)
    (out / "report.html").unlink()
    done = medtwin("run", *SMALL, REFUSING, f"out={out}", code=2)
    assert "not exported" in done.stdout + done.stderr
    assert not (out / "export").exists()
    assert (out / "trial" / "report.html").is_file()
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("stages.training=a=b", "did you mean stages."),
        ("stages.temporal_vae=fast", "key=value pairs"),
        ("stages.temporal_vae=trainer.max_stepss=3", "max_stepss"),
        ("twins=0", "twins must be 1 or more"),
        ("source=/nowhere", "/nowhere"),
        ("source.fhir=/nowhere", "/nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(medtwin: Medtwin, tmp_path: Path, argument: str, told: str) -> None:
    out = tmp_path / "run"
    assert told in medtwin("run", "n=10", argument, f"out={out}", code=2).stderr
    assert not out.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(medtwin: Medtwin, made: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("run", *SMALL, f"out={out}")
    for stage in ("runs/temporal_vae.partial/.state", "twins.partial/.state"):
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_for(lambda stage=stage: (out / stage).exists(), process)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    medtwin(*arguments)
    for part in ("dataset/data", "twins/data", "twins/images", "runs/temporal_vae/model.ckpt"):
        assert digests(out, part) == digests(made[0], part), part


def digests(folder: Path, under: str) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in list_files(folder) if name.startswith(under)}
