"""`target_mcse` of medtwin simulate."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medtwin.core.errors import ConfigError
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings

TRIAL = ["trial.assumed.control_median_months=24", "trial.hazard_ratio=0.5", "trial.eligibility=[]"]


@pytest.mark.slow
def test_no_more_trials_than_the_target_needs(tmp_path: Path) -> None:
    trial = trial_config("two_arm_survival", TRIAL)
    simulate(SimulateSettings(None, trial, tmp_path / "out", num_trials=4000, num_curve=100, target_mcse=0.02))
    with (tmp_path / "out" / "operating_characteristics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    main = [row for row in rows if row["characteristic"] in ("power", "type I error")][:2]
    assert [row["scenario"] for row in main] == ["alternative", "null"]
    assert {row["num_trials"] for row in main} == {"400"}
    assert all(float(row["mc_standard_error"]) <= 0.02 for row in main)


@pytest.mark.parametrize("target", [0.0, -0.1, 1.0])
def test_a_target_that_is_no_error_is_refused(tmp_path: Path, target: float) -> None:
    with pytest.raises(ConfigError, match="target_mcse must be above 0 and below 1"):
        SimulateSettings(None, {}, tmp_path, target_mcse=target)
