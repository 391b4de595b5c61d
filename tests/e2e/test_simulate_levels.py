from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.errors import ConfigError
from medtwin.core.files import verify_manifest
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings
from tests.e2e.conftest import Medtwin
from tests.e2e.test_simulate import meds, rows_of

TRIALS = ("pain_score", "response_rate", "relapse_noninferiority")


def lines_of(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    rows = rows_of(folder / "operating_characteristics.csv")
    return {(row["scenario"], row["characteristic"], row["look"]): row for row in rows}


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_of_means_or_rates(name: str, tmp_path: Path) -> None:
    chosen = SimulateSettings(None, trial_config(name), tmp_path / "trial", 400, 100, seed=3, level="both", replay=2)
    out = simulate(chosen)
    assert verify_manifest(out) == []
    lines = lines_of(out)
    for scenario, what, wanted in (("alternative", "power", 0.9), ("null", "type I error", 0.025)):
        for kind in ("", "by its statistic: "):
            row = lines[scenario, kind + what, ""]
            assert abs(float(row["estimate"]) - wanted) < 4.5 * max(float(row["mc_standard_error"]), 0.004)
            assert abs(float(row["analytical"]) - wanted) < 0.02
    bounds = rows_of(out / "boundaries.csv")
    plan = chosen.trial["plan"]
    assert len(bounds) == len(plan["looks"])
    patients = rows_of(out / "patients.csv")
    assert {row["status"] for row in patients} >= {"outcome"}
    replayed = pq.read_table(out / "replay" / "patients.parquet").to_pylist()
    facts = json.loads((out / "replay" / "trial.json").read_text(encoding="utf-8"))
    assert sum(row["status"] == "outcome" for row in replayed) == facts["outcomes"]
    for row in replayed:
        under = row["response_control" if row["arm"] == "control" else "response_experimental"]
        assert row["response"] is None or row["response"] == under
    scores = rows_of(out / "scores.csv")
    assert len({row["estimate"] for row in scores}) == 2
    for row in scores:
        if row["trials"] == "all trials":
            assert abs(float(row["coverage"]) - 0.95) < 5 * float(row["coverage_mc_standard_error"]) + 0.01
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "There is no cohort" in page
    assert page.count("<svg") == 3
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["effect"] == "difference"
    assert "Operating characteristics" in (out / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_line_gives_the_same_bytes_and_workers_do_not_matter(medtwin: Medtwin, tmp_path: Path) -> None:
    few = ("num_trials=400", "num_curve=100", "seed=3", "level=both")
    medtwin("simulate", "cohort=null", "trial=pain_score", *few, "workers=2", f"out={tmp_path / 'shell'}")
    python = SimulateSettings(None, trial_config("pain_score"), tmp_path / "python", 400, 100, seed=3, level="both")
    simulate(python)
    for path in (tmp_path / "python").glob("*.csv"):
        assert (tmp_path / "shell" / path.name).read_bytes() == path.read_bytes()
    simulate(replace(python, out=tmp_path / "other", seed=4))
    name = "operating_characteristics.csv"
    assert (tmp_path / "other" / name).read_bytes() != (tmp_path / "python" / name).read_bytes()


def test_a_replay_is_added_to_what_is_finished(tmp_path: Path) -> None:
    chosen = SimulateSettings(None, trial_config("pain_score"), tmp_path / "trial", 100, 100)
    simulate(chosen)
    before = (tmp_path / "trial" / "operating_characteristics.csv").stat().st_mtime_ns
    simulate(replace(chosen, replay={"trial": 100, "scenario": None}))
    assert (tmp_path / "trial" / "operating_characteristics.csv").stat().st_mtime_ns == before
    facts = json.loads((tmp_path / "trial" / "replay" / "trial.json").read_text(encoding="utf-8"))
    assert (facts["scenario"], facts["trial"], facts["difference"]) == ("null", 100, 0.0)


@pytest.mark.slow
def test_survival_by_its_statistic_and_beside_its_patients(tmp_path: Path) -> None:
    trial = trial_config("two_arm_survival", ["trial.assumed.prognostic_sd=0"])
    chosen = SimulateSettings(None, trial, tmp_path / "fast", 100_000, 20_000, level="statistic")
    fast = lines_of(simulate(chosen))
    assert not (tmp_path / "fast" / "patients.csv").exists()
    assert "No patient was simulated" in (tmp_path / "fast" / "report.html").read_text(encoding="utf-8")
    for (scenario, what, _), row in fast.items():
        if row["analytical"] and what in ("power", "type I error", "rejected at look", "futile at look"):
            gap = abs(float(row["estimate"]) - float(row["analytical"]))
            assert gap < 4.5 * max(float(row["mc_standard_error"]), 1e-5), (scenario, what)
    both = lines_of(simulate(replace(chosen, out=tmp_path / "both", num_trials=400, num_curve=100, level="both")))
    for what in ("power", "events at stop", "duration, months"):
        first, second = (both["alternative", kind + what, ""] for kind in ("", "by its statistic: "))
        assert float(first["estimate"]) == pytest.approx(float(second["estimate"]), rel=0.12)
    observed = {"_target_": "medtwin.trials.InformationRange", "low": [0.4, 0.65, 0.9], "high": [0.6, 0.8, 1.1]}
    around = lines_of(simulate(replace(chosen, out=tmp_path / "around", observed=observed)))
    row = around["null, futility disregarded", "type I error", ""]
    assert abs(float(row["estimate"]) - 0.025) < 4.5 * float(row["mc_standard_error"])
    assert row["analytical"] == ""


def test_a_cohort_gives_means_and_rates_their_patients_and_real_ones_stay(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=20)
    overrides = [
        "trial.endpoint.record={_target_: medtwin.trials.Endpoint, name: death, death: true, horizon_months: 24}",
        "trial.endpoint.months=20", "trial.endpoint.effect=-0.1", "trial.endpoint.higher_is_better=false",
    ]  # fmt: skip
    trial = trial_config("response_rate", overrides)
    out = simulate(SimulateSettings(cohort, trial, tmp_path / "trial", 100, 100))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "eligible subjects have it in the cohort" in page
    assert "no patient table was written" in page
    assert not (out / "patients.csv").exists()
    assert int(rows_of(out / "attrition.csv")[-1]["remaining"]) == 60
    with pytest.raises(ConfigError, match="real patients"):
        simulate(SimulateSettings(cohort, trial, tmp_path / "replay", 100, 100, replay=1))


@pytest.mark.parametrize(
    ("name", "overrides", "settings", "message"),
    [
        ("pain_score", ["trial.endpoint.effect=0.8"], {}, "effect must lie below that of the null"),
        ("relapse_noninferiority", ["trial.hypothesis.margin=0"], {}, "without one the trial tests superiority"),
        ("response_rate", ["trial.allocation_ratio=3"], {}, "block_size must be a multiple of 4"),
        ("response_rate", ["trial.plan.looks=[0.7,0.4,1.0]"], {}, "looks must be increasing"),
        ("pain_score", ["trial.num_subjects=0"], {}, "num_subjects must be 1 or more"),
        ("pain_score", ["trial.plan.power=0.01"], {}, "power must be between alpha and 1"),
        ("pain_score", ["trial.analysis.covariates=[egfr]"], {}, "covariates must be among score, stratum"),
        ("pain_score", [], {"replay": 999}, "replay.trial must be from 1 to 100"),
        ("pain_score", [], {"replay": {"trial": 1, "scenario": "h7"}}, "replay.scenario must be one of 'alternative'"),
        ("two_arm_survival", [], {"level": "fast"}, "level must be one of patient, statistic, both"),
        ("two_arm_survival", [], {"level": "statistic", "replay": 1}, "there are no patients"),
        ("multicentre_minimised", [], {"level": "statistic"}, "treatment_changes are of level=patient"),
        (
            "two_arm_survival", [],
            {"level": "both", "observed": {"_target_": "medtwin.trials.InformationRange", "low": [1], "high": [1]}},
            "observed must be of 3 looks",
        ),
        (
            "two_arm_survival", [],
            {"observed": {"_target_": "medtwin.trials.InformationRange", "low": [1], "high": [1]}},
            "observed is of level=statistic",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_explained_before_anything_is_begun(
    name: str, overrides: list[str], settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    def run() -> None:
        simulate(SimulateSettings(None, trial_config(name, overrides), tmp_path / "trial", 100, 100, **settings))  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=message):
        run()
    assert list(tmp_path.iterdir()) == []
