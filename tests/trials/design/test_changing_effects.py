from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from medtwin.trials.design.boundaries import exit_probabilities, spending_both, spending_bounds
from medtwin.trials.design.changing_effects import (
    Looks,
    exits_with_means,
    futility_bounds,
    null_spending_bounds,
    own_futility_bounds,
    scale_for_power,
    stopping,
    stopping_under_null,
)
from medtwin.trials.design.spending import Spending

INFORMATION = np.array([10.0, 25.0])
UPPER = np.array([2.9, 2.0])

UNKNOWN: Any = "unheard of"


def looks(effect: tuple[float, float] = (0.1, 0.4), null: tuple[float, float] = (10.0, 25.0)) -> Looks:
    return Looks(np.array(effect), INFORMATION, np.array(null))


def test_changing_means_agree_with_a_bivariate_normal() -> None:
    means, rho = np.array([0.3, 2.0]), np.sqrt(10 / 25)
    exits = exits_with_means(INFORMATION, UPPER, None, means)
    none = multivariate_normal(means, [[1, rho], [rho, 1]]).cdf(UPPER)
    assert exits.power == pytest.approx(1 - none, abs=1e-6)
    assert exits.upper[0] == pytest.approx(norm.sf(2.9 - 0.3))


def test_a_constant_effect_is_the_canonical_trial() -> None:
    found = stopping(looks((0.4, 0.4)), UPPER)
    assert found.upper == pytest.approx(exit_probabilities(INFORMATION, UPPER, None, 0.4 * 5.0).upper)


def test_an_effect_that_comes_late_stops_fewer_trials_early() -> None:
    assert stopping(looks((0.1, 0.4)), UPPER).upper[0] < stopping(looks((0.4, 0.4)), UPPER).upper[0]


def test_the_null_variance_scales_the_bounds() -> None:
    wide = looks(null=(12.0, 30.0))
    exits = stopping(wide, UPPER)
    assert exits.upper[0] == pytest.approx(norm.sf(2.9 * np.sqrt(10 / 12) - 0.1 * np.sqrt(10)))
    unscaled, first = stopping(wide, UPPER, null_variance="no_look"), stopping(wide, UPPER, null_variance="first_look")
    assert unscaled.upper[0] == pytest.approx(norm.sf(2.9 - 0.1 * np.sqrt(10)))
    assert first.upper.tolist() == [exits.upper[0], unscaled.upper[1]]
    assert stopping_under_null(wide, UPPER).power == pytest.approx(exit_probabilities([12, 30], UPPER, None, 0).power)


def test_futility_bounds_spend_what_they_are_told_to() -> None:
    means = np.array([0.5, 3.0])
    lower = futility_bounds(INFORMATION, UPPER, means, [0.02, 0.1])
    assert exits_with_means(INFORMATION, UPPER, lower, means).lower.cumsum() == pytest.approx([0.02, 0.1])


def test_a_look_without_a_bound_leaves_its_error_to_the_next() -> None:
    means = np.array([0.5, 3.0])
    lower = futility_bounds(INFORMATION, UPPER, means, [0.02, 0.1], tested=[False, True])
    assert lower[0] == -np.inf
    assert exits_with_means(INFORMATION, UPPER, lower, means).lower[1] == pytest.approx(0.1)


def test_own_futility_bounds_are_those_of_a_design_with_that_power() -> None:
    t, spending = [0.5, 1.0], (Spending(), Spending("pocock"))
    bounds = spending_both(t, 0.025, 0.15, spending)
    means = bounds.drift * np.sqrt(t)
    lower, beta = own_futility_bounds(t, bounds.efficacy, means, lambda total: spending[1].spent(t, total))
    assert beta == pytest.approx(0.15, abs=1e-7)
    assert lower == pytest.approx(bounds.futility, abs=1e-6)


@pytest.mark.parametrize("binding", [False, True])
def test_null_spending_bounds_spend_both_errors_under_the_null(binding: Any) -> None:
    above, below = [0.005, 0.025], [0.1, 0.6]
    upper, lower = null_spending_bounds([1.0, 2.0], above, below, binding=binding)
    exits = exit_probabilities([1.0, 2.0], upper, lower, 0.0)
    assert exits.lower.cumsum() == pytest.approx(below)
    assert (exits.power == pytest.approx(0.025, abs=1e-9)) is binding


def test_scaling_reaches_the_power() -> None:
    upper = spending_bounds(INFORMATION, 0.025, Spending())
    factor = scale_for_power(looks(), 0.9, lambda each: stopping(each, upper).power)
    assert stopping(looks().scaled(factor), upper).power == pytest.approx(0.9)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="must be as many as the looks"):
        Looks(np.array([0.1]), INFORMATION, INFORMATION)
    with pytest.raises(ValueError, match="null_variance must be every_look"):
        stopping(looks(), UPPER, null_variance=UNKNOWN)
    with pytest.raises(ValueError, match="must not decrease"):
        futility_bounds(INFORMATION, UPPER, [0.0, 0.0], [0.1, 0.05])
    with pytest.raises(ValueError, match="power must be within reach"):
        scale_for_power(looks((0.0, 0.0)), 0.9, lambda each: stopping(each, UPPER).power)
