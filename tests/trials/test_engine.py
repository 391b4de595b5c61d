from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.core.shards import map_shards
from medtwin.trials.design.boundaries import Bounds
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.batch import (
    BLOCK,
    Characteristics,
    Stops,
    TrialPlan,
    course_of,
    draw_patients,
    marginal_log_hazard_ratio,
    mean_of,
    run_block,
    share_of,
    snapshot,
)
from medtwin.trials.engine.scenarios import characteristics_of, run_task, scenarios_of, table_of, tasks_of
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial, prepare
from medtwin.trials.enrolment import block_arms, permuted_blocks, poisson_arrivals, ramped_rate
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.outcome.prognosis import AssumedOutcome

HSD = Spending("hwang_shih_decani", -4.0)


def plan(
    hazard_ratio: float = 0.5, sd: float = 0.0, max_months: float = 400.0, futility: Spending | None = None
) -> TrialPlan:
    design = SurvivalDesign(GroupSequential(looks=(0.5, 1.0), futility=futility), hazard_ratio)
    pool = AssumedOutcome(12.0, sd).pool(np.random.default_rng(0), 400)
    return TrialPlan(design, pool, 160, RampedAccrual(12, 3).of_size(160), Dropout.of_share(0.05), max_months)


def simulate(made: TrialPlan, hazard_ratio: float, blocks: int, **kwargs: bool) -> Characteristics:
    stops = [run_block(made, 0, block, hazard_ratio, **kwargs) for block in range(blocks)]
    return Characteristics(hazard_ratio, Stops.join(stops))


def test_type_one_error_and_power_are_those_of_the_design() -> None:
    made = plan()
    null, alternative = simulate(made, 1.0, 60), simulate(made, 0.5, 20)
    assert abs(null.power.value - 0.025) < 4 * null.power.standard_error
    exits = made.design.bounds.exits(made.design.drift(0.5))
    assert abs(alternative.power.value - exits.power) < 4 * alternative.power.standard_error + 0.01
    assert abs(alternative.rejected_at(0).value - exits.upper[0]) < 0.06  # Schoenfeld's drift is approximate at 0.5
    assert alternative.events.value == pytest.approx(exits.expected(made.design.events), rel=0.06)


def test_wrong_bounds_are_detected() -> None:
    """1.96 at both looks spends 4 %, not 2.5 %: the simulated error must leave its interval around 2.5 %."""
    made = plan()
    bounds = made.design.bounds
    wrong = Bounds(bounds.fractions, np.full(2, 1.959964), bounds.futility, bounds.drift)
    object.__setattr__(made.design, "bounds", wrong)
    null = simulate(made, 1.0, 60)
    assert null.power.low > 0.025
    assert abs(null.power.value - 0.0415) < 4 * null.power.standard_error


def test_arms_that_do_not_matter_give_no_power() -> None:
    made = plan()
    patients = draw_patients(made, 0, 0)
    course = course_of(made, patients, 0.3)
    shuffled = replace(patients, arm=np.random.default_rng(5).permuted(patients.arm, axis=1))
    better = [(course.leaves[patients.arm == arm].mean()) for arm in (1, 0)]
    assert better[0] > 1.2 * better[1]
    mixed = [(course.leaves[shuffled.arm == arm].mean()) for arm in (1, 0)]
    assert mixed[0] == pytest.approx(mixed[1], rel=0.06)


def test_futility_stops_cost_power_and_only_where_they_are_obeyed() -> None:
    made = plan(futility=HSD)
    obeyed, disregarded = simulate(made, 1.0, 10), simulate(made, 1.0, 10, obeys_futility=False)
    exits = made.design.bounds.exits(0.0)
    assert abs(obeyed.futile_at(0).value - exits.lower[0]) < 4 * obeyed.futile_at(0).standard_error + 0.01
    assert disregarded.futile_at(0).value == 0
    assert obeyed.events.value < disregarded.events.value
    assert obeyed.power.value <= disregarded.power.value


def test_the_same_patients_whatever_the_hazard_ratio_and_the_look() -> None:
    made = plan()
    patients = draw_patients(made, 0, 3)
    again = draw_patients(made, 0, 3)
    np.testing.assert_array_equal(patients.amount, again.amount)
    null, treated = course_of(made, patients, 1.0), course_of(made, patients, 0.5)
    control = patients.arm == 0
    np.testing.assert_array_equal(null.calendar[control], treated.calendar[control])
    assert (treated.calendar[~control] >= null.calendar[~control]).all()
    rows = np.arange(BLOCK)
    early, late = (snapshot(treated, rows, np.full(BLOCK, month)) for month in (10.0, 30.0))
    assert (early.event <= late.event).all()  # an event once seen stays
    assert (early.time[early.event] == late.time[early.event]).all()
    assert (early.time <= late.time).all()
    assert (early.time[patients.enrolled > 10.0] == 0).all()


def test_blocks_are_independent_of_each_other_and_of_the_seed() -> None:
    made = plan()
    first, second, other = run_block(made, 0, 0, 0.7), run_block(made, 0, 1, 0.7), run_block(made, 1, 0, 0.7)
    np.testing.assert_array_equal(first.z, run_block(made, 0, 0, 0.7).z)
    assert not np.allclose(first.z[:, 0], second.z[:, 0])
    assert not np.allclose(first.z[:, 0], other.z[:, 0])
    assert abs(np.corrcoef(first.z[:, 0], second.z[:, 0])[0, 1]) < 0.4


def test_looks_come_with_their_events_and_the_cap_with_the_calendar() -> None:
    stops = run_block(plan(), 0, 0, 1.0)
    wanted = np.array(plan().design.events)
    np.testing.assert_array_equal(stops.events, wanted[stops.look])
    capped = run_block(plan(max_months=10.0), 0, 0, 1.0)
    assert capped.is_capped.all()
    assert (capped.months == 10.0).all()
    assert (capped.events < wanted[-1]).all()


def test_a_trial_that_ends_short_of_events_keeps_its_type_one_error() -> None:
    """It spends the rest of alpha at the last look: bounds recomputed at the events it has."""
    found = simulate(plan(max_months=20.0), 1.0, 60)
    assert found.capped.value > 0.5
    assert abs(found.power.value - 0.025) < 4 * found.power.standard_error


def test_a_trial_without_events_rejects_nothing() -> None:
    made = plan()
    never = replace(made.pool, hazard=PiecewiseRate((0.0,), (1e-9,)))
    stops = run_block(replace(made, pool=never, max_months=30.0), 0, 0, 0.5)
    assert stops.events.max() == 0
    assert not stops.is_rejected.any()
    assert np.isnan(stops.log_hazard_ratio).all()


def test_different_risks_bring_the_marginal_effect_nearer_to_null() -> None:
    alike, different = (marginal_log_hazard_ratio(plan(sd=sd), 0, 0.5) for sd in (0.0, 1.5))
    assert alike.value == pytest.approx(np.log(0.5), abs=4 * alike.standard_error + 0.005)
    assert different.value > np.log(0.5) + 0.1
    assert marginal_log_hazard_ratio(plan(sd=1.5), 0, 1.0).value == 0.0


def trial(**changes: object) -> SurvivalTrial:
    base = SurvivalTrial("t", GroupSequential(looks=(0.5, 1.0), futility=HSD), 0.5, assumed=AssumedOutcome(12.0))
    return replace(base, **changes)  # type: ignore[arg-type]


def results(study: Study, workers: int) -> list[Characteristics]:
    scenarios = scenarios_of(study, 400, 100)
    return characteristics_of(scenarios, map_shards(run_task, tasks_of(study, scenarios, 7), num_workers=workers))


def test_the_number_of_workers_changes_nothing() -> None:
    study = prepare(trial(), None, 7)
    for one, two in zip(results(study, 1), results(study, 2), strict=True):
        np.testing.assert_array_equal(one.stops.z, two.stops.z)
        np.testing.assert_array_equal(one.stops.months, two.stops.months)


def test_every_estimate_has_its_error_and_its_analytical_value() -> None:
    study = prepare(trial(), None, 7)
    scenarios = scenarios_of(study, 1000, 100)
    found = characteristics_of(scenarios, map(run_task, tasks_of(study, scenarios, 7)))
    assert [each.num_trials for each in found[:3]] == [1000] * 3
    assert [scenario.name for scenario in scenarios[:3]] == ["alternative", "null", "null, futility disregarded"]
    powers = [each.power.value for each in sorted(found, key=lambda each: each.hazard_ratio) if each.num_trials == 100]
    assert powers == sorted(powers, reverse=True)
    for scenario, each in zip(scenarios[:3], found[:3], strict=True):
        for line in table_of(study, scenario, each, 7):
            assert line.estimate.standard_error >= 0
            if line.analytical is not None and "without early" not in line.characteristic:
                distance = abs(line.estimate.value - line.analytical)
                # the log-rank statistic and a count of patients are only asymptotically what theory takes them for
                assert distance < 4 * line.estimate.standard_error + 0.04 * max(abs(line.analytical), 0.5), line


def test_monte_carlo_errors() -> None:
    share = share_of(25, 1000)
    assert share.standard_error == pytest.approx((0.025 * 0.975 / 1000) ** 0.5)
    assert (share_of(0, 10).low, share_of(10, 10).high) == (0.0, 1.0)
    mean = mean_of(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (mean.value, mean.standard_error) == (2.0, pytest.approx(1 / 3**0.5))
    covered = 0
    for seed in range(400):
        estimate = mean_of(np.random.default_rng(seed).exponential(size=200))
        covered += estimate.low < 1 < estimate.high
    assert covered / 400 == pytest.approx(0.95, abs=0.045)


def test_permuted_blocks_balance_every_stratum() -> None:
    rng = np.random.default_rng(0)
    stratum = rng.integers(2, size=(50, 101))
    arms = permuted_blocks(rng, stratum, 2.0, 6)
    for level in (0, 1):
        for row, strata in zip(arms, stratum, strict=True):
            here = row[strata == level]
            sums = here[: len(here) // 6 * 6].reshape(-1, 6).sum(axis=1)
            assert (sums == 4).all()
    assert arms.mean() == pytest.approx(2 / 3, abs=0.02)
    assert len({tuple(row[:6]) for row in arms}) > 10


@pytest.mark.parametrize(("ratio", "size"), [(2.0, 4), (1.0, 3), (1.0, 0), (0.337, 4)])
def test_a_block_that_cannot_hold_the_ratio_is_refused(ratio: float, size: int) -> None:
    with pytest.raises(ValueError, match="block_size must be a multiple"):
        block_arms(ratio, size)


def test_arrivals_follow_the_rate() -> None:
    rate = ramped_rate(300, 12, 6)
    arrivals = poisson_arrivals(np.random.default_rng(0), (400, 300), rate)
    assert (np.diff(arrivals, axis=1) > 0).all()
    assert float(rate.cumulative(12.0)) == pytest.approx(300)
    for month in (2.0, 6.0, 10.0):
        expected = float(rate.cumulative(month))
        assert (arrivals <= month).sum(axis=1).mean() == pytest.approx(expected, abs=4 * (expected / 400) ** 0.5)
    with pytest.raises(ValueError, match="accrual"):
        ramped_rate(10, 6, 7)


def test_more_events_than_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="num_subjects must be at least"):
        replace(plan(), num_subjects=20)
