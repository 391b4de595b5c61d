"""The engine against a plain programming of the same trials: look by look, trial by trial, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import (
    Ordered,
    cox_log_hazard_ratio,
    logrank_z,
    logrank_z_continuous,
    order_continuous,
    risk_sets,
)
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.batch import BLOCK, Course, TrialPlan, course_of, draw_patients, run_trials, snapshot
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.enrolment.arrangements import arrangements
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.enrolment.randomisation import PermutedBlocks
from medtwin.trials.outcome.prognosis import AssumedOutcome

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def plan(max_months: float = 400.0, sd: float = 0.0, factors: tuple[Factor, ...] = ()) -> TrialPlan:
    futility = Spending("hwang_shih_decani", -4.0)
    design = SurvivalDesign(GroupSequential(looks=(0.4, 0.7, 1.0), futility=futility), 0.6)
    pool = AssumedOutcome(12.0, sd).pool(np.random.default_rng(0), 300)
    accrual, dropout = RampedAccrual(12, 3).of_size(240), Dropout.of_share(0.05)
    return TrialPlan(design, pool, 240, accrual, dropout, max_months, PermutedBlocks(4), factors)


def plain_order(time: Floats, event: NDArray[np.bool_], arm: Ints) -> Ordered:
    """The order by an argsort of the times."""
    order = np.argsort(time, axis=1, kind="stable")
    d, a = (np.take_along_axis(each, order, axis=1).astype(np.float32) for each in (event, arm))
    at_risk = np.arange(a.shape[1], 0, -1, dtype=np.float32)[None]
    return Ordered(a, d, np.cumsum(a[:, ::-1], axis=1)[:, ::-1], at_risk)


def look_month(course: Course, row: int, wanted: int, cap: float) -> float:
    """When a trial has its events, or the cap."""
    return min(float(np.sort(course.calendar[row])[wanted - 1]), cap)


@pytest.mark.parametrize("cap", [400.0, 16.0])
@pytest.mark.parametrize("hazard_ratio", [1.0, 0.6])
def test_every_look_is_that_of_the_plain_programme(cap: float, hazard_ratio: float) -> None:
    made = plan(cap)
    patients = draw_patients(made, 5, 0)
    course, stops = course_of(made, patients, hazard_ratio), run_trials(made, patients, hazard_ratio)
    assert len(set(stops.look)) > 1 or cap < 400
    for look, wanted in enumerate(made.design.events):
        rows = np.flatnonzero(stops.look >= look)
        months = np.array([look_month(course, int(row), wanted, cap) for row in rows])
        data = snapshot(course, rows, months)
        assert (data.event.sum(axis=1)[months < cap] == wanted).all()
        z = logrank_z_continuous(plain_order(data.time, data.event, patients.arm[rows]))
        np.testing.assert_allclose(stops.z[rows, look], z, atol=1e-6)
        sets = risk_sets(data.time, data.event, patients.arm[rows])
        np.testing.assert_allclose(stops.z[rows, look], logrank_z(sets), atol=2e-5)
        assert np.isnan(stops.z[stops.look < look, look]).all()
        ended = stops.look[rows] == look
        np.testing.assert_array_equal(stops.months[rows[ended]], months[ended])
        np.testing.assert_array_equal(stops.events[rows[ended]], data.event[ended].sum(axis=1))
        np.testing.assert_array_equal(
            stops.subjects[rows[ended]], (patients.enrolled[rows[ended]] <= months[ended, None]).sum(axis=1)
        )
        np.testing.assert_array_equal(stops.is_capped[rows[ended]], data.event[ended].sum(axis=1) < wanted)
        estimate = cox_log_hazard_ratio(sets).estimate[ended]
        np.testing.assert_allclose(stops.log_hazard_ratio[rows[ended]], estimate, atol=1e-5)
        if cap == 400.0:
            z, bounds, is_last = z[ended], made.design.bounds, look + 1 == len(made.design.events)
            np.testing.assert_array_equal(stops.is_rejected[rows[ended]], z >= bounds.efficacy[look])
            assert (is_last | (z >= bounds.efficacy[look]) | (z <= bounds.futility[look])).all()


def test_an_event_that_brings_the_look_counts_at_it_and_the_next_does_not() -> None:
    """A control: the plain z without that event is another."""
    made = plan()
    patients = draw_patients(made, 5, 0)
    course, stops = course_of(made, patients, 1.0), run_trials(made, patients, 1.0)
    rows, wanted = np.arange(BLOCK), made.design.events[0]
    for missing, is_equal in ((0, True), (1, False), (-1, False)):
        months = np.sort(course.calendar, axis=1)[:, wanted - 1 - missing]
        data = snapshot(course, rows, months)
        z = logrank_z_continuous(order_continuous(data.time, data.event, patients.arm))
        assert bool((abs(z - stops.z[:, 0]) < 1e-6).all()) == is_equal


def test_one_analysis_stratum_is_none() -> None:
    """The stratified path and the packed one agree where all patients are of one stratum."""
    alone, together = plan(), plan(factors=(Factor("log_risk", (99.0,)),))
    first, second = (run_trials(each, draw_patients(each, 5, 1), 0.6) for each in (alone, together))
    np.testing.assert_allclose(first.z, second.z, atol=1e-6)
    np.testing.assert_array_equal(first.look, second.look)


def test_trials_are_the_same_in_parts_of_a_block() -> None:
    made = plan(sd=0.5)
    patients = draw_patients(made, 5, 0)
    whole = run_trials(made, patients, 0.6)
    names = [name for name in type(patients).__annotations__ if name != "changes"]
    part = replace(patients, **{name: getattr(patients, name)[30:37] for name in names})
    np.testing.assert_array_equal(run_trials(made, part, 0.6).z, whole.z[30:37])


@pytest.mark.parametrize(("size", "parts"), [(4, (1, 1)), (6, (1, 2)), (6, (1, 1, 1)), (40, (1, 1))])
def test_blocks_hold_the_ratio_and_a_longer_list_starts_with_the_shorter(size: int, parts: tuple[int, ...]) -> None:
    blocks, draws = PermutedBlocks(size), TrialDraws(3, 200)
    short, long = blocks.listed(size + 1, parts, draws), blocks.listed(7 * size, parts, draws)
    np.testing.assert_array_equal(short, long[:, : size + 1])
    for arm, part in enumerate(parts):
        assert ((long.reshape(200, 7, size) == arm).sum(axis=2) == part * size // sum(parts)).all()
    expected = np.array(parts) / sum(parts)
    share = np.array([(long == arm).mean(axis=0) for arm in range(len(parts))])
    assert abs(share - expected[:, None]).max() < 5 * (0.25 / 200) ** 0.5


def test_every_arrangement_of_a_block_is_as_likely_as_any_other() -> None:
    assert len({tuple(row) for row in arrangements((3, 3)).tolist()}) == len(arrangements((3, 3))) == 20
    listed = PermutedBlocks(4).listed(400, (1, 1), TrialDraws(3, 100)).reshape(-1, 4)
    _, count = np.unique(listed, axis=0, return_counts=True)
    expected = len(listed) / 6
    assert len(count) == 6
    assert ((count - expected) ** 2 / expected).sum() < 20.5  # chi-squared, 5 degrees of freedom, 0.1 %
