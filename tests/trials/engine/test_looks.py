"""The engine's whole-number keys against the same trials in full precision, where times nearly coincide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials.analysis.event_shares import EventShares, cox_log_hazard_ratio_of_shares, exact_shares
from medtwin.trials.analysis.survival_batch import cox_log_hazard_ratio, logrank_z, order_continuous, risk_sets
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import BLOCK, Patients, TrialPlan, course_of, draw_patients, run_trials, snapshot
from medtwin.trials.engine.followed import Followed
from medtwin.trials.engine.scenarios import Scenario, Task, run_task
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Discontinuation, Dropout
from medtwin.trials.outcome.prognosis import AssumedOutcome

Floats = NDArray[np.float64]


def plan(max_months: float = 400.0, **changes: object) -> TrialPlan:
    design = SurvivalDesign(GroupSequential(looks=(0.4, 0.7, 1.0)), 0.6)
    pool = AssumedOutcome(12.0, 0.4).pool(np.random.default_rng(0), 300)
    accrual, dropout = RampedAccrual(12, 3).of_size(240), Dropout.of_share(0.05)
    made = TrialPlan(design, pool, 240, accrual, dropout, max_months)
    return replace(made, **changes)  # type: ignore[arg-type]


def close(patients: Patients, apart: float) -> Patients:
    """The patients with amounts of few values, `apart` from each other by a part of themselves."""
    noise = np.random.default_rng(1).normal(size=patients.amount.shape)
    return replace(patients, amount=(np.ceil(patients.amount * 100) / 100) * (1 + apart * noise))


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-9, 1e-8, 1e-7])
@pytest.mark.parametrize("cap", [400.0, 14.0])
def test_no_decision_depends_on_the_precision_of_keys(apart: float, cap: float) -> None:
    made = replace(plan(cap), pool=AssumedOutcome(12.0).pool(np.random.default_rng(0), 300))
    patients = close(draw_patients(made, 3, 0), apart)
    course, stops = course_of(made, patients, 0.7), run_trials(made, patients, 0.7)
    for look in range(3):
        rows = np.flatnonzero(stops.look >= look)
        due = np.sort(course.calendar[rows], axis=1)[:, made.design.events[look] - 1]
        data = snapshot(course, rows, np.minimum(due, cap))
        sets = risk_sets(data.time, data.event, patients.arm[rows])
        z = logrank_z(sets)
        np.testing.assert_allclose(stops.z[rows, look], z, atol=2e-6)
        ended = stops.look[rows] == look
        np.testing.assert_array_equal(stops.events[rows[ended]], data.event[ended].sum(axis=1))
        estimate = cox_log_hazard_ratio(sets).estimate[ended]
        np.testing.assert_allclose(stops.log_hazard_ratio[rows[ended]], estimate, atol=2e-6)
        if cap == 400.0:
            np.testing.assert_array_equal(stops.is_rejected[rows[ended]], z[ended] >= made.design.bounds.efficacy[look])
    for row in (0, 42, 99):  # replayed by itself
        alone = run_trials(made, patients.rows(np.array([row])), 0.7)
        np.testing.assert_array_equal(alone.z[0], stops.z[row])
        assert alone.is_rejected[0] == stops.is_rejected[row]
        assert alone.log_hazard_ratio[0] == pytest.approx(stops.log_hazard_ratio[row], abs=2e-6)


def test_keys_alone_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: without the comparison in full precision some statistic is another."""
    made = plan()
    patients = close(draw_patients(made, 3, 0), 1e-9)
    right = run_trials(made, patients, 0.7).z[:, 0]
    at = Followed.at

    def blind(self: Followed, rows: NDArray[np.int64], months: Floats) -> tuple[EventShares, NDArray[np.bool_]]:
        shares, is_unclear = at(self, rows, months)
        return shares, np.zeros_like(is_unclear)

    monkeypatch.setattr(Followed, "at", blind)
    assert abs(run_trials(made, patients, 0.7).z[:, 0] - right).max() > 1e-5


@pytest.mark.parametrize("hazard_ratio", [1.0, 0.5, 0.05, 20.0])
@pytest.mark.parametrize("count", [6, 30, 300])
def test_cox_estimates_are_newtons_in_double_precision(hazard_ratio: float, count: int) -> None:
    rng = np.random.default_rng(count)
    arm = rng.integers(2, size=(200, count))
    time = rng.exponential(size=arm.shape) / np.where(arm == 1, hazard_ratio, 1.0)
    event = rng.random(arm.shape) < 0.7
    for data in (time, np.ceil(time * 10)):  # ties: Efron's method
        sets = risk_sets(data, event, arm)
        right, found = cox_log_hazard_ratio(sets), exact_shares(data, event, arm)
        fast = cox_log_hazard_ratio_of_shares(found)
        is_known = ~np.isnan(fast.estimate)
        assert is_known.mean() > 0.9 or count < 300
        lost = np.isnan(fast.estimate) & ~np.isnan(right.estimate)
        assert (abs(right.estimate[lost]) > 8).all()  # where there is no maximum, Newton's steps run away
        error = abs(fast.estimate - right.estimate)[is_known]
        assert (error < 2e-6 * np.maximum(1, right.standard_error[is_known] ** 2 * 100)).all()
        np.testing.assert_allclose(fast.standard_error[is_known], right.standard_error[is_known], rtol=2e-3)
        np.testing.assert_allclose(found.z, logrank_z(sets), atol=2e-6)
    plain = EventShares.of_ordered(order_continuous(time, event, arm))
    np.testing.assert_allclose(plain.z, exact_shares(time, event, arm).z, atol=1e-6)


def test_trials_without_a_comparison() -> None:
    time, nobody = np.ones((1, 4)) * [1, 2, 3, 4], np.zeros((1, 4), dtype=bool)
    for event, arm in ((nobody, [0, 1, 0, 1]), (~nobody, [1, 1, 1, 1]), (~nobody, [0, 0, 0, 0])):
        shares = exact_shares(time, event, np.array([arm]))
        assert shares.z[0] == 0
        assert np.isnan(cox_log_hazard_ratio_of_shares(shares).estimate[0])


def test_blocks_simulated_together_are_those_simulated_alone() -> None:
    change = Discontinuation(PiecewiseRate((0.0,), (0.02,)))
    made = plan(changes=[change])
    together = draw_patients(made, 5, 2, num_blocks=3)
    for number in range(3):
        alone = draw_patients(made, 5, 2 + number)
        part = together.rows(slice(number * BLOCK, (number + 1) * BLOCK))
        for name in ("index", "arm", "enrolled", "site", "stratum", "amount", "leaving"):
            np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
        np.testing.assert_array_equal(part.changes[0].amount, alone.changes[0].amount)
    scenarios = [Scenario("all", 0.6, 500), Scenario("few", 0.6, 300), Scenario("none", 0.6, 200)]
    every, few, none = run_task(Task(made, 5, (2, 3, 4), scenarios))
    assert (len(every[0].look), len(few[0].look), none) == (300, 100, [])
    np.testing.assert_array_equal(few[0].z, every[0].z[:BLOCK])
    np.testing.assert_array_equal(run_trials(made, draw_patients(made, 5, 3), 0.6).z, every[0].z[BLOCK : 2 * BLOCK])
