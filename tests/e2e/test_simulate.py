from __future__ import annotations

import csv
import math
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import manifest_hash, read_json, verify_manifest, write_json, write_manifest
from medtwin.core.provenance import read_provenance
from medtwin.core.verdict import Verdict, write_verdict
from medtwin.pipelines.export_settings import Override
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_disclosure import told_cohort
from medtwin.pipelines.simulate_settings import SimulateSettings, built_trial
from medtwin.trials import prepare
from medtwin.trials.population.criteria import AttritionRow
from tests.e2e.conftest import Medtwin, command, environment

FEW = ("num_trials=100", "num_curve=100")
ADMISSION = ("trial.endpoint.codes=[SNOMED//32485007]", "trial.hazard_ratio=0.6")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trial(medtwin: Medtwin, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trial") / "trial"
    medtwin("simulate", f"cohort={dataset}", "trial=any_adult", *ADMISSION, *FEW, f"out={out}")
    return out


def meds(folder: Path, num_deaths: int, count: int = 60, num_men: int = 0) -> Path:
    """A bare MEDS dataset: no encounters, no codes.parquet, no manifest; therefore real."""
    events = []
    for number in range(1, count + 1):
        start = datetime(2020, 1, 1) + timedelta(days=number)
        events += [
            Event(number, None, "GENDER//M" if number > count - num_men else "GENDER//F"),
            Event(number, start - timedelta(days=365 * 50), "MEDS_BIRTH"),
            Event(number, start, "LAB//1", 1.0),
            Event(number, start + timedelta(days=500), "LAB//1", 2.0),
        ]
        if number <= num_deaths:
            events.append(Event(number, start + timedelta(days=501 + number), "MEDS_DEATH"))
    (folder / "data").mkdir(parents=True)
    table = events_to_table(events).select(["subject_id", "time", "code", "numeric_value", "text_value"])
    pq.write_table(table, folder / "data" / "0.parquet")
    return folder


def test_a_trial_on_a_cohort(trial: Path) -> None:
    assert verify_manifest(trial) == []
    attrition = rows_of(trial / "attrition.csv")
    remaining = [int(row["remaining"]) for row in attrition]
    assert remaining[0] == 40
    assert remaining == sorted(remaining, reverse=True)
    for before, after in pairwise(attrition):
        assert int(before["remaining"]) == int(after["assessed"])
        parts = [int(after[name]) for name in ("fails", "not_evaluable", "remaining")]
        assert sum(parts) == int(after["assessed"])
        assert sum(parts[:2]) == int(after["excluded"])
    groups = rows_of(trial / "attrition_by_group.csv")
    assert {row["division"] for row in groups} == {"sex", "age", "race"}
    women_and_men = [int(row["remaining"]) for row in groups if row["division"] == "sex"]
    assert sum(women_and_men[:: len(attrition)]) == 40
    lines = rows_of(trial / "operating_characteristics.csv")
    power = {
        row["scenario"]: float(row["estimate"]) for row in lines if row["characteristic"] in ("power", "type I error")
    }
    assert power["alternative"] > 0.6
    assert power["null"] < 0.12
    assert all(row["mc_standard_error"] for row in lines if row["estimate"])
    bounds = rows_of(trial / "boundaries.csv")
    assert [row["look"] for row in bounds] == ["1", "2"]
    patients = rows_of(trial / "patients.csv")
    assert len(patients) > remaining[-1]  # drawn with replacement
    assert {row["arm"] for row in patients} == {"control", "experimental"}
    assert len({row["source_subject_id"] for row in patients}) <= remaining[-1]
    record = read_provenance(trial)
    assert (record["verb"], record["origin"], record["seed"]) == ("simulate", "simulated", 0)


def test_the_page_is_whole(trial: Path) -> None:
    page = (trial / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 8
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    remaining = rows_of(trial / "attrition.csv")[-1]["remaining"]
    assert f"Only {remaining} subjects are eligible" in page
    assert "with replacement" in page


@pytest.mark.slow
def test_the_same_whatever_the_workers_and_another_with_another_seed(
    trial: Path, dataset: Path, tmp_path: Path
) -> None:
    chosen = SimulateSettings(dataset, trial_config("any_adult", ADMISSION), tmp_path / "trial", 100, 100, workers=2)
    simulate(chosen)
    for path in trial.glob("*.csv"):
        assert (tmp_path / "trial" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "trial" / "report.html").read_bytes() == (trial / "report.html").read_bytes()
    simulate(replace(chosen, out=tmp_path / "other", seed=1, workers=1))
    name = "operating_characteristics.csv"
    assert (tmp_path / "other" / name).read_bytes() != (trial / name).read_bytes()


def test_a_finished_trial_says_so(trial: Path, dataset: Path, medtwin: Medtwin) -> None:
    done = medtwin("simulate", f"cohort={dataset}", "trial=any_adult", *ADMISSION, *FEW, f"out={trial}")
    assert "is finished already" in done.stdout


def test_a_trial_without_a_cohort(medtwin: Medtwin, tmp_path: Path) -> None:
    medtwin("simulate", "cohort=null", *FEW, "trial.plan.looks=[0.5,1.0]", f"out={tmp_path / 'trial'}")
    assert rows_of(tmp_path / "trial" / "attrition.csv") == []
    assert "There is no cohort" in (tmp_path / "trial" / "report.html").read_text(encoding="utf-8")


def test_of_real_patients_no_row_leaves(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=20)
    out = simulate(SimulateSettings(cohort, trial_config("any_adult"), tmp_path / "trial", 100, 100))
    assert not (out / "patients.csv").exists()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The cohort holds real patients: no patient table was written." in page
    told = rows_of(out / "attrition_by_group.csv")
    assert {row["division"] for row in told} == {"sex", "age", "race"}  # 60 alike: no group is small
    assert read_provenance(out)["origin"] == "real"


def test_few_real_people_are_not_counted(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=20, num_men=5)
    women = "trial.eligibility=[{_target_: medtwin.trials.Sex, sex: F}, {_target_: medtwin.trials.Age, minimum: 18}]"
    chosen = SimulateSettings(cohort, trial_config("any_adult", [women]), tmp_path / "trial", 100, 100)
    out = simulate(chosen)
    assert [row["remaining"] for row in rows_of(out / "attrition.csv")] == ["60", "60", "", ""]
    assert [row["excluded"] for row in rows_of(out / "attrition.csv")] == ["0", "0", "", ""]
    assert rows_of(out / "attrition_by_group.csv") == []
    assert rows_of(out / "what_if.csv") == []
    numbers = read_json(out / "report.json")
    assert numbers["cohort"] == {"subjects": 60, "eligible": None, "events": None}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "counts of fewer than 11 of them, and such as would give one away, are not told" in page
    for path in (out / "report.md", out / "precision.csv"):
        assert not re.search(r"\b55\b", path.read_text()), path.name
    assert read_provenance(out)["config"]["smallest_cell"] == 11
    with pytest.raises(ConfigError, match="smallest_cell must be 1 or more, got 0"):
        replace(chosen, smallest_cell=0)


def test_everybody_is_counted_where_that_is_asked_for_or_nobody_is_real() -> None:
    trial = built_trial(trial_config("any_adult"), "trial")
    rows = [AttritionRow("all", 60, 0, 0), AttritionRow("index", 60, 0, 0), AttritionRow("women", 55, 5, 0)]
    study = replace(prepare(trial, None, 0), attrition=rows, cohort_size=60, num_eligible=55, num_events=4)
    assert told_cohort(study, "real").eligible is None
    for told in (
        told_cohort(study, "real", smallest=1),
        *(told_cohort(study, one) for one in ("simulated", "synthetic")),
    ):
        assert (told.subjects, told.eligible, told.events) == (60, 55, 4)
        assert [row.excluded for row in told.attrition] == [0, 0, 5]
        assert told.is_whole


def synthetic(source: Path, folder: Path) -> Path:
    """A copy of a dataset that says it is synthetic, finished as it stands."""
    shutil.copytree(source, folder)
    write_json(folder / "metadata" / "dataset.json", {"origin": "synthetic"})
    write_manifest(folder)
    return folder


def test_a_synthetic_cohort_carries_the_verdict_of_its_check(tmp_path: Path) -> None:
    cohort = synthetic(meds(tmp_path / "meds", num_deaths=20), tmp_path / "twins")
    chosen = SimulateSettings(cohort, trial_config("any_adult"), tmp_path / "unchecked", 100, 100)
    assert "synthetic and was not checked" in (simulate(chosen) / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "unchecked" / "patients.csv").is_file()
    digest = manifest_hash(cohort)
    for name, outcome in (("good", "passed"), ("poor", "failed")):
        write_verdict(tmp_path / name, Verdict(digest, "research", {"copies": outcome}))  # type: ignore[dict-item]
        override = Override("to see the page")
        out = simulate(replace(chosen, out=tmp_path / f"{name}-trial", check=tmp_path / name, override=override))
        page = (out / "report.html").read_text(encoding="utf-8")
        assert ("failed its check (copies failed)" in page) == (name == "poor")
        assert "was not checked" not in page
    write_verdict(tmp_path / "other", Verdict("0" * 64, "research", {"copies": "passed"}))
    with pytest.raises(ConfigError, match="the verdict of another dataset"):
        simulate(replace(chosen, out=tmp_path / "d", check=tmp_path / "other"))


def test_where_nobody_dies_the_outcome_is_assumed_and_the_page_says_so(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=1)
    out = simulate(SimulateSettings(cohort, trial_config("any_adult"), tmp_path / "trial", 100, 100))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The endpoint occurs few times among the eligible subjects" in page  # of real ones: how few is not told
    assert "assumed, not read from the cohort: median 60 months" in page


def test_the_fallback_is_used_and_named(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=20)
    wanted, fallback = trial_config("two_arm_survival"), trial_config("any_adult")
    with pytest.raises(ConfigError, match="the cohort has no SNOMED//44054006"):
        simulate(SimulateSettings(cohort, wanted, tmp_path / "a", 100, 100))
    out = simulate(SimulateSettings(cohort, wanted, tmp_path / "b", 100, 100, fallback=fallback))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "could not be run on this cohort" in page
    assert "Death from any cause in adults" in page
    wrong = {**wanted, "hazard_ratio": 1.3}
    with pytest.raises(ConfigError, match="hazard_ratio must be between"):
        simulate(SimulateSettings(cohort, wrong, tmp_path / "c", 100, 100, fallback=fallback))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trial.eligibility.0.minimum=0", "trial.eligibility.0.maximum=1"],
            "nobody is eligible: 'age 0 to 1 years' left 0 of 40",
        ),
        (["trial.eligibility.1.codes=[SNOMED//44054007]"], r"did you mean SNOMED//44054006 \(Diabetes"),
        (["trial.eligibility.0.minimum=0", "trial.hazard_ratio=0.99"], "too few events: |the endpoint occurs only"),
        (["trial.hazard_ratio=1.3"], "hazard_ratio must be between 0 and 1"),
        (["trial.plan.looks=[0.9,0.5]"], "plan: GroupSequential: looks must be increasing"),
        (["+trial.hazard_ratios=1"], "hazard_ratios"),
    ],
)
def test_a_mistake_is_explained(overrides: list[str], message: str, dataset: Path, tmp_path: Path) -> None:
    def run() -> None:
        simulate(SimulateSettings(dataset, trial_config("two_arm_survival", overrides), tmp_path / "trial"))

    with pytest.raises(ConfigError, match=message):
        run()
    assert not (tmp_path / "trial").exists()


def test_a_mistake_at_the_terminal(dataset: Path, medtwin: Medtwin, tmp_path: Path) -> None:
    wrong = ("trial.eligibility.1.codes=[SNOMED//44054007]", f"out={tmp_path / 'trial'}")
    assert "did you mean SNOMED//44054006" in medtwin("simulate", f"cohort={dataset}", *wrong, code=2).stderr
    assert "num_trials must be 1 or more" in medtwin("simulate", "cohort=null", "num_trials=0", code=2).stderr


def test_without_a_cohort_setting_it_says_what_is_missing(medtwin: Medtwin, tmp_path: Path) -> None:
    assert "cohort=... is required" in medtwin("simulate", f"out={tmp_path / 'x'}", code=2).stderr


def test_ctrl_c_leaves_nothing_broken(dataset: Path, tmp_path: Path) -> None:
    long = ("trial=any_adult", *ADMISSION, "num_trials=100000")
    arguments = ["simulate", f"cohort={dataset}", *long, f"out={tmp_path / 'trial'}"]
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "trial.partial").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert not (tmp_path / "trial").exists()


def test_the_estimates_are_those_of_their_trials(trial: Path) -> None:
    """The stopping probabilities of boundaries.csv add up to the power of operating_characteristics.csv."""
    bounds, lines = rows_of(trial / "boundaries.csv"), rows_of(trial / "operating_characteristics.csv")
    power = next(
        float(r["estimate"]) for r in lines if r["scenario"] == "alternative" and r["characteristic"] == "power"
    )
    assert math.isclose(sum(float(row["rejected_alternative"]) for row in bounds), power, abs_tol=1e-9)
