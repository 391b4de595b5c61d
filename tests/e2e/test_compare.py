"""`medtwin compare` and scenarios, by the command line and in Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.config import compose
from medtwin.core.errors import ConfigError
from medtwin.core.files import verify_manifest
from medtwin.core.paths import config_dir
from medtwin.core.provenance import read_provenance
from medtwin.pipelines.compare import CompareSettings, compare, overrides_of
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings, built_assumptions, built_trial
from medtwin.trials import Assumptions
from tests.e2e.conftest import Medtwin
from tests.e2e.test_simulate import meds, rows_of
from tests.e2e.test_simulate_report import numbers_of, table_with, tables_of_markdown, tables_of_page

SMALL = ("trial.hazard_ratio=0.5", "trial.plan.looks=[0.5,1.0]")
DESIGNS = {"planned": " ".join(SMALL), "one look": "trial.hazard_ratio=0.5 trial.plan.looks=[1.0]"}
SCENARIOS = {"h1": "scenario=h1", "late": "scenario=delayed_effect", "slow": "scenario=slow_accrual"}
OPTIONS = {name: sorted(path.stem for path in (config_dir() / name).glob("*.yaml")) for name in ("scenario", "grid")}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "compared"
    return compare(CompareSettings(None, DESIGNS, SCENARIOS, out, base="any_adult", num_trials=200, seed=4))


def test_the_command_line_gives_what_python_gives(compared: Path, medtwin: Medtwin, tmp_path: Path) -> None:
    designs, scenarios = (
        "{" + ", ".join(f'{name}: "{text}"' for name, text in each.items()) + "}" for each in (DESIGNS, SCENARIOS)
    )
    given = ("cohort=null", "base=any_adult", f"designs={designs}", f"scenarios={scenarios}", "num_trials=200")
    said = medtwin("compare", *given, "seed=4", "workers=2", f"out={tmp_path / 'x'}").stdout
    assert "2 designs in 3 scenarios, 200 trials of each" in said
    for name in ("comparison.json", "report.html", "report.md", "grid.parquet", "differences.parquet"):
        assert (tmp_path / "x" / name).read_bytes() == (compared / name).read_bytes(), name
    assert verify_manifest(tmp_path / "x") == []
    assert read_provenance(tmp_path / "x")["verb"] == "compare"


@pytest.mark.slow
def test_a_design_in_a_scenario_is_what_is_simulated_of_it(compared: Path, medtwin: Medtwin, tmp_path: Path) -> None:
    """A sweep of `medtwin simulate`, `simulate()` and `medtwin compare` give the same trials."""
    few = ("num_trials=200", "num_curve=100", "seed=4")
    sweep = ("-m", "cohort=null", "trial=any_adult", *SMALL, "scenario=h1,delayed_effect", *few)
    medtwin("simulate", *sweep, f"out={tmp_path / 'swept'}")
    rows = pq.read_table(compared / "grid.parquet").to_pylist()
    grid = {(row["scenario"], row["characteristic"]): row for row in rows if row["design"] == "planned"}
    scenario = compose("simulate", ["cohort=null", "scenario=delayed_effect"])["scenario"]
    trial = trial_config("any_adult", SMALL)
    alone = simulate(SimulateSettings(None, trial, tmp_path / "alone", 200, 100, seed=4, scenario=scenario))
    for name, folder in (("h1", "scenario=h1"), ("late", "scenario=delayed_effect")):
        lines = {
            row["characteristic"]: float(row["estimate"])
            for row in rows_of(tmp_path / "swept" / folder / "operating_characteristics.csv")
            if row["scenario"] == "alternative" and not row["look"]
        }
        assert grid[name, "null rejected"]["value"] == lines["power"]
        assert grid[name, "duration, months"]["value"] == pytest.approx(lines["duration, months"], rel=1e-6)
        assert grid[name, "events"]["value"] == pytest.approx(lines["events at stop"], rel=1e-6)
    for file in ("operating_characteristics.csv", "report.json"):
        assert (alone / file).read_bytes() == (tmp_path / "swept" / "scenario=delayed_effect" / file).read_bytes()
    assert "0% from month 0, 100% from month 4" in (alone / "report.md").read_text(encoding="utf-8")


def test_page_markdown_and_json_have_the_same_numbers(compared: Path) -> None:
    page, numbers = tables_of_page(compared / "report.html"), numbers_of(compared / "comparison.json")
    assert tables_of_markdown(compared / "report.md")[1:] == page
    powers = {row[0]: row[1:] for row in next(t for t in page if t[0] == ["", "planned", "one look"])[1:]}
    grid = {(row["scenario"], row["design"], row["characteristic"]): row for row in numbers["grid"]}
    for scenario, cells in powers.items():
        for design, cell in zip(("planned", "one look"), cells, strict=True):
            e = grid[scenario, design, "null rejected"]["estimate"]
            assert cell == f"{e['value']:,.4f} ± {e['standard_error']:,.4f}"
    told = table_with(page, "error / independent")
    pairs = [row for row in numbers["differences"] if row["characteristic"] == "null rejected"]
    for row, pair in zip(told, pairs, strict=True):
        e = pair["estimate"]
        assert row[2] == f"{e['value']:,.4f} ± {e['standard_error']:,.4f}"
    differences = pq.read_table(compared / "differences.parquet").to_pylist()
    assert len(differences) == len(numbers["differences"]) == 3 * 6
    assert all(
        row["standard_error"] <= row["independent_error"] for row in differences if "reject" in row["characteristic"]
    )


@pytest.mark.parametrize("option", OPTIONS["scenario"])
def test_every_scenario_builds(option: str) -> None:
    found = built_assumptions(compose("simulate", ["cohort=null", f"scenario={option}"])["scenario"], "scenario")
    assert found.is_planned == (option == "h1")


@pytest.mark.parametrize("option", OPTIONS["grid"])
def test_every_grid_composes_and_its_designs_build(option: str) -> None:
    config = compose("compare", ["cohort=null", f"grid={option}"])
    assert set(config["scenarios"]) <= set(OPTIONS["scenario"])
    for name, overrides in config["designs"].items():
        given = ["cohort=null", f"trial={config['base']}", *overrides_of(overrides, name)]
        built_trial(compose("simulate", given)["trial"], name)


def test_of_a_cohort(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=30)
    chosen = CompareSettings(cohort, DESIGNS, ["h1", "assurance"], tmp_path / "x", base="any_adult", num_trials=500)
    text = (compare(chosen) / "report.md").read_text(encoding="utf-8")
    assert "drawn with replacement from 60 eligible subjects" in text
    assert "median 0.5" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"designs": []}, "designs must be a list of names"),
        ({"designs": ["any_adult", "any_adult"]}, "designs must have different names"),
        ({"designs": {"a": "trial.plan.looks"}}, r"designs\.a must be key=value pairs"),
        ({"designs": {"a": "trial.hazard_ratio=1.2"}}, r"designs\.a: .*hazard_ratio must be between 0 and 1"),
        ({"designs": {"a": "trial.hazard_rato=0.5"}}, "hazard_rato"),
        ({"designs": ["any_adullt"]}, "did you mean any_adult"),
        ({"scenarios": [None]}, "scenarios must be a list of names"),
        ({"scenarios": ["h2"]}, "scenario has no option 'h2'"),
        ({"scenarios": {"a": "scenario.accrual_factor=0"}}, r"scenarios\.a: .*accrual_factor must be above 0"),
        ({"scenarios": {"a": "scenario.effect=[[1,0.5]]"}}, r"scenarios\.a: .*months that begin with 0"),
        ({"num_trials": 0}, "num_trials must be 1 or more"),
    ],
)
def test_a_mistake_is_explained(values: dict[str, object], message: str, tmp_path: Path) -> None:
    given = {"designs": {"a": ""}, "scenarios": ["h1"], "num_trials": 100, **values}

    def run() -> None:
        compare(CompareSettings(None, out=tmp_path / "x", base="any_adult", **given))  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=message):
        run()
    assert not (tmp_path / "x").exists()


def test_a_prior_is_for_comparisons(tmp_path: Path) -> None:
    scenario = compose("simulate", ["cohort=null", "scenario=assurance"])["scenario"]
    chosen = SimulateSettings(None, trial_config("any_adult"), tmp_path / "x", 100, 100, scenario=scenario)
    with pytest.raises(ConfigError, match="`medtwin compare` averages over it"):
        simulate(chosen)
    with pytest.raises(ConfigError, match=r"scenario\._target_ must be medtwin\.trials\.Assumptions"):
        built_assumptions({"_target_": "medtwin.trials.Age"}, "scenario")
    assert built_assumptions(None, "scenario") == Assumptions()


def test_under_the_null_nothing_else_is_simulated(tmp_path: Path) -> None:
    scenario = compose("simulate", ["cohort=null", "scenario=h0"])["scenario"]
    trial = trial_config("any_adult", SMALL)
    out = simulate(SimulateSettings(None, trial, tmp_path / "x", 100, 100, scenario=scenario))
    assert {row["hazard_ratio"] for row in rows_of(out / "operating_characteristics.csv")} == {"1"}
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["estimates_by_stop"].keys() == {"null"}
    patients = rows_of(out / "patients.csv")
    assert all(row["months_to_event_control"] == row["months_to_event_experimental"] for row in patients)


def test_means_in_scenarios_by_both_verbs(tmp_path: Path) -> None:
    """A design in a scenario has the same power in both; what has no meaning is refused before anything is begun."""
    grid = CompareSettings(None, ["pain_score"], ["h0", "slow_accrual"], tmp_path / "grid", num_trials=100, seed=5)
    rows = pq.read_table(compare(grid) / "grid.parquet").to_pylist()
    columns = {"design", "scenario", "characteristic", "value", "standard_error", "low", "high", "level"}
    assert set(rows[0]) == columns | {"analytical", "num_trials"}
    scenario = compose("simulate", ["cohort=null", "scenario=slow_accrual"])["scenario"]
    chosen = SimulateSettings(None, trial_config("pain_score"), tmp_path / "x", 100, 100, seed=5, scenario=scenario)
    out = simulate(chosen)
    mine = [row for row in rows if row["characteristic"] == "null rejected"]
    lines = rows_of(out / "operating_characteristics.csv")
    alone = next(row for row in lines if (row["scenario"], row["characteristic"]) == ("alternative", "power"))
    assert mine[1]["value"] == float(alone["estimate"])
    assert "patients come at 0.5 times the planned rate" in (out / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"scenario\.treatment_changes has no meaning"):
        compare(replace(grid, scenarios=["switching"], out=tmp_path / "y"))
    assert not (tmp_path / "y").exists()
