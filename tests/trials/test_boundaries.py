from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.design.boundaries import (
    Exits,
    exit_probabilities,
    fixed_drift,
    inflation,
    observed_bounds,
    spending_both,
    spending_bounds,
)
from medtwin.trials.design.group_sequential import (
    GroupSequential,
    SurvivalDesign,
    hazard_ratio_at_bound,
)
from medtwin.trials.design.spending import Spending

OBRIEN_FLEMING = Spending("obrien_fleming")


def test_one_look_is_the_plain_quantile() -> None:
    assert spending_bounds([1.0], 0.025, OBRIEN_FLEMING)[0] == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(("looks", "level"), [(1, 0.05), (2, 0.083), (3, 0.107), (5, 0.142), (10, 0.193)])
def test_looking_often_without_correction_costs_what_armitage_tabulated(looks: int, level: float) -> None:
    """Two-sided 5 % at every look: Armitage, McPherson & Rowe 1969, table 2."""
    t = np.arange(1, looks + 1)
    exits = exit_probabilities(t, np.full(looks, 1.959964), np.full(looks, -1.959964), 0.0)
    assert exits.upper.sum() + exits.lower.sum() == pytest.approx(level, abs=6e-4)


@pytest.mark.parametrize(
    "spending", [OBRIEN_FLEMING, Spending("pocock"), Spending("kim_demets", 2.0), Spending("hwang_shih_decani", 0.0)]
)
def test_bounds_spend_exactly_what_the_function_says(spending: Spending) -> None:
    t = [0.2, 0.55, 0.6, 1.0]
    exits = exit_probabilities(t, spending_bounds(t, 0.025, spending), None, 0.0)
    np.testing.assert_allclose(exits.upper.cumsum(), spending.spent(t, 0.025), atol=1e-9)


def test_looks_close_to_each_other_are_resolved() -> None:
    t = [0.5, 0.502, 1.0]
    simulated = np.random.default_rng(1).standard_normal((400_000, 3)) * np.sqrt(np.diff(t, prepend=0.0))
    z = simulated.cumsum(axis=1) / np.sqrt(t)
    bounds = np.array([1.5, 1.5, 1.5])
    first = np.where((z > bounds).any(axis=1), (z > bounds).argmax(axis=1), 3)
    shares = np.bincount(first, minlength=4)[:3] / len(z)
    np.testing.assert_allclose(exit_probabilities(t, bounds, None, 0.0).upper, shares, atol=4 * 0.0004)


def test_the_mean_of_an_amount_counts_the_last_look_for_all_who_reach_it() -> None:
    assert Exits(np.array([0.2, 0.3]), np.array([0.1, 0.0])).expected([10, 20]) == pytest.approx(0.3 * 10 + 0.7 * 20)


def test_futility_bounds_cost_power_and_meet_at_the_end() -> None:
    t = [0.5, 1.0]
    without = GroupSequential(looks=t).bounds
    bounds = spending_both(t, 0.025, 0.1, (OBRIEN_FLEMING, Spending("hwang_shih_decani", -4.0)))
    assert bounds.futility[-1] == bounds.efficacy[-1]
    np.testing.assert_allclose(bounds.efficacy, without.efficacy)
    exits = bounds.exits(bounds.drift)
    assert exits.power == pytest.approx(0.9, abs=1e-7)
    assert exits.lower.sum() == pytest.approx(0.1, abs=1e-7)
    assert inflation(bounds, 0.025, 0.9) > inflation(without, 0.025, 0.9) > 1
    assert bounds.exits(0.0).power < 0.025  # non-binding: obeying them makes the test conservative


def test_binding_bounds_spend_all_of_alpha() -> None:
    spending = (OBRIEN_FLEMING, Spending("hwang_shih_decani", -4.0))
    bounds = spending_both([0.5, 1.0], 0.025, 0.1, spending, binding=True)
    assert bounds.exits(0.0).power == pytest.approx(0.025, abs=1e-7)


@pytest.mark.parametrize("last", [60, 100, 140])
def test_observed_information_spends_alpha_whatever_was_observed(last: int) -> None:
    """Planned looks at 50 and 100 events; the last came early, on time, or late."""
    bounds = observed_bounds(100, [50, last], 0.025, OBRIEN_FLEMING, is_final=True)
    assert exit_probabilities([50, last], bounds, None, 0.0).power == pytest.approx(0.025, abs=1e-9)
    assert bounds[0] == pytest.approx(2.962588, abs=1e-5)


def test_bounds_of_the_plan_do_not_keep_alpha_at_another_information() -> None:
    planned = spending_bounds([50, 100], 0.025, Spending("pocock"))
    assert exit_probabilities([90, 100], planned, None, 0.0).power < 0.02
    assert exit_probabilities([10, 100], planned, None, 0.0).power > 0.028


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spending_bounds([0.5, 0.5, 1], 0.025, OBRIEN_FLEMING), "must increase"),
        (lambda: spending_bounds([0.5, -1], 0.025, OBRIEN_FLEMING), "must be positive"),
        (lambda: spending_bounds([], 0.025, OBRIEN_FLEMING), "must be positive"),
        (lambda: exit_probabilities([1], [1.0], [2.0], 0.0), "must not be above"),
        (lambda: exit_probabilities([0.5, 1], [1.0], None, 0.0), "one per look"),
        (lambda: spending_both([1.0], 0.025, 0.999, (OBRIEN_FLEMING, OBRIEN_FLEMING)), "power must be above alpha"),
        (lambda: Spending("pocock", 1.0), "takes no parameter"),
        (lambda: Spending("kim_demets"), "needs parameter=rho"),
        (lambda: Spending("kim_demets", -1.0), "above 0"),
        (lambda: Spending("linear"), "must be one of"),  # type: ignore[arg-type]
        (lambda: OBRIEN_FLEMING.spent([1], 1.5), "between 0 and 1"),
        (lambda: GroupSequential(looks=(0.5, 0.9)), "end with 1"),
        (lambda: GroupSequential(looks=(0.9, 0.5, 1.0)), "increasing"),
        (lambda: GroupSequential(alpha=0.6), "one-sided"),
        (lambda: GroupSequential(power=0.01), "between alpha and 1"),
        (lambda: GroupSequential(binding=True), "needs futility"),
        (lambda: SurvivalDesign(GroupSequential(), 1.2), "between 0 and 1"),
    ],
)
def test_what_makes_no_design_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_whole_events_and_the_hazard_ratio_at_a_bound() -> None:
    design = SurvivalDesign(GroupSequential(looks=(0.5, 1.0)), 0.7)
    assert design.max_events == pytest.approx((fixed_drift(0.025, 0.9) / np.log(0.7)) ** 2 * 4 * design.plan.inflation)
    assert design.events == (166, 332)
    assert design.bounds.fractions.tolist() == [0.5, 1.0]
    assert hazard_ratio_at_bound(2.0, 100) == pytest.approx(np.exp(-0.4))
    with pytest.raises(ValueError, match="an event apart"):
        _ = SurvivalDesign(GroupSequential(looks=(0.8, 0.85, 1.0)), 0.05).events
