"""Ordered categories, Fisher's exact test and logarithms of ratios: definitions, simulation, identities, refusals."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact, mannwhitneyu, norm

from medtwin.trials.design.fisher_exact import fisher_arms, fisher_power, fisher_subjects
from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.design.ordinal import OrdinalTest
from medtwin.trials.design.rates import OneRateTest, RatesTest

RATES = (0.7, 0.3)


def test_fishers_power_is_that_of_all_tables() -> None:
    sizes, alpha = (9, 7), 0.05
    expected = 0.0
    for x, y in product(range(sizes[0] + 1), range(sizes[1] + 1)):
        p = fisher_exact([[x, sizes[0] - x], [y, sizes[1] - y]]).pvalue
        expected += (p <= alpha) * binom.pmf(x, sizes[0], RATES[0]) * binom.pmf(y, sizes[1], RATES[1])
    assert fisher_power(RATES, sizes, alpha) == pytest.approx(expected, rel=1e-9)


def test_fishers_error_is_kept_and_its_size_lasts() -> None:
    assert all(fisher_power((rate, rate), (12, 15), 0.05) <= 0.05 for rate in (0.1, 0.4, 0.5, 0.9))
    found = fisher_subjects((0.5, 0.2), 0.05, 0.8)
    powers = {n: fisher_power((0.5, 0.2), fisher_arms(n), 0.05) for n in range(found - 6, found + 20)}
    assert powers[found - 1] < 0.8
    assert min(power for n, power in powers.items() if n >= found) >= 0.8
    assert max(power for n, power in powers.items() if n < found) >= 0.8, "fewer may have it by luck"


def test_fisher_needs_more_than_the_normal_test() -> None:
    assert fisher_subjects((0.8, 0.4), 0.05, 0.8, 2.0) > RatesTest(0.8, 0.4, allocation_ratio=2.0).subjects(0.025, 0.8)
    assert fisher_arms(87) == (44, 43)
    assert fisher_arms(90, 2.0) == (60, 30)


def test_two_categories_are_two_rates() -> None:
    """Midranks of two categories are a shift of the rate: the pooled test of two rates."""
    ordinal = OrdinalTest((0.55, 0.45), (0.7, 0.3), allocation_ratio=2.0)
    rates = RatesTest(0.45, 0.3, allocation_ratio=2.0)
    assert ordinal.subjects(0.025, 0.8) == pytest.approx(rates.subjects(0.025, 0.8))
    assert ordinal.power(300, 0.025) == pytest.approx(rates.power(300, 0.025))


def test_the_power_of_the_wilcoxon_test_is_that_of_simulated_trials() -> None:
    test = OrdinalTest((0.1, 0.2, 0.3, 0.4), (0.25, 0.25, 0.3, 0.2))
    rng, arms = np.random.default_rng(3), []
    for shares in (test.experimental, test.control):
        arms.append(rng.choice(4, size=(1500, 60), p=shares))
    p = mannwhitneyu(*arms, axis=1, use_continuity=False, alternative="greater", method="asymptotic").pvalue
    assert test.power(120, 0.025) == pytest.approx((p <= 0.025).mean(), abs=4 * math.sqrt(0.25 / 1500) + 0.01)


def test_the_order_of_the_categories_matters() -> None:
    """A negative control: with the last categories swapped the effect is another."""
    swapped = OrdinalTest((0.55, 0.30, 0.05, 0.10), (0.214, 0.344, 0.191, 0.251))
    assert abs(swapped.subjects(0.025, 0.9) - 66.32) > 1


def test_logarithms_of_ratios() -> None:
    """Per arm (z_a + z_b)^2 [(1 - p1) / p1 + (1 - p2) / p2] / log(ratio)^2."""
    quantiles = (norm.isf(0.025) + norm.ppf(0.9)) ** 2
    per_arm = quantiles * (0.5 / 0.5 + 0.7 / 0.3) / math.log(0.5 / 0.3) ** 2
    test = LogRatesTest(0.5, 0.3)
    assert test.subjects(0.025, 0.9) == pytest.approx(2 * per_arm)
    assert test.power(2 * per_arm, 0.025) == pytest.approx(0.9)
    pooled = LogRatesTest(0.5, 0.3, null_variance=True)
    assert pooled.null_deviation == pytest.approx(math.sqrt(4 * 0.6 / 0.4))


def test_swapping_the_arms_changes_nothing() -> None:
    for null_variance in (False, True):
        one = LogRatesTest(0.4, 0.25, 1.2, "ratio", 2.0, null_variance)
        other = LogRatesTest(0.25, 0.4, 1 / 1.2, "ratio", 0.5, null_variance)
        assert one.subjects(0.025, 0.8) == pytest.approx(other.subjects(0.025, 0.8))


def test_an_exact_size_that_lasts() -> None:
    test = OneRateTest(0.4, 0.2)
    lasting, first = test.lasting_exact_subjects(0.05, 0.8), test.exact_subjects(0.05, 0.8)
    assert lasting > first
    assert all(test.exact_power(n, 0.05) >= 0.8 for n in range(lasting, lasting + 40))
    assert test.exact_power(lasting - 1, 0.05) < 0.8


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OrdinalTest((0.5, 0.5), (0.5, 0.3, 0.2)), "the same two or more categories"),
        (lambda: OrdinalTest((0.5, 0.4), (0.5, 0.5)), "add up to 1"),
        (lambda: OrdinalTest((0.5, 0.5), (0.5, 0.5), 0.0), "allocation_ratio must be above 0"),
        (lambda: OrdinalTest((0.5, 0.5), (0.5, 0.5)).subjects(0.025, 0.8), "must differ"),
        (lambda: LogRatesTest(1.0, 0.5), "rates must be between 0 and 1"),
        (lambda: LogRatesTest(0.4, 0.5, 0.0), "null must be above 0"),
        (lambda: LogRatesTest(0.4, 0.5, scale="difference"), "scale must be"),  # type: ignore[arg-type]
        (lambda: LogRatesTest(0.5, 0.5).subjects(0.025, 0.8), "must differ"),
        (lambda: fisher_power((1.5, 0.5), (5, 5), 0.05), "rates must be between 0 and 1"),
        (lambda: fisher_power((0.5, 0.5), (0, 5), 0.05), "sizes must be 1 or more"),
        (lambda: fisher_subjects((0.5, 0.5), 0.05, 0.8), "must differ"),
        (lambda: fisher_subjects((0.5, 0.4), 0.05, 1.0), "power must be between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
