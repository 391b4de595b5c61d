from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import file_digest, list_files, read_json
from tests.e2e.conftest import Medtwin, command, environment

SMALL = ("net.width=16", "net.num_heads=2", "data.min_subjects=2", "trainer.max_steps=40", "logger=csv")


@pytest.fixture(scope="module")
def timelines(medtwin: Medtwin, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporal VAE, trained for a moment."""
    out = tmp_path_factory.mktemp("runs") / "timelines"
    medtwin("train", f"dataset={dataset}", "data.max_positions=200", *SMALL, f"out={out}")
    return out


@pytest.fixture(scope="module")
def scans(medtwin: Medtwin, dataset: Path, timelines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model, trained for a moment, with the latents of the VAE."""
    out = tmp_path_factory.mktemp("runs") / "scans"
    medtwin(
        "train", "model=scan_diffusion", f"dataset={dataset}", f"latents={timelines}", "trainer.max_steps=4",
        "logger=csv", f"out={out}",
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def twins(medtwin: Medtwin, timelines: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twins") / "twins"
    medtwin("generate", f"timelines={timelines}", f"scans={scans}", "n=30", "sampling.num_steps=2", f"out={out}")
    return out


def digests(folder: Path, under: str) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in list_files(folder) if name.startswith(under)}


def test_twins_are_a_valid_dataset_of_origin_synthetic(medtwin: Medtwin, twins: Path) -> None:
    assert "is valid: 30 subjects, origin synthetic" in medtwin("validate", f"dataset={twins}").stdout
    provenance = read_json(twins / "provenance.json")
    assert provenance["origin"] == "synthetic"
    assert provenance["lineage_depth"] == 1
    assert {part["role"] for part in provenance["inputs"]} == {"timelines", "scans"}
    counts = read_json(twins / "counts.json")
    assert counts["twins"] == 30
    assert sum(counts["scans made"].values()) == len(open_dataset(twins).images()) > 0


def test_record_and_scan_of_a_twin_are_of_one_patient(twins: Path) -> None:
    dataset = open_dataset(twins)
    events = dataset.events().to_pylist()
    studies = {
        row["text_value"]: row["subject_id"] for row in events if row["code"] == "FHIR//ImagingStudy.studyInstanceUID"
    }
    series = {row["text_value"] for row in events if row["code"] == "FHIR//ImagingStudy.series"}
    images = dataset.images().to_pylist()
    assert {image["series_uid"] for image in images} == series
    assert all(studies[image["study_uid"]] == image["subject_id"] for image in images)
    assert all(image["rows"] == image["columns"] == 64 for image in images)


def test_one_seed_gives_the_same_bytes_whatever_the_batch_size(
    medtwin: Medtwin, timelines: Path, scans: Path, twins: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    medtwin(
        "generate", f"timelines={timelines}", f"scans={scans}", "n=30", "sampling.num_steps=2",
        "sampling.batch_size=5", f"out={again}",
    )  # fmt: skip
    assert digests(again, "data/") == digests(twins, "data/")
    assert digests(again, "images") == digests(twins, "images")
    other = tmp_path / "other"
    medtwin("generate", f"timelines={timelines}", "n=30", "seed=1", f"out={other}")
    assert digests(other, "data/") != digests(twins, "data/")


def test_more_twins_never_change_the_first_ones(
    medtwin: Medtwin, timelines: Path, scans: Path, twins: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer"
    medtwin("generate", f"timelines={timelines}", f"scans={scans}", "n=7", "sampling.num_steps=2", f"out={fewer}")
    subjects = set(open_dataset(fewer).subject_splits())
    assert len(subjects) == 7

    def rows(folder: Path) -> list[dict[str, object]]:
        table = open_dataset(folder).events().to_pylist()
        kept = [row for row in table if row["subject_id"] in subjects]
        return sorted(kept, key=lambda row: json.dumps(row, default=str))

    assert rows(fewer) == rows(twins)
    assert digests(fewer, "images/").items() <= digests(twins, "images/").items()


def test_a_killed_generation_goes_on_and_ends_the_same(
    medtwin: Medtwin, timelines: Path, scans: Path, twins: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = ("generate", f"timelines={timelines}", f"scans={scans}", "n=30", "sampling.num_steps=2", f"out={out}")
    process = subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.DEVNULL)
    partial = out.with_name("killed.partial")
    _wait_for(lambda: any((partial / ".state" / "timelines").glob("*.arrow")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    medtwin(*arguments)
    assert digests(out, "data/") == digests(twins, "data/")
    assert digests(out, "images") == digests(twins, "images")
    assert "finished already" in medtwin(*arguments).stdout


def _wait_for(is_there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if is_there() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError("nothing came within a minute")


def test_what_only_other_splits_hold_is_in_no_run_and_no_twin(medtwin: Medtwin, dataset: Path, tmp_path: Path) -> None:
    """A code, and an extreme value, that only tuning and held-out subjects have; and the control with them in train."""
    planted = _with_plants(dataset, tmp_path / "planted", ("tuning", "held_out"))
    control = _with_plants(dataset, tmp_path / "control", ("train",))
    for source, is_control in ((planted, False), (control, True)):
        run = tmp_path / f"run-{source.name}"
        medtwin("train", f"dataset={source}", "data.max_positions=120", *SMALL, f"out={run}")
        spec = (run / "data" / "timelines.json").read_text(encoding="utf-8")
        assert ("PLANTED" in spec) == is_control
        assert bool(re.search(r"(?<![\d.])4321(?!\d)", spec)) == is_control  # and not digits of another number
        files = [run / name for name in list_files(run)]
        assert any(b"PLANTED" in file.read_bytes() for file in files) == is_control
        twins = tmp_path / f"twins-{source.name}"
        medtwin("generate", f"timelines={run}", "n=20", f"out={twins}")
        table = open_dataset(twins).events()
        if not is_control:
            assert not any("PLANTED" in code for code in table["code"].to_pylist())
            assert max(value or 0 for value in table["numeric_value"].to_pylist()) < 4000


def _with_plants(dataset: Path, out: Path, splits: tuple[str, ...]) -> Path:
    """A copy, as a bare MEDS dataset, in which every HbA1c of the splits is 4321 and every condition is PLANTED."""
    shutil.copytree(dataset, out, ignore=shutil.ignore_patterns("manifest.json", "images*", "provenance.json"))
    for path in (path for split in splits for path in (out / "data" / split).glob("*.parquet")):
        rows = pq.ParquetFile(path).read()
        listed = rows.to_pylist()
        for row in listed:
            if row["code"] == "LOINC//4548-4":
                row["numeric_value"] = 4321.0
            if row["resource"] == "Condition" and row["parent_id"] is None:
                row["code"] = "SNOMED//PLANTED"
        pq.write_table(rows.from_pylist(listed, schema=rows.schema), path)
    return out


def test_mistakes_are_told_in_a_line(medtwin: Medtwin, timelines: Path, scans: Path, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'x'}"
    for arguments, message in (
        ((f"timelines={tmp_path / 'none'}", out), "must be a finished run"),
        ((f"timelines={scans}", out), "must be the run of a temporal VAE"),
        ((f"timelines={timelines}", f"scans={timelines}", out), "must be the run of a diffusion model"),
        ((f"timelines={timelines}", "n=0", out), "n must be 1 or more"),
        ((f"timelines={timelines}", "plan.sex=X", out), "attributes.sex must be one of"),
        ((f"timelines={timelines}", "plan.age=[60,40]", out), "plan.age must be"),
        ((out,), "timelines"),
    ):
        assert message in medtwin("generate", *arguments, code=2).stderr


def test_a_run_whose_configuration_was_changed_is_refused(medtwin: Medtwin, timelines: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(timelines, changed)
    text = (changed / "config.yaml").read_text()
    (changed / "config.yaml").write_text(text.replace("width: 16", "width: 32"))
    done = medtwin("generate", f"timelines={changed}", "n=2", f"out={tmp_path / 'twins'}", code=2)
    assert "does not fit the network" in done.stderr
    assert not (tmp_path / "twins").exists()
