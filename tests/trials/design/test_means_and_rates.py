"""Power and sizes for means and rates: definitions by simulation or enumeration, published numbers, refusals."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, norm

from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.design.means import MeansTest, anova_power
from medtwin.trials.design.rates import OneRateTest, RatesTest
from medtwin.trials.restricted_rates import restricted_rates


def test_patients_of_a_z_test_are_those_of_the_formula() -> None:
    """2 (z_a + z_b)^2 sd^2 / d^2 in each arm, and (1 + r)^2 / (4 r) times as many with other arms."""
    quantiles = (norm.isf(0.025) + norm.ppf(0.9)) ** 2
    test = MeansTest(0.3, 1.0, known_sd=True)
    assert test.subjects(0.025, 0.9) == pytest.approx(2 * 2 * quantiles / 0.09)
    uneven = MeansTest(0.3, 1.0, allocation_ratio=3.0, known_sd=True)
    assert uneven.subjects(0.025, 0.9) == pytest.approx(16 / 12 * 4 * quantiles / 0.09)


def test_a_t_test_needs_about_two_patients_more() -> None:
    """By z_a^2 / 4 in each arm (Guenther 1981)."""
    z, t = (MeansTest(0.5, 1.0, known_sd=known).subjects(0.025, 0.8) for known in (True, False))
    assert t - z == pytest.approx(norm.isf(0.025) ** 2 / 2, abs=0.05)


def test_the_power_of_a_t_test_is_that_of_simulated_trials() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(0.8, 1.0, (40_000, 12)), rng.normal(0.0, 1.0, (40_000, 24))
    pooled = (11 * x.var(axis=1, ddof=1) + 23 * y.var(axis=1, ddof=1)) / 34
    t = (x.mean(axis=1) - y.mean(axis=1)) / np.sqrt(pooled * (1 / 12 + 1 / 24))
    simulated = (t > 2.0322445).mean()
    test = MeansTest(0.8, 1.0, allocation_ratio=0.5)
    assert test.rejects(36, 0.025) == pytest.approx(simulated, abs=4 * math.sqrt(0.25 / 40_000))


def test_the_drift_rejects_as_often_as_the_test() -> None:
    for known in (True, False):
        test = MeansTest(-0.4, 1.0, known_sd=known)
        drift = test.drift(60, 0.025)
        assert drift < 0
        assert norm.sf(norm.isf(0.025) + drift) == pytest.approx(test.rejects(60, 0.025))
    rates = RatesTest(0.45, 0.3, null=-0.1)
    assert norm.sf(norm.isf(0.025) - rates.drift(200, 0.025)) == pytest.approx(rates.power(200, 0.025))


def test_a_ratio_of_means_against_a_margin() -> None:
    """Equivalent to the difference mu1 - 0.8 mu2, whose variance weighs the control arm with 0.64."""
    ratio = MeansTest(1.0, 0.5, null=0.8, is_ratio=True, known_sd=True)
    expected = ((norm.isf(0.025) + norm.ppf(0.8)) / 0.2) ** 2 * 0.25 * (2 + 0.64 * 2)
    assert ratio.subjects(0.025, 0.8) == pytest.approx(expected)


def test_the_effect_at_a_bound() -> None:
    z = MeansTest(0.5, 2.0, known_sd=True)
    assert z.effect_at(2.0, 64) == pytest.approx(2.0 * 2.0 * 2 / 8)
    t = MeansTest(0.5, 2.0)
    assert t.effect_at(2.0, 64) > z.effect_at(2.0, 64)
    assert t.effect_at(math.inf, 64) == math.inf


def test_analysis_of_variance_of_two_groups_is_a_t_test() -> None:
    found = anova_power(2, 20, 0.5**2 / 2, 1.0, 0.05)
    assert found == pytest.approx(MeansTest(0.5, 1.0).rejects(40, 0.025, both_sides=True), rel=1e-6)


def test_rates_without_a_margin_are_pooled() -> None:
    """Fleiss, Levin & Paik 2003, table 4.3 without continuity correction, by its formula."""
    pooled = 0.375
    top = norm.isf(0.025) * math.sqrt(2 * pooled * 0.625) + norm.ppf(0.8) * math.sqrt(0.45 * 0.55 + 0.3 * 0.7)
    test = RatesTest(0.45, 0.3)
    assert test.null_rates == pytest.approx((pooled, pooled))
    assert test.subjects(0.025, 0.8) == pytest.approx(2 * (top / 0.15) ** 2)
    assert test.power(test.subjects(0.025, 0.8), 0.025) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("scale", "null"), [("difference", -0.12), ("difference", 0.2), ("ratio", 0.7), ("ratio", 1.8), ("odds_ratio", 2.5)]
)
@pytest.mark.parametrize("allocation", [1.0, 2.5])
def test_restricted_rates_have_the_greatest_likelihood(scale: str, null: float, allocation: float) -> None:
    """Against a search along the line of the null."""
    p1, p2 = 0.35, 0.42

    def experimental(control: float) -> float:
        if scale == "difference":
            return control + null
        if scale == "ratio":
            return control * null
        return null * control / (1 + control * (null - 1))

    def likelihood(control: float) -> float:
        x = experimental(control)
        if not (0 < x < 1 and 0 < control < 1):
            return -math.inf
        first = p1 * math.log(x) + (1 - p1) * math.log(1 - x)
        return allocation * first + p2 * math.log(control) + (1 - p2) * math.log(1 - control)

    best = max(np.linspace(0.001, 0.999, 19_961), key=likelihood)
    found = restricted_rates((p1, p2), null, scale=scale, allocation_ratio=allocation)  # type: ignore[arg-type]
    assert found == pytest.approx((experimental(float(best)), float(best)), abs=2e-4)


def test_the_exact_binomial_test_keeps_its_error() -> None:
    for subjects, null in product((10, 25, 60), (0.1, 0.4)):
        assert OneRateTest(0.6, null).exact_power(subjects, 0.05) > 0.05
        assert OneRateTest(null + 1e-12, null).exact_power(subjects, 0.05) <= 0.05 + 1e-9
        assert OneRateTest(null - 1e-12, null).exact_power(subjects, 0.05) <= 0.05 + 1e-9
    found = OneRateTest(0.4, 0.2).exact_subjects(0.05, 0.8)
    assert found == 35
    assert binom.sf(11, 35, 0.2) < 0.05 < binom.sf(10, 35, 0.2)
    assert binom.sf(11, 35, 0.4) >= 0.8 > OneRateTest(0.4, 0.2).exact_power(34, 0.05)


def test_an_odds_ratio_needs_as_many_as_its_wald_test() -> None:
    """Chow et al. 2018, example 4.6.3's formula."""
    effect = math.log(0.4 / 0.6 / (0.25 / 0.75))
    per_arm = ((norm.isf(0.025) + norm.ppf(0.8)) / effect) ** 2 * (1 / (0.4 * 0.6) + 1 / (0.25 * 0.75))
    assert LogRatesTest(0.4, 0.25, scale="odds_ratio").subjects(0.025, 0.8) == pytest.approx(2 * per_arm)
    other = LogRatesTest(0.4, 0.25, scale="odds_ratio", null_variance=True)
    assert other.subjects(0.025, 0.8) != pytest.approx(2 * per_arm, rel=1e-3)


def test_power_falls_to_less_than_alpha_where_the_null_deviation_is_the_larger() -> None:
    test = RatesTest(0.9, 0.3)
    few = [test.power(subjects, 1e-4) for subjects in (0.5, 1.0, 2.0, 4.0)]
    assert few == sorted(few)
    assert few[0] < 1e-4
    assert test.drift(1.0, 1e-4) < 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MeansTest(0.5, 0.0), "sd must be above 0"),
        (lambda: MeansTest(0.5, 1.0, groups=3), "groups must be 1 or 2"),
        (lambda: MeansTest(0.5, 1.0, is_ratio=True), "null above 0"),
        (lambda: MeansTest(0.5, 1.0, null=0.5).subjects(0.025, 0.8), "effect must differ"),
        (lambda: RatesTest(1.2, 0.3), "rates must be between 0 and 1"),
        (lambda: RatesTest(0.4, 0.3, null=1.5), "difference between -1 and 1"),
        (lambda: RatesTest(0.4, 0.3, null=-1.0, scale="ratio"), "ratio above 0"),
        (lambda: RatesTest(0.4, 0.4).subjects(0.025, 0.8), "must differ"),
        (lambda: OneRateTest(0.4, 0.4).subjects(0.025, 0.8), "must differ"),
        (lambda: restricted_rates((0.4, 0.4), 0.0, allocation_ratio=0.0), "allocation_ratio must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
