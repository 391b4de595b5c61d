from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.conditional_power import (
    TwoStage,
    effect_since,
    predicted_statistic,
    predictive_power,
    probability_of_success,
    remainder,
)

INFORMATION, UPPER = np.array([50.0, 80.0, 100.0]), np.array([2.9, 2.3, 2.0])


def by_b_value(z: Any, t: Any, bound: Any, drift: Any) -> Any:
    """Conditional power of one more look, Lan & Wittes 1988: the value B(t) = z sqrt(t) and drift theta sqrt(I)."""
    return norm.sf((bound - z * np.sqrt(t) - drift * (1 - t)) / np.sqrt(1 - t))


def test_one_look_ahead_is_the_b_value() -> None:
    rest = remainder(1, 1.2, [50.0, 100.0], [2.9, 2.0])
    for theta in (0.0, 0.1, 0.3):
        assert rest.power(theta) == pytest.approx(by_b_value(1.2, 0.5, 2.0, theta * 10))


def test_conditional_power_averages_to_the_power() -> None:
    """The mean of the conditional power over z at the look, and the early rejections, are the power."""
    theta, (nodes, weights) = 0.25, np.polynomial.legendre.leggauss(60)
    x, weights = 4.95 * nodes - 2.05, 4.95 * weights  # on (-7, 2.9)
    later = [remainder(1, z, INFORMATION, UPPER).power(theta) for z in x]
    mean = float(weights @ (norm.pdf(x - theta * np.sqrt(50)) * later)) + norm.sf(2.9 - theta * np.sqrt(50))
    assert mean == pytest.approx(exit_probabilities(INFORMATION, UPPER, None, theta * 10).power, abs=1e-8)


def test_a_constant_effect_is_the_effect_since_any_look() -> None:
    assert effect_since([0.3, 0.3, 0.3], 1, INFORMATION) == pytest.approx([0.3, 0.3])
    assert effect_since([0.1, 0.3, 0.3], 1, INFORMATION)[0] == pytest.approx((0.3 * 80 - 0.1 * 50) / 30)


def test_more_information_with_the_planned_weights_gives_more_power_and_the_same_error() -> None:
    rest = remainder(1, 1.0, [50.0, 100.0], [2.9, 2.0])
    larger = rest.at_information([200.0])
    assert larger.power(0.2) > rest.power(0.2)
    assert larger.power(0.0) == pytest.approx(rest.power(0.0))


def test_a_prior_at_one_effect_predicts_the_conditional_power() -> None:
    found = predictive_power(1, 1.2, INFORMATION, UPPER, None, ([0.2], [1.0])).sum()
    assert found == pytest.approx(remainder(1, 1.2, INFORMATION, UPPER).power(0.2))


def test_success_averages_the_power_over_the_prior() -> None:
    powers = [exit_probabilities(INFORMATION, UPPER, None, theta * 10).power for theta in (0.1, 0.3)]
    assert probability_of_success(INFORMATION, UPPER, None, ([0.1, 0.3], [0.25, 0.75])) == pytest.approx(
        np.dot([0.25, 0.75], powers)
    )
    after = probability_of_success(INFORMATION, UPPER, None, ([0.3], [1.0]), look=1)
    exits = exit_probabilities(INFORMATION, UPPER, None, 3.0)
    assert after == pytest.approx(exits.upper[1:].sum() / (1 - exits.upper[0]))


def test_the_predicted_median_of_a_known_effect() -> None:
    found = predicted_statistic(1.0, (50.0, 100.0), ([0.2], [1.0]), 0.5)
    assert found == pytest.approx((np.sqrt(50) + 0.2 * 50) / 10)


def test_all_rules_of_two_stages_agree_where_they_should() -> None:
    trial = TwoStage(50.0, 100.0, (2.9, 2.0))
    assert trial.weighted(1.0) == pytest.approx(trial.sufficient(1.0, 50.0))
    assert trial.sufficient(1.0, 200.0) != pytest.approx(trial.weighted(1.0))
    assert trial.conditional_power(1.0, 50.0, trial.weighted, 0.2) == pytest.approx(
        remainder(1, 1.0, [50.0, 100.0], [2.9, 2.0]).power(0.2)
    )


def test_fishers_product_is_at_its_bound() -> None:
    trial = TwoStage(50.0, 100.0, (2.9, norm.isf(0.025)))
    p1, p2 = norm.sf(1.0), norm.sf(trial.fisher(1.0))
    assert -2 * np.log(p1 * p2) == pytest.approx(11.143287, abs=1e-5)  # chi-square with 4 degrees, upper 2.5 %


def test_a_second_stage_is_resized_in_the_zone_only() -> None:
    trial = TwoStage(50.0, 100.0, (2.9, 2.0))
    rule, theta = trial.weighted, 1.4 / np.sqrt(50)
    wanted = trial.resized(1.4, 0.9, rule)
    assert trial.conditional_power(1.4, wanted, rule) == pytest.approx(0.9)
    planned = trial.conditional_power(1.4, 50.0, rule)
    inside, outside = (planned - 0.01, planned + 0.01), (planned + 0.01, 0.99)
    assert trial.promising_zone(inside, 1.4, 0.9, rule, theta, 1e6) == pytest.approx(50 + wanted)
    assert trial.promising_zone(inside, 1.4, 0.9, rule, theta, 120.0) == 120.0
    assert trial.promising_zone(outside, 1.4, 0.9, rule, theta, 1e6) == 100.0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="look must be from 1 to 2"):
        remainder(3, 1.0, INFORMATION, UPPER)
    with pytest.raises(ValueError, match="prior must be weights"):
        predictive_power(1, 1.0, INFORMATION, UPPER, None, ([0.0], [-1.0]))
    with pytest.raises(ValueError, match="first must be above 0"):
        TwoStage(100.0, 50.0, (2.0, 2.0))
    with pytest.raises(ValueError, match="information must be above 0 and grow"):
        predicted_statistic(1.0, (50.0, 40.0), ([0.0], [1.0]), 0.5)
