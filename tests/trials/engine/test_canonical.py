from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from medtwin.trials import GroupSequential, Spending
from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.conditional_power import remainder
from medtwin.trials.design.monitoring import bounds_at_looks
from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.bound_surface import BoundSurface, InformationRange
from medtwin.trials.engine.canonical import (
    CanonicalDesign,
    ConditionalPowerStop,
    canonical_tasks,
    canonical_trials,
    joined,
    run_canonical,
    simulate_canonical,
)

LOOKS = (0.5, 0.75, 1.0)
FUTILITY = Spending("hwang_shih_decani", -4.0)
PLAIN = GroupSequential(looks=LOOKS)
BOTH = GroupSequential(looks=LOOKS, futility=FUTILITY)
BINDING = GroupSequential(looks=LOOKS, futility=FUTILITY, binding=True)
AROUND = InformationRange((0.45, 0.7, 0.9), (0.55, 0.8, 1.1))


def is_near(found: Estimate, wanted: float, errors: float = 4.0) -> bool:
    return abs(found.value - wanted) < errors * found.standard_error


@pytest.mark.parametrize("plan", [GroupSequential(looks=(1.0,)), PLAIN, BOTH, BINDING])
def test_agrees_with_numerical_integration(plan: GroupSequential) -> None:
    design = CanonicalDesign(plan)
    drifts = [0.0, 1.5, design.bounds.drift]
    found = simulate_canonical(design, drifts, 200_000, seed=5)
    for row, drift in enumerate(drifts):
        exits = design.bounds.exits(drift)
        assert is_near(found.power(row), exits.power)
        for look in range(len(plan.looks)):
            assert is_near(found.rejected_at(row, look), exits.upper[look])
            if look + 1 < len(plan.looks):
                assert found.futile_at(row, look).value == exits.lower[look] == 0 or is_near(
                    found.futile_at(row, look), exits.lower[look]
                )
        assert plan.looks == (1.0,) or is_near(found.mean_information(row), exits.expected(plan.looks))
        months = [7.0, 11.0, 15.0][: len(plan.looks)]
        assert plan.looks == (1.0,) or is_near(found.mean_of_looks(row, months), exits.expected(months))
    assert not is_near(found.power(2), design.bounds.exits(1.03 * drifts[2]).power)  # the control: 3 % more drift


def test_disregarded_futility_gives_all_of_alpha_back() -> None:
    obeyed, not_obeyed = (
        simulate_canonical(CanonicalDesign(BOTH, obeys_futility=obeys), [0.0], 400_000, seed=2)
        for obeys in (True, False)
    )
    assert is_near(not_obeyed.power(0), 0.025)
    assert is_near(obeyed.power(0), BOTH.bounds.exits(0.0).power)
    assert not is_near(obeyed.power(0), 0.025)


def test_a_trial_is_the_same_in_any_batch_at_any_drift_and_in_any_design() -> None:
    design = CanonicalDesign(BOTH, observed=AROUND)
    whole = canonical_trials(design, 2.0, 9, 0, 50)
    for first, count in ((0, 3), (1, 2), (17, 30), (49, 1)):
        part = canonical_trials(design, 2.0, 9, first, count)
        np.testing.assert_array_equal(part.z, whole.z[first : first + count])
        np.testing.assert_array_equal(part.information, whole.information[first : first + count])
    fewer = canonical_trials(CanonicalDesign(GroupSequential(looks=(0.5, 1.0))), 0.0, 9, 0, 50)
    np.testing.assert_array_equal(fewer.z[:, 0], canonical_trials(CanonicalDesign(PLAIN), 0.0, 9, 0, 50).z[:, 0])
    assert (canonical_trials(design, 2.0, 10, 0, 50).z != whole.z).all()


def test_counts_do_not_depend_on_tasks_and_are_those_of_the_trials() -> None:
    design, drifts = CanonicalDesign(BOTH, observed=AROUND), [0.0, 3.0]
    one = simulate_canonical(design, drifts, 20_001, seed=3)
    parts = joined(map(run_canonical, canonical_tasks(design, drifts, 20_001, 3, trials_per_task=7_777)))
    np.testing.assert_array_equal(one.rejected, parts.rejected)
    np.testing.assert_array_equal(one.futile, parts.futile)
    np.testing.assert_allclose(one.estimate, parts.estimate, rtol=1e-12)
    for row, drift in enumerate(drifts):
        trials = canonical_trials(design, drift, 3, 0, 20_001)
        assert one.rejected[row].tolist() == np.bincount(trials.look[trials.is_rejected], minlength=3).tolist()
        assert one.futile[row].tolist() == np.bincount(trials.look[trials.is_futile], minlength=3).tolist()
        assert math.isclose(one.mean_estimate(row).value, trials.estimate.mean(), rel_tol=1e-12)
        assert math.isclose(one.mean_estimate(row).standard_error, trials.estimate.std(ddof=1) / math.sqrt(20_001))


def test_looks_of_a_trial_are_correlated_as_their_information_says() -> None:
    trials = canonical_trials(CanonicalDesign(PLAIN), 1.0, 4, 0, 100_000)
    wanted = np.sqrt(np.minimum.outer(LOOKS, LOOKS) / np.maximum.outer(LOOKS, LOOKS))
    np.testing.assert_allclose(np.corrcoef(trials.z.T), wanted, atol=0.01)
    np.testing.assert_allclose(trials.z.mean(axis=0), np.sqrt(LOOKS), atol=0.013)
    np.testing.assert_allclose(trials.z.std(axis=0), 1.0, atol=0.01)


def test_interpolated_bounds_are_the_exact_ones() -> None:
    surface = BoundSurface(BINDING, AROUND, BINDING.bounds.drift)
    points = AROUND.at(np.random.default_rng(1).random((3, 15)))
    for point in points.T:
        exact = bounds_at_looks(BINDING, point.tolist())
        for look in range(3):
            seen = point[: look + 1, None]
            assert abs(surface.efficacy(look, seen)[0] - exact.efficacy[look]) < 2e-5
            assert abs(surface.futility(look, seen)[0] - exact.futility[look]) < 2e-5


@pytest.mark.parametrize("plan", [PLAIN, BINDING])
def test_bounds_recomputed_at_random_information_hold_alpha_and_give_the_mean_power(plan: GroupSequential) -> None:
    design = CanonicalDesign(plan, observed=AROUND)
    found = simulate_canonical(design, [0.0, design.bounds.drift], 400_000, seed=7)
    assert is_near(found.power(0), 0.025)
    x, w = np.polynomial.legendre.leggauss(3)
    mean = 0.0
    for index in itertools.product(range(3), repeat=3):
        at = AROUND.at((0.5 + 0.5 * x[list(index)])[:, None])[:, 0]
        looks = bounds_at_looks(plan, at.tolist())
        drift = design.bounds.drift * math.sqrt(at[-1])
        power = exit_probabilities(at, looks.efficacy, looks.futility, drift).power
        mean += float(np.prod(w[list(index)] / 2)) * power
    assert is_near(found.power(1), mean)


def test_bounds_of_the_plan_at_other_information_do_not_hold_alpha() -> None:
    """The control: the same trials, judged by the bounds that were planned."""
    plan = GroupSequential(looks=(0.5, 1.0), efficacy=Spending("pocock"))
    early = CanonicalDesign(plan, observed=InformationRange((0.08, 0.9), (0.12, 1.1)))
    trials = canonical_trials(early, 0.0, 1, 0, 200_000)
    planned = (trials.z >= plan.bounds.efficacy).any(axis=1).mean()
    error = math.sqrt(0.025 * 0.975 / 200_000)
    assert planned > 0.025 + 4 * error
    assert abs(trials.is_rejected.mean() - 0.025) < 4 * error


@pytest.mark.parametrize("trend", [False, True])
def test_a_stop_by_conditional_power_is_where_it_says(trend: bool) -> None:
    rule, last = ConditionalPowerStop(0.2, trend=trend), 1.98
    for t in (0.3, 0.5, 0.8):
        z = float(rule.bound(t, last, 3.3))
        effect = z / math.sqrt(t) if trend else 3.3
        assert math.isclose(remainder(1, z, [t, 1.0], [np.inf, last]).power(effect), 0.2, abs_tol=1e-9)
    design = CanonicalDesign(PLAIN, conditional_power=rule)
    found = simulate_canonical(design, [0.0, design.bounds.drift], 200_000, seed=1)
    lower = [float(rule.bound(t, design.bounds.efficacy[-1], design.bounds.drift)) for t in LOOKS[:2]]
    exits = exit_probabilities(LOOKS, design.bounds.efficacy, [*lower, -np.inf], design.bounds.drift)
    assert is_near(found.power(1), exits.power)
    assert is_near(found.futile_at(1, 0), exits.lower[0])
    assert found.power(0).value < 0.025


def test_early_stops_overestimate() -> None:
    drift = PLAIN.bounds.drift
    found = simulate_canonical(CanonicalDesign(PLAIN), [drift], 100_000, seed=1).mean_estimate(0)
    assert found.value > drift + 10 * found.standard_error
    fixed = CanonicalDesign(GroupSequential(looks=(1.0,)))
    assert is_near(simulate_canonical(fixed, [drift], 100_000, seed=1).mean_estimate(0), drift)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ((0.5,), (0.6, 1.0), "one number per look"),
        ((0.6, 0.9), (0.5, 1.0), "low <= high"),
        ((0.0, 0.9), (0.5, 1.0), "0 < low"),
        ((0.4, 0.6), (0.6, 1.0), "apart so that information grows"),
        ((0.4, 1.2), (1.0, 1.3), "below the planned maximum"),
        ((math.nan, 0.9), (0.5, 1.0), "0 < low"),
        ((), (), "one number per look"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(low: tuple[float, ...], high: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InformationRange(low, high)


def test_designs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="observed must be of 3 looks"):
        CanonicalDesign(PLAIN, observed=InformationRange((0.5,), (1.0,)))
    with pytest.raises(ValueError, match="give one of them"):
        CanonicalDesign(BOTH, conditional_power=ConditionalPowerStop(0.1))
    with pytest.raises(ValueError, match="obeys_futility must be true"):
        CanonicalDesign(BINDING, obeys_futility=False)
    with pytest.raises(ValueError, match="threshold"):
        ConditionalPowerStop(1.0)
    with pytest.raises(ValueError, match="drifts"):
        simulate_canonical(CanonicalDesign(PLAIN), [math.nan], 10)
    with pytest.raises(ValueError, match="drifts"):
        simulate_canonical(CanonicalDesign(PLAIN), [], 10)
    with pytest.raises(ValueError, match="num_trials"):
        simulate_canonical(CanonicalDesign(PLAIN), [0.0], 0)
    with pytest.raises(ValueError, match="information must increase"):
        _ = CanonicalDesign(PLAIN, (1.0, 1.0, 2.0)).fractions
    surface = BoundSurface(PLAIN, InformationRange((0.001, 0.7, 1.0), (0.6, 0.7, 1.0)), 3.0)
    with pytest.raises(ValueError, match="in a part of its range only"):
        surface.efficacy(0, np.array([[0.5]]))


def test_a_million_trials_a_second_and_more() -> None:
    design = CanonicalDesign(GroupSequential(looks=(0.5, 1.0)))
    simulate_canonical(design, [0.0], 10_000)
    start = time.process_time()
    simulate_canonical(design, [0.0, 3.0], 300_000)
    assert time.process_time() - start < 0.6  # measured: 0.05
