from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import file_digest, list_files, read_json
from medtwin.core.provenance import training_subjects
from tests.e2e.conftest import Medtwin, command, environment

SMALL = ("net.width=16", "net.num_heads=2", "data.min_subjects=2", "trainer.max_steps=40", "logger=csv")


@pytest.fixture(scope="module")
def timelines(medtwin: Medtwin, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporal VAE, trained for a moment."""
    out = tmp_path_factory.mktemp("runs") / "timelines"
    medtwin("train", f"dataset={dataset}", "data.max_positions=120", *SMALL, f"out={out}")
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


def test_twins_say_how_many_subjects_they_were_learned_from(twins: Path, timelines: Path, dataset: Path) -> None:
    count = sum(split == "train" for split in open_dataset(dataset).subject_splits().values())
    assert training_subjects(twins) == training_subjects(timelines) == count
    assert training_subjects(dataset) is None


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


@pytest.mark.slow  # a killed generation that ends the same, and the samplers of both rooms, say so as well
def test_one_seed_gives_the_same_bytes_whatever_the_batch_size(
    medtwin: Medtwin, timelines: Path, scans: Path, twins: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    medtwin(
        "generate", f"timelines={timelines}", f"scans={scans}", "n=30", "sampling.num_steps=2",
        "sampling.batch_size=5", f"out={again}", alone=True,
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
    for _ in range(6000):
        if is_there() or process.poll() is not None:
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise AssertionError("nothing came within five minutes")


@pytest.mark.slow
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


def test_mistakes_are_told_in_a_line(
    medtwin: Medtwin, timelines: Path, scans: Path, dataset: Path, tmp_path: Path
) -> None:
    out = f"out={tmp_path / 'x'}"
    for arguments, message in (
        ((f"timelines={tmp_path / 'none'}", out), "must be a finished run"),
        ((f"timelines={scans}", out), "must be the run of a temporal VAE"),
        ((f"timelines={timelines}", f"scans={timelines}", out), "must be the run of a diffusion model"),
        ((f"timelines={timelines}", "n=0", out), "n must be 1 or more"),
        ((f"timelines={timelines}", "plan.sex=X", out), "plan.sex must be one of"),
        ((f"timelines={timelines}", "plan.age=[60,40]", out), "plan.age must be"),
        ((f"timelines={timelines}", "plan.strata=[{share: 0.4}]", out), "the shares must sum to 1"),
        ((f"timelines={timelines}", "plan.balance=[SNOMED//0]", out), "plan.facts: the model has no fact SNOMED//0"),
        ((f"timelines={timelines}", "plan.phenotype=0", out), "plan.phenotype: component must be null"),
        ((f"timelines={timelines}", "set.age=75", out), "twin.of must name the dataset"),
        ((f"timelines={timelines}", f"twin.of={dataset}", out), "twin.of must stand with exactly one of"),
        ((f"timelines={timelines}", f"twin.of={dataset}", "set.age=500", out), "set.age must be an age"),
        ((f"timelines={timelines}", f"twin.of={dataset}", "set.age=50", "plan.sex=F", out), "plan.* must be null"),
        ((f"timelines={timelines}", f"twin.of={dataset}", "set.age=50", "twin.subjects=[1]", out), "has no subject 1"),
        ((f"timelines={timelines}", f"twin.of={dataset}", "twin.between=[1,2]", out), "must stand with twin.n"),
        ((out,), "timelines"),
    ):
        assert message in medtwin("generate", *arguments, code=2).stderr


def test_a_plan_is_met_exactly_and_adherence_is_counted(medtwin: Medtwin, timelines: Path, tmp_path: Path) -> None:
    facts = read_json(timelines / "data" / "timelines.json")["profile"]["facts"]
    condition = next(code for code in facts if code.startswith("SNOMED//"))
    out = tmp_path / "planned"
    strata = f"plan.strata=[{{sex: F, age: [18, 50], share: 0.5}}, {{sex: M, conditions: [{condition}], share: 0.5}}]"
    medtwin("generate", f"timelines={timelines}", "n=10", strata, f"out={out}")
    genders = [code for code in open_dataset(out).events()["code"].to_pylist() if code.startswith("GENDER//")]
    assert sorted(genders) == ["GENDER//F"] * 5 + ["GENDER//M"] * 5
    counts = read_json(out / "counts.json")
    assert counts["asked for"] == {condition: 5}
    assert 0 <= counts["asked for and in the record"][condition] <= 5
    assert counts["facts"][condition] >= 5


def births(folder: Path) -> dict[int, object]:
    rows = open_dataset(folder).events().to_pylist()
    return {row["subject_id"]: row["time"] for row in rows if row["code"] == "MEDS_BIRTH"}


def pairs(folder: Path, name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(folder / "metadata" / f"{name}.parquet").to_pylist()
    return rows


def test_twins_of_this_run_are_replayed_exactly_and_changed(medtwin: Medtwin, timelines: Path, tmp_path: Path) -> None:
    source, older = tmp_path / "source", tmp_path / "older"
    medtwin("generate", f"timelines={timelines}", "n=12", "seed=5", f"out={source}")
    medtwin("generate", f"timelines={timelines}", f"twin.of={source}", "add.age=20", "twin.n=6", f"out={older}")
    assert "is valid: 6 subjects, origin synthetic" in medtwin("validate", f"dataset={older}").stdout
    found = pairs(older, "counterfactual")
    assert all(pair["factual_reconstructed"] for pair in found)
    before, after = births(source), births(older)
    years = [(before[pair["factual_id"]] - after[pair["subject_id"]]).days / 365.25 for pair in found]
    assert all(abs(each - 20) < 0.01 for each in years)
    record = read_json(older / "metadata" / "counterfactual.json")
    assert record["add"] == {"age": 20.0}
    assert record["set"] == {}
    assert record["claim"].startswith("attribute-controlled generation")
    counts = read_json(older / "counts.json")
    assert counts["twins"] == counts["originals that a replay gives back whole"] == 6
    provenance = read_json(older / "provenance.json")
    assert {part["role"] for part in provenance["inputs"]} == {"timelines", "twin.of"}
    assert provenance["lineage_depth"] == 2


@pytest.mark.slow
def test_real_records_are_changed_and_continued(
    medtwin: Medtwin, timelines: Path, dataset: Path, tmp_path: Path
) -> None:
    women, alone, longer = (tmp_path / name for name in ("women", "alone", "longer"))
    source = (f"timelines={timelines}", f"twin.of={dataset}")
    medtwin(
        "generate", *source, "set.sex=F", "set.age=60", "twin.n=4", "twin.graph=age and sex are causes", f"out={women}"
    )
    events = open_dataset(women).events().to_pylist()
    assert {row["code"] for row in events if row["code"].startswith("GENDER//")} == {"GENDER//F"}
    record = read_json(women / "metadata" / "counterfactual.json")
    assert record["graph"] == "age and sex are causes"
    found = pairs(women, "counterfactual")
    counts = read_json(women / "counts.json")
    # A model that was trained for a moment holds much of what happens for all but impossible.
    assert counts["events of the originals that a replay gives back"] > 0.5 * counts["events of the originals"]
    assert any(pair["factual_reconstructed"] for pair in found)
    one = found[1]["factual_id"]
    medtwin("generate", *source, "set.sex=F", "set.age=60", f"twin.subjects=[{one}]", f"out={alone}")
    same = [row for row in events if row["subject_id"] == found[1]["subject_id"]]
    assert open_dataset(alone).events().to_pylist() == same  # whoever else is asked for
    medtwin("generate", *source, "twin.until=200", "twin.n=4", f"out={longer}")
    assert "is valid" in medtwin("validate", f"dataset={longer}").stdout
    real, continued = (open_dataset(folder).events().to_pylist() for folder in (dataset, longer))
    columns = ("time", "code", "numeric_value", "unit", "end_time", "status", "resource")
    for pair in pairs(longer, "continuation"):
        known, after = (
            [tuple(row[name] for name in columns) for row in rows if row["subject_id"] == subject and _by(row, pair)]
            for rows, subject in ((real, pair["factual_id"]), (continued, pair["subject_id"]))
        )
        assert known
        assert not Counter(known) - Counter(after)  # what is new may lie between the last known step and that day


def _by(row: dict[str, object], pair: dict[str, object]) -> bool:
    return row["time"] is None or row["time"] <= pair["known_until"]  # type: ignore[operator]


def test_twins_between_two_persons(medtwin: Medtwin, timelines: Path, dataset: Path, tmp_path: Path) -> None:
    first, last = list(births(dataset))[:2]
    out = tmp_path / "between"
    medtwin(
        "generate", f"timelines={timelines}", f"twin.of={dataset}", f"twin.between=[{first},{last}]", "twin.n=3",
        f"out={out}",
    )  # fmt: skip
    found = pairs(out, "interpolation")
    assert [pair["part"] for pair in found] == [0.0, 0.5, 1.0]
    ends, source = births(out), births(dataset)
    assert ends[found[0]["subject_id"]] == source[first]
    assert ends[found[2]["subject_id"]] == source[last]


def test_a_run_whose_configuration_was_changed_is_refused(medtwin: Medtwin, timelines: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(timelines, changed)
    text = (changed / "config.yaml").read_text()
    (changed / "config.yaml").write_text(text.replace("width: 16", "width: 32"))
    done = medtwin("generate", f"timelines={changed}", "n=2", f"out={tmp_path / 'twins'}", code=2)
    assert "does not fit the network" in done.stderr
    assert not (tmp_path / "twins").exists()
