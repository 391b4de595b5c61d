from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medtwin.core.errors import ConfigError, OutputError
from medtwin.core.files import read_json, verify_manifest
from medtwin.core.provenance import read_provenance
from medtwin.fhir import validate_references
from medtwin.fhir.validate import Validation
from medtwin.pipelines.replay import ReplayChoice, replay_choice
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.export.dataset_json import read_dataset_json
from tests.e2e.conftest import command, environment
from tests.e2e.test_simulate import meds, synthetic

OVERRIDES = (
    "trial.hazard_ratio=0.5",
    "trial.labs=[{_target_: medtwin.trials.Lab, name: systolic_mm_hg, codes: [LAB//1], unit: 'mm[Hg]'}]",
)
FEW = ("num_trials=100", "num_curve=100")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def z_of(time: object, event: object, arm: object) -> float:
    test = logrank_test(time, event, arm)  # type: ignore[arg-type]
    return float((test.expected - test.observed)[1].sum() / np.sqrt(test.variance[1, 1]))


def test_a_replayed_trial_leaves_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = synthetic(meds(tmp_path / "meds", num_deaths=30), tmp_path / "twins")
    whole = tmp_path / "whole"
    settings = ("trial=any_adult", *OVERRIDES, *FEW, "replay={scenario: null, trial: 42}")
    words = command("simulate", f"cohort={cohort}", *settings, f"out={whole}")
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    assert "trial 42 of null" in done.stdout
    folder = whole / "replay"
    assert verify_manifest(whole) == []
    _check_data(folder)
    _check_fhir(folder / "fhir")
    # The same from Python, added to a simulation that was finished without it.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", environment()["SOURCE_DATE_EPOCH"])
    chosen = SimulateSettings(cohort, trial_config("any_adult", OVERRIDES), tmp_path / "later", 100, 100)
    simulate(chosen)
    before = files_of(chosen.out)
    assert not any(name.startswith("replay/") for name in before)
    extended = replace(chosen, replay={"scenario": "null", "trial": 42})
    simulate(extended)
    assert files_of(extended.out) == files_of(whole)
    assert read_provenance(whole)["config"]["replay"]["scenario"] == "null"
    simulate(chosen)  # is finished already: it has all that this call asks for
    assert files_of(chosen.out) == files_of(whole)
    for name in ("report.html", "patients.csv", "operating_characteristics.csv"):
        assert files_of(extended.out)[name] == before[name]


def _check_data(folder: Path) -> None:
    told = read_json(folder / "define.json")
    assert told["is_simulated"] is True
    simulation = told["simulation"]
    assert "was not checked" in simulation["remark"]
    assert (simulation["scenario"], simulation["hazard_ratio"], simulation["trial"]) == ("null", 1.0, 42)
    for name in ("adsl", "adtte", "adlb"):
        dataset, header = read_dataset_json(folder / f"{name}.json")
        assert dataset.table.equals(pq.read_table(folder / f"{name}.parquet"))
        assert header.study_oid == told["study"]
        assert "simulated" in header.originator
        assert set(dataset.table["STUDYID"].to_pylist()) == {told["study"]}
        assert set(dataset.table["SIMFL"].to_pylist()) == {"Y"}
    tte = read_dataset_json(folder / "adtte.json")[0].table
    z = z_of(tte["AVALM"].to_numpy(), 1 - tte["CNSR"].to_numpy(), tte["TRTPN"].to_numpy())
    assert z == pytest.approx(simulation["z"][-1], abs=2e-6)
    patients = pq.read_table(folder / "patients.parquet")
    assert tte.num_rows == patients.num_rows == told["datasets"]["ADSL"]["records"]
    labs = read_dataset_json(folder / "adlb.json")[0].table
    assert set(labs["PARAMCD"].to_pylist()) == {"SYSTOLIC"}
    assert {None, "Y"} == set(labs["ABLFL"].to_pylist())
    assert {None, 1.0} == set(labs["CHG"].to_pylist())


def _check_fhir(folder: Path) -> None:
    found = Validation(layers=("schema", "rules"))
    resources = []
    for path in sorted(folder.glob("*.ndjson")):
        resources += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for resource in resources:
        found.add(resource)
        assert resource["meta"]["security"][0]["code"] == "HTEST"
    assert found.num_errors == 0
    assert found.num_resources["ResearchStudy"] == 1
    assert found.num_resources["ResearchSubject"] == found.num_resources["Patient"] > 50
    assert validate_references(resources) == []


def test_what_was_not_simulated_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    chosen = SimulateSettings(None, trial_config("any_adult"), tmp_path / "trial", 100, 100)
    for setting, message in (
        (101, r"replay\.trial must be from 1 to 100, the trials simulated of 'alternative', got 101"),
        ({"trial": 1, "scenario": "nil"}, r"replay\.scenario must be one of 'alternative', 'null', 'power curve'"),
        (
            {"trial": 1, "scenario": "power curve"},
            r"replay\.hazard_ratio of 'power curve' must be one of 0\.586, 0\.64",
        ),
        ({"scenario": "null"}, r"replay\.trial=\.\.\. is required"),
        ({"trial": 1, "look": 2}, r"there is no setting 'replay\.look', only trial, scenario"),
        ("first", r"replay\.trial must be the number of a trial, got 'first'"),
        (True, r"replay\.trial must be the number of a trial, got True"),
        ({"trial": 1, "study_start": "soon"}, r"replay\.study_start must be a date, got 'soon'"),
    ):
        with pytest.raises(ConfigError, match=message):
            simulate(replace(chosen, replay=setting))
    assert list(tmp_path.iterdir()) == []


def test_a_choice_is_read() -> None:
    assert replay_choice(None) is None
    assert replay_choice(3) == ReplayChoice(3)
    assert replay_choice({"trial": 3, "scenario": None}) == ReplayChoice(3, "null")
    chosen = replay_choice({"trial": 3, "study_start": "2030-02-01"})
    assert chosen is not None
    assert chosen.study_start.isoformat() == "2030-02-01"


def test_results_that_were_changed_are_not_passed_on(tmp_path: Path) -> None:
    chosen = SimulateSettings(None, trial_config("any_adult"), tmp_path / "trial", 100, 100)
    simulate(chosen)
    with (chosen.out / "patients.csv").open("a") as file:
        file.write("x")
    with pytest.raises(OutputError, match="was changed since it was finished"):
        simulate(replace(chosen, replay=1))


def test_of_real_patients_nothing_is_replayed(tmp_path: Path) -> None:
    cohort = meds(tmp_path / "meds", num_deaths=20)
    chosen = SimulateSettings(cohort, trial_config("any_adult"), tmp_path / "trial", 100, 100, replay=1)
    with pytest.raises(ConfigError, match="the cohort holds real patients, of whom no patient table is written"):
        simulate(chosen)
    assert not (tmp_path / "trial").exists()
