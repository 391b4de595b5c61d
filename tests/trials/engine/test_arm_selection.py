"""Selection of arms with closed combination tests: p values, errors, power, and what rpact's simulations say."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from medtwin.trials.design.boundaries import exit_probabilities, spending_bounds
from medtwin.trials.design.dunnett import dunnett_p_value, many_to_one_correlation
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.arm_selection import ArmSelectionTrial, Selection, simulate_arm_selection

BOUNDS = tuple(spending_bounds([0.5, 1.0], 0.025, Spending("obrien_fleming")).tolist())
TRIAL = ArmSelectionTrial((60, 120), BOUNDS)
How = Literal["dunnett", "bonferroni", "sidak", "simes"]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5])
def test_dunnetts_p_values_are_those_of_one_trial(ratio: float) -> None:
    trial = ArmSelectionTrial((60, 120), BOUNDS, control_ratio=ratio)
    z = np.array([[2.3, 1.0, -0.4], [0.2, 4.5, 3.0], [-1.0, -2.0, 0.1]])
    for active in ([True, True, True], [True, False, True], [False, True, False]):
        here = np.tile(active, (3, 1))
        correlation = many_to_one_correlation([1 / ratio] * sum(active))
        expected = [dunnett_p_value(float(row[active].max()), correlation) for row in z]
        np.testing.assert_allclose(trial.p_values(z, here), expected, rtol=1e-6)
    np.testing.assert_allclose(trial.p_values(z, np.zeros((3, 3), dtype=bool)), 1.0)


def test_other_intersections_by_hand() -> None:
    z = np.array([[1.6448536, 2.3263479, 0.0]])  # p 0.05, 0.01, 0.5
    everyone = np.ones((1, 3), dtype=bool)
    for how, expected in (("bonferroni", 0.03), ("sidak", 1 - 0.99**3), ("simes", 0.03)):
        trial = ArmSelectionTrial((60, 120), BOUNDS, intersection=how)  # type: ignore[arg-type]
        assert trial.p_values(z, everyone)[0] == pytest.approx(expected, abs=1e-7)
    simes = ArmSelectionTrial((60, 120), BOUNDS, intersection="simes")
    assert simes.p_values(np.array([[1.6448536, 1.7506861, 0.0]]), everyone)[0] == pytest.approx(0.075, abs=1e-7)


def test_one_arm_is_a_group_sequential_trial() -> None:
    found = simulate_arm_selection(TRIAL, [0.3], 10_000, seed=1)
    exits = exit_probabilities([0.5, 1.0], BOUNDS, None, 0.3 * math.sqrt(60))
    assert found.any_rejected.value == pytest.approx(exits.power, abs=4 * found.any_rejected.standard_error)
    assert found.power(0, 0).value == pytest.approx(exits.upper[0], abs=4 * found.power(0, 0).standard_error)
    expected = 120 + 120 * (1 - exits.upper[0])
    assert found.num_subjects.value == pytest.approx(expected, abs=4 * found.num_subjects.standard_error)


@pytest.mark.parametrize("how", ["dunnett", "bonferroni", "simes"])
def test_familywise_error_is_at_most_alpha(how: How) -> None:
    trial = ArmSelectionTrial((60, 120), BOUNDS, intersection=how)
    most = 0.025 + 3 * math.sqrt(0.025 * 0.975 / 10_000)
    found = simulate_arm_selection(trial, [0.0, 0.0, 0.0], 10_000, seed=2)
    assert 0.01 < found.any_rejected.value <= most
    partial = simulate_arm_selection(trial, [0.0, 0.0, 0.5], 10_000, seed=2)
    assert np.mean((partial.rejected_at[:, :2] >= 0).any(axis=1)) <= most


def test_testing_the_best_arm_as_if_it_were_the_only_one_is_found_out() -> None:
    """The negative control: the selected arm's own intersection alone rejects too often."""
    everyone = ArmSelectionTrial((60, 120), BOUNDS, selection=Selection())
    three = simulate_arm_selection(everyone, [0.0, 0.0, 0.0], 10_000, seed=2)
    single = ArmSelectionTrial((60, 120), BOUNDS, intersection="dunnett")
    alone = [simulate_arm_selection(single, [0.0], 10_000, seed=seed) for seed in (3, 4, 5)]
    best = np.mean(np.any([each.rejected_at[:, 0] >= 0 for each in alone], axis=0))
    assert best > 0.05 > 0.025 + 3 * math.sqrt(0.025 * 0.975 / 10_000) >= three.any_rejected.value


def test_selection_and_stops() -> None:
    best = simulate_arm_selection(TRIAL, [0.0, 0.1, 0.2], 2000, seed=3)
    assert (best.active[:, 1].sum(axis=1) == 1).mean() == pytest.approx(1.0, abs=0.01)
    two = ArmSelectionTrial((60, 120), BOUNDS, selection=Selection(best=2))
    assert set(simulate_arm_selection(two, [0.0, 0.1, 0.2], 500, seed=3).active[:, 1].sum(axis=1)) == {2}
    close = ArmSelectionTrial((60, 120), BOUNDS, selection=Selection(within=0.05))
    counts = simulate_arm_selection(close, [0.0, 0.1, 0.2], 500, seed=3).active[:, 1].sum(axis=1)
    assert set(counts) == {1, 2, 3}
    strict = ArmSelectionTrial((60, 120), BOUNDS, selection=Selection(above=0.3))
    found = simulate_arm_selection(strict, [0.0, 0.0, 0.0], 2000, seed=3)
    assert found.stopped_at(0, success=False).value > 0.8
    assert (found.subjects[found.ended_at == 0] == 240).all()
    eager = ArmSelectionTrial((60, 120), BOUNDS, stop_at_any=True)
    many = [simulate_arm_selection(trial, [0.3, 0.6, 0.9], 2000, seed=3) for trial in (eager, TRIAL)]
    assert many[0].stopped_at(0, success=True).value > many[1].stopped_at(0, success=True).value
    assert many[0].num_subjects.value < many[1].num_subjects.value


def test_a_larger_run_begins_with_the_smaller_one() -> None:
    small, large = (simulate_arm_selection(TRIAL, [0.1, 0.3], count, seed=9) for count in (130, 400))
    np.testing.assert_array_equal(small.rejected_at, large.rejected_at[:130])


def test_agrees_with_rpact() -> None:
    """getSimulationMultiArmMeans() of rpact 3.3.4, 5,000 iterations: best of three arms on a line, closed Dunnett."""
    rejected = (0.0208, 0.2496, 0.7706, 0.9874, 0.9994, 1.0)
    patients = (360, 359.928, 359.616, 357.552, 352.752, 345.408)
    for step, (share, count) in enumerate(zip(rejected, patients, strict=True)):
        most = 0.2 * step
        found = simulate_arm_selection(TRIAL, [most / 3, 2 * most / 3, most], 10_000, seed=6)
        stopped = (360 - count) / 120  # a stop saves 60 patients of an arm and 60 of the control
        for mine, theirs in ((found.any_rejected, share), (found.stopped_at(0, success=True), stopped)):
            pooled = (mine.value + 0.5 * theirs) / 1.5
            error = math.sqrt(pooled * (1 - pooled) * (1 / 5000 + 1 / 10_000))
            assert mine.value == pytest.approx(theirs, abs=4 * error + 1e-12)
        assert found.num_subjects.value == pytest.approx(360 - 120 * found.stopped_at(0, success=True).value)


def test_what_makes_no_sense_is_refused() -> None:
    for make, message in (
        (lambda: ArmSelectionTrial((60,), BOUNDS), "as many"),
        (lambda: ArmSelectionTrial((60, 60), BOUNDS, (0.5, 1.0)), "increase from look to look"),
        (lambda: ArmSelectionTrial((60, 120), BOUNDS, sd=0.0), "above 0"),
        (lambda: ArmSelectionTrial((60, 120), BOUNDS, intersection="hochberg"), "must be dunnett"),  # type: ignore[arg-type]
        (lambda: Selection(best=0), "whole number of 1 or more"),
        (lambda: Selection(within=-0.1), "0 or more"),
        (lambda: simulate_arm_selection(TRIAL, [], 10, seed=1), "1 to 8 arms"),
        (lambda: simulate_arm_selection(TRIAL, [math.nan], 10, seed=1), "1 to 8 arms"),
        (lambda: simulate_arm_selection(TRIAL, [0.1], 0, seed=1), "num_trials must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
