from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.boundaries import cumulative_bounds, spending_bounds
from medtwin.trials.design.conditional_power import remainder
from medtwin.trials.design.repeated_intervals import (
    AdaptedTrial,
    repeated_inference,
    stagewise_inference,
    stagewise_probability,
)
from medtwin.trials.design.spending import Spending

RATES = np.array([0.5, 1.0])
INFORMATION = 60 * RATES


def bounds_at(alpha: Any) -> Any:
    return spending_bounds(RATES, alpha, Spending())


def test_one_look_is_the_usual_interval() -> None:
    fixed = stagewise_inference(1, 2.2, [60.0], [1.96])
    spread = 1 / np.sqrt(60)
    assert fixed.p_value == pytest.approx(norm.sf(2.2))
    assert (fixed.lower, fixed.estimate, fixed.upper) == pytest.approx(
        ((2.2 - norm.isf(0.025)) * spread, 2.2 * spread, (2.2 + norm.isf(0.025)) * spread)
    )


def test_at_the_bound_the_lower_limits_are_0() -> None:
    upper = bounds_at(0.025)
    assert repeated_inference(2, float(upper[1]), INFORMATION, bounds_at).lower == pytest.approx(0.0, abs=1e-12)
    assert repeated_inference(2, float(upper[1]), INFORMATION, bounds_at).p_value == pytest.approx(0.025, abs=1e-8)
    assert stagewise_inference(2, float(upper[1]), INFORMATION, upper).lower == pytest.approx(0.0, abs=1e-8)
    assert stagewise_inference(2, float(upper[1]), INFORMATION, upper).p_value == pytest.approx(0.025, abs=1e-8)


def test_the_repeated_interval_is_wider_than_the_naive_one() -> None:
    found = repeated_inference(1, 2.5, INFORMATION, bounds_at)
    assert found.upper - found.lower > 2 * norm.isf(0.025) / np.sqrt(30)
    assert found.level == pytest.approx(0.95)


def test_stagewise_limits_cover_at_their_level() -> None:
    """At the lower limit, an outcome as extreme has probability alpha; at the estimate, one half."""
    upper = bounds_at(0.025)
    found = stagewise_inference(2, 2.4, INFORMATION, upper)
    for theta, level in ((found.lower, 0.025), (found.estimate, 0.5), (found.upper, 0.975)):
        assert stagewise_probability(2, 2.4, INFORMATION, upper, theta) == pytest.approx(level, abs=1e-8)


def test_stopping_early_is_more_extreme_than_any_later_outcome() -> None:
    upper = bounds_at(0.025)
    early = stagewise_inference(1, float(upper[0]) + 0.01, INFORMATION, upper).p_value
    assert early < stagewise_inference(2, 4.0, INFORMATION, upper).p_value


def adapted(second: tuple[float, ...] = (30.0,), z2: float = 1.5) -> AdaptedTrial:
    return AdaptedTrial(1, 1.4, INFORMATION, bounds_at(0.025), 1, z2, np.array(second))


def test_a_trial_that_was_not_changed_keeps_its_inference() -> None:
    trial = adapted()
    total = (1.4 * np.sqrt(30) + 1.5 * np.sqrt(30)) / np.sqrt(60)
    plain = stagewise_inference(2, float(total), INFORMATION, bounds_at(0.025))
    found = trial.inference(trial.rest.upper)
    for name in ("p_value", "estimate", "lower", "upper"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=1e-7)


def test_an_enlarged_trial_rejects_where_its_interval_excludes_0() -> None:
    trial = adapted(second=(90.0,))
    critical = norm.isf(trial.conditional_error)
    for z2, rejected in ((critical + 0.01, True), (critical - 0.01, False)):
        found = adapted((90.0,), float(z2)).inference(np.array([critical]))
        assert (found.lower > 0) is rejected
        assert (found.p_value < 0.025) is rejected


def test_the_repeated_interval_after_adaptation_is_dual_to_the_adaptive_test() -> None:
    def second(error: Any) -> Any:
        return cumulative_bounds([90.0], [error])

    critical = float(norm.isf(adapted((90.0,)).conditional_error))
    found = adapted((90.0,), critical).repeated_inference(bounds_at, second)
    assert found.lower == pytest.approx(0.0, abs=1e-8)
    assert found.p_value == pytest.approx(0.025, abs=1e-7)
    assert found.lower < found.estimate < found.upper


def test_the_conditional_error_is_that_of_the_rest() -> None:
    assert adapted().conditional_error == pytest.approx(remainder(1, 1.4, INFORMATION, bounds_at(0.025)).power(0.0))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_an_alpha_that_is_not_one_sided_is_refused(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha must be one-sided"):
        stagewise_inference(1, 2.0, INFORMATION, bounds_at(0.025), alpha)
    with pytest.raises(ValueError, match="alpha must be one-sided"):
        repeated_inference(1, 2.0, INFORMATION, bounds_at, alpha)
