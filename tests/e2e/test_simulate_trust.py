"""The verdict, the estimand and the precision of simulated trials, through the verb."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import manifest_hash, read_json, write_json, write_manifest
from medtwin.core.provenance import Provenance, read_provenance, write_provenance
from medtwin.core.verdict import Verdict, write_verdict
from medtwin.pipelines.export_settings import Override
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings
from medtwin.trials.engine.measure_scoring import SCORED

COUNT, DEATHS = 90, 40


def cohort(folder: Path, shift: int = 0, learned_from: int | None = None) -> Path:
    """Finished twins; `shift` makes another cohort of the same law."""
    events = []
    for number in range(1, COUNT + 1):
        start = datetime(2020, 1, 1) + timedelta(days=number)
        events += [
            Event(number, None, "GENDER//F" if number % 2 else "GENDER//M"),
            Event(number, start - timedelta(days=365 * (40 + (number * 7 + shift) % 40)), "MEDS_BIRTH"),
            Event(number, start, "LAB//1", 1.0),
            Event(number, start + timedelta(days=500), "LAB//1", 2.0),
        ]
        if (number + shift) % COUNT < DEATHS + shift // 10:
            events.append(Event(number, start + timedelta(days=501 + (number * 13 + shift) % 400), "MEDS_DEATH"))
    (folder / "data").mkdir(parents=True)
    table = events_to_table(events).select(["subject_id", "time", "code", "numeric_value", "text_value"])
    pq.write_table(table, folder / "data" / "0.parquet")
    (folder / "metadata").mkdir()
    write_json(folder / "metadata" / "dataset.json", {"origin": "synthetic"})
    write_provenance(folder, Provenance("generate", "synthetic", {}, 0, training_subjects=learned_from))
    write_manifest(folder)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def chosen(twins: Path, out: Path, *overrides: str) -> SimulateSettings:
    return SimulateSettings(twins, trial_config("any_adult", overrides), out, 100, 100)


EFFECT = "+trial.effect='-0.4 + 0.2*scale(age)'"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trust")
    twins = cohort(home / "twins", learned_from=30)
    return simulate(chosen(twins, home / "trial", EFFECT))


@pytest.mark.slow  # the verdict of a synthetic cohort in test_simulate.py is quicker
def test_a_cohort_that_failed_its_check_is_refused_unless_somebody_says_why(tmp_path: Path) -> None:
    twins = cohort(tmp_path / "twins")
    write_verdict(tmp_path / "check", Verdict(manifest_hash(twins), "research", {"copies": "failed"}))
    settings = replace(chosen(twins, tmp_path / "trial"), check=tmp_path / "check")
    with pytest.raises(ConfigError, match=r"failed its check \(copies failed\).*override.reason='...'"):
        simulate(settings)
    assert not (tmp_path / "trial").exists()
    with pytest.raises(ConfigError, match="failed its check"):
        simulate(replace(settings, override=Override(" ")))
    out = simulate(replace(settings, override=Override("a drill", "somebody")))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "failed its check (copies failed): read what follows as an exercise" in page
    assert page.index("a drill") < page.index("<h2")
    decision = read_provenance(out)["human_decisions"][0]
    assert (decision["reason"], decision["by"]) == ("a drill", "somebody")
    assert "copies failed" in decision["decision"]


@pytest.mark.slow
def test_the_estimand_and_its_scores_are_written_and_told(simulated: Path) -> None:
    record = read_json(simulated / "estimand.json")
    assert len(record["estimand"]) == 5
    assert record["estimand"]["variable"] == "months from randomisation to death from any cause"
    truths = {
        (each["scenario"], each["patients"]): each["value"]
        for each in record["true_values"]
        if "log" in each["measure"]
    }
    assert truths["null", "all"] == 0.0
    assert truths["alternative", "65 and over"] > truths["alternative", "below 65"] + 0.1  # age takes from the effect
    scores = rows_of(simulated / "scores.csv")
    assert {row["estimate"] for row in scores if "log" in row["measure"]} == {"naive", "stagewise", "repeated"}
    assert {row["measure"] for row in scores if row["estimate"] == "Kaplan-Meier"} <= set(SCORED)
    first = next(row for row in scores if row["scenario"] == "alternative" and row["trials"] == "all trials")
    assert float(first["true_value"]) == truths["alternative", "all"]
    assert 0.8 < float(first["coverage"]) <= 1
    page = (simulated / "report.html").read_text(encoding="utf-8")
    for text in ("What is estimated, and how well", "Estimand (ICH E9(R1))", "Estimates against the truth"):
        assert text in page


@pytest.mark.slow
def test_twins_are_worth_as_many_patients_as_they_were_learned_from(simulated: Path, tmp_path: Path) -> None:
    found = rows_of(simulated / "precision.csv")
    assert {row["effective_subjects"] for row in found} == {"30"}
    assert {row["is_lower_bound"] for row in found} == {"true"}
    page = (simulated / "report.html").read_text(encoding="utf-8")
    assert "learned from 30 patients: 90 twins have the precision of at most as many" in page
    same = chosen(simulated.parent / "twins", tmp_path / "more", EFFECT)
    more = simulate(replace(same, source_subjects=90))
    rows = (row for each in (simulated, more) for row in rows_of(each / "precision.csv"))
    # Not the risk by month 36: nearly everybody dies, and of 30 patients some resamples end before.
    errors = [float(row["cohort_error"]) for row in rows if row["result"] == "month of the last look"]
    assert 1.3 < errors[0] / errors[1] < 2.3  # the root of 90 / 30 is 1.7
    unknown = simulate(chosen(cohort(tmp_path / "twins"), tmp_path / "unknown"))
    assert "Nobody recorded how many patients" in (unknown / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_cohorts_give_the_spread_between_them(tmp_path: Path) -> None:
    first, *others = (cohort(tmp_path / f"twins{shift}", shift, 30) for shift in (0, 50, 100))
    settings = replace(chosen(first, tmp_path / "trial"), cohorts=others, cohorts_differ_by="bootstrap")
    found = {row["result"]: row for row in rows_of(simulate(settings) / "precision.csv")}
    assert {"power", "duration, months", "month of the last look"} <= set(found)
    assert {row["is_lower_bound"] for row in found.values()} == {"false"}
    assert all("3 cohorts of generators trained on resampled patients" in row["contains"] for row in found.values())
    assert float(found["month of the last look"]["cohort_error"]) > 0
    inputs = [(each["role"], each["name"]) for each in read_provenance(tmp_path / "trial")["inputs"]]
    assert inputs == [("cohort", "twins0"), ("cohorts", "twins50"), ("cohorts", "twins100")]
    seeds = simulate(replace(settings, out=tmp_path / "seeds", cohorts_differ_by="seeds"))
    assert {row["is_lower_bound"] for row in rows_of(seeds / "precision.csv")} == {"true"}


def test_mistakes(tmp_path: Path) -> None:
    first = cohort(tmp_path / "twins")
    same = shutil.copytree(first, tmp_path / "same")
    settings = chosen(first, tmp_path / "trial")
    with pytest.raises(ConfigError, match="cohorts must be different datasets"):
        simulate(replace(settings, cohorts=[same]))
    with pytest.raises(ConfigError, match="cohorts_differ_by must be seeds or bootstrap, got 'x'"):
        replace(settings, cohorts_differ_by="x")
    with pytest.raises(ConfigError, match="source_subjects must be 2 or more, got 1"):
        replace(settings, source_subjects=1)
    with pytest.raises(ConfigError, match="got cohort=null"):
        replace(settings, cohort=None, cohorts=[first])
    estimand = "+trial.estimand={_target_: medtwin.trials.Estimand, intercurrent_events: {switching: hypothetical}}"
    with pytest.raises(ConfigError, match="simulates none: simulate it there, or take it out"):
        simulate(chosen(first, tmp_path / "wrong", estimand))
    assert json.loads(json.dumps(read_provenance(first)))["verb"] == "generate"
