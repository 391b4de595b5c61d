"""Analyses of trials with stages: against rpact, by hand, and by what must hold."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm, t

from medtwin.trials.adaptive.combined_tests import FisherTest, GroupSequentialTest, InverseNormalTest
from medtwin.trials.adaptive.planned_effects import effective_sizes, rate_effect
from medtwin.trials.adaptive.trial_analysis import TrialAnalysis
from medtwin.trials.analysis.stage_data import LogRankData, MeansData, RatesData, Sample
from medtwin.trials.design.boundaries import shaped_bounds, spending_bounds
from medtwin.trials.design.combination import fisher_design
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.survival_size import effect_per_event

MEANS = MeansData(Sample([60, 80], [1.4, 1.6], [1.9, 2.1]), Sample([62, 78], [0.9, 1.1], [2, 1.8]))
RATES = RatesData([25, 33], [50, 60], [15, 20], [52, 58])
SURVIVAL = LogRankData.from_cumulative([75, 150], [1.4, 2.3], [1, 1])
HALVES, THIRDS = np.array([0.5, 1.0]), np.array([1, 2, 3]) / 3


def lan_demets(alpha: Any) -> Any:
    return spending_bounds(HALVES, alpha, Spending())


def obrien_fleming(alpha: Any) -> Any:
    return shaped_bounds(THIRDS, alpha, 0.0)


def fisher(alpha: Any) -> Any:
    return fisher_design([1, 2], alpha)


SEQUENTIAL, COMBINED = GroupSequentialTest(HALVES, lan_demets), InverseNormalTest(HALVES, lan_demets)
FISHER = FisherTest(fisher(0.025), fisher)


@pytest.mark.parametrize(
    ("test", "data", "p_value", "estimate", "lower", "upper"),
    [
        (COMBINED, MEANS, 0.01751022987, 0.4949041138, 0.03494474531, 0.95339985464),
        (COMBINED, RATES, 0.002202909376, 0.2005311021, 0.06659667188, 0.32993213035),
        (COMBINED, SURVIVAL, 0.01149212771, np.log(1.453389213), np.log(1.053265305), np.log(2.002910991)),
        (SEQUENTIAL, MEANS, 0.01657151264, 0.4987096004, 0.04002349868, 0.95623035047),
        (SEQUENTIAL, RATES, 0.002182172819, 0.1999848245, 0.06613662996, 0.32941771250),
    ],
)
def test_final_inference_of_rpact(test: Any, data: Any, p_value: Any, estimate: Any, lower: Any, upper: Any) -> None:
    found = TrialAnalysis(test, data).final_inference()
    assert found.look == 2
    assert [found.p_value, found.estimate, found.lower, found.upper] == pytest.approx(
        [p_value, estimate, lower, upper], abs=2e-6
    )


def test_repeated_inference_of_rpact() -> None:
    found = TrialAnalysis(COMBINED, MEANS)
    assert found.repeated_p_values == pytest.approx([0.215526196084976, 0.0171394468631744], abs=1e-6)
    lower, upper = found.repeated_interval
    assert lower == pytest.approx([-0.568721390458317, 0.0365707215172019], abs=1e-6)
    assert upper == pytest.approx([1.56872139045831, 0.963429335176413], abs=1e-6)


@pytest.mark.parametrize(
    ("futility", "binding", "repeated", "errors"),
    [
        ([0.5, 0.5], True, -0.332691447, [0.0367044082, 0.1561516985]),
        ([0.5, 1.0], False, -0.33546522, [0.0298624096, 0.1238750935]),
    ],
)
def test_futility_of_rpact(futility: Any, binding: Any, repeated: Any, errors: Any) -> None:
    data = MeansData(Sample([30, 30], [1.6, 1.8], [2, 2]), Sample([30, 30], [1.2, 1.0], [2, 2]))

    def bounds(alpha: Any) -> Any:
        return spending_bounds(THIRDS, alpha, Spending(), lower=[*futility, -np.inf] if binding else None)

    found = TrialAnalysis(InverseNormalTest(THIRDS, bounds, futility=np.array(futility), binding=binding), data)
    assert found.conditional_errors[:2] == pytest.approx(errors, abs=1e-7)
    assert found.repeated_interval[0][1] == pytest.approx(repeated, abs=1e-4)
    assert found.actions == ["continue", "continue"]
    weak = MeansData(Sample([30], [1.0], [2]), Sample([30], [1.2], [2]))
    stopped = TrialAnalysis(found.test, weak)
    assert stopped.actions == ["accept and stop"]
    assert stopped.final_inference().estimate == pytest.approx(-0.2)
    assert bool(stopped.conditional_errors[0] == 0.0) is binding


def test_limits_of_binding_futility_obey_the_earlier_look() -> None:
    """An effect that the first look would have stopped for is not rejected at the second."""
    data = MeansData(Sample([30, 300], [1.0, 2.0], [2, 2]), Sample([30, 300], [1.3, 1.0], [2, 2]))
    bounds = np.array([3.0, 2.0])
    free = InverseNormalTest(HALVES, None, bounds=bounds)
    bound = InverseNormalTest(HALVES, None, bounds=bounds, futility=np.array([0.0]), binding=True)
    lower = TrialAnalysis(bound, data).repeated_interval[0][1]
    assert lower == pytest.approx(-0.3, abs=1e-9)
    assert TrialAnalysis(free, data).repeated_interval[0][1] > lower


@pytest.mark.parametrize(
    ("test", "planned", "expected"),
    [
        (InverseNormalTest(THIRDS, obrien_fleming), [60, 60], [0.538714133566418, 0.928530151472147]),
        (InverseNormalTest(THIRDS, obrien_fleming), [60, 90], [0.5387141336, 0.9606932528]),
        (GroupSequentialTest(THIRDS, obrien_fleming), [60, 60], [0.5387141336, 0.9285301515]),
    ],
)
def test_conditional_power_of_means_of_rpact(test: Any, planned: Any, expected: Any) -> None:
    found = TrialAnalysis(test, MeansData(Sample([30], [2.1], [2.2]), Sample([30], [1.2], [2])))
    assert found.conditional_errors[0] == pytest.approx(0.1084935605, abs=1e-8)
    assert found.conditional_power(1 / 2, effective_sizes(planned)) == pytest.approx(expected, abs=1e-7)


def test_conditional_power_of_rates_and_hazards_of_rpact() -> None:
    test = InverseNormalTest(THIRDS, obrien_fleming)
    rates = TrialAnalysis(test, RatesData([22], [50], [15], [52]))
    for ratio, expected in ((1.0, [0.3882419424, 0.8306003728]), (2.0, [0.3527344871, 0.7951959882])):
        sizes = effective_sizes([60, 60], ratio)
        effect = rate_effect((0.5, 0.3), 0.0, float(rates.conditional_errors[0]), sizes, ratio)
        assert rates.conditional_power(effect, sizes) == pytest.approx(expected, abs=1e-7)
    events = TrialAnalysis(test, LogRankData([75], [1.4], [1]))
    found = events.conditional_power(effect_per_event(1.5), [60, 60])
    assert found == pytest.approx([0.3082799327, 0.7820145455], abs=1e-7)


def test_conditional_power_of_fishers_product() -> None:
    found = TrialAnalysis(FisherTest(fisher_design([1, 2, 3]), None), MEANS)
    assert found.conditional_power(0.5, effective_sizes([60])) == pytest.approx([0.6663988236], abs=1e-8)
    first = FisherTest(fisher_design([1, 2, 3]), None)
    statistic = -np.log(0.05)
    under_null = first.conditional_power(1, statistic, np.zeros(2))
    assert under_null[-1] == pytest.approx(first.conditional_error(1, statistic), abs=1e-9)
    rng = np.random.default_rng(3)
    p = norm.sf(rng.normal(1.5, 1, size=(100_000, 2)))
    crossed = (0.05 * np.cumprod(p, axis=1) <= first.design.critical[1:]).any(axis=1).mean()
    assert first.conditional_power(1, statistic, [1.5, 1.5])[-1] == pytest.approx(crossed, abs=0.007)


def test_fishers_product_of_rpact() -> None:
    found = TrialAnalysis(FISHER, MEANS)
    assert found.final_p_value == pytest.approx(0.03409190128, abs=1e-9)
    with pytest.raises(ValueError, match="test must be of z statistics"):
        found.final_inference()


@pytest.mark.parametrize(
    ("test", "data"),
    [(FISHER, MEANS), *((test, data) for test in (SEQUENTIAL, COMBINED) for data in (MEANS, RATES, SURVIVAL))],
)
def test_repeated_limits_and_p_values_are_dual_to_the_test(test: Any, data: Any) -> None:
    found = TrialAnalysis(test, data)
    lower, upper = found.repeated_interval
    for k in range(2):
        assert test.statistics(data, lower[k])[k] == pytest.approx(test.critical[k], abs=1e-6)
        assert lower[k] < data.effects[k] < upper[k]
    assert [p <= test.alpha for p in found.repeated_p_values] == (found.statistics >= test.critical).tolist()


@pytest.mark.parametrize("data", [MEANS, RATES, SURVIVAL])
def test_the_mirrored_trial_has_the_mirrored_interval(data: Any) -> None:
    plain, turned = TrialAnalysis(COMBINED, data), TrialAnalysis(COMBINED, data.mirrored)
    np.testing.assert_allclose(turned.repeated_interval[0], -plain.repeated_interval[1], atol=1e-9)
    assert turned.statistics == pytest.approx(-plain.statistics)


def test_a_trial_of_one_look_is_the_usual_test() -> None:
    test = GroupSequentialTest(np.ones(1), lambda alpha: np.array([norm.isf(alpha)]))
    found = TrialAnalysis(test, MeansData(Sample([40], [2.6], [2]), Sample([40], [1.6], [2])))
    error = 2 / np.sqrt(20)
    assert found.repeated_p_values == pytest.approx([t.sf(1 / error, 78)])
    assert found.repeated_interval[0] == pytest.approx([1 - t.isf(0.025, 78) * error])
    assert found.actions == ["reject"]


def test_equal_stages_with_known_variance_need_no_combination() -> None:
    """The inverse normal with the stages' own weights is the pooled z."""
    data = LogRankData([50, 50], [1.0, 2.0], [1, 1])
    combined, pooled = (
        kind(HALVES, lan_demets).statistics(data, 0.2) for kind in (InverseNormalTest, GroupSequentialTest)
    )
    assert combined == pytest.approx(pooled)
    other = LogRankData([30, 70], [1.0, 2.0], [1, 1])
    assert COMBINED.statistics(other, 0.0)[1] != pytest.approx(SEQUENTIAL.statistics(other, 0.0)[1], abs=1e-3)


def test_stages_are_those_that_make_up_the_whole() -> None:
    whole = Sample.from_cumulative(*MEANS.experimental.cumulative)
    for part in ("n", "mean", "sd"):
        assert getattr(whole, part) == pytest.approx(getattr(MEANS.experimental, part))
    total = LogRankData.from_cumulative([75, 150], [1.4, 2.3], [1, 2])
    assert total.cumulative_p_values(0.0) == pytest.approx(norm.sf([1.4, 2.3]))
    assert total.cumulative_sizes == pytest.approx([75, 150])


def test_exact_rates() -> None:
    one = RatesData([10, 14], [25, 30], exact=True)
    assert one.p_values(0.25) == pytest.approx(binom.sf([9, 13], [25, 30], 0.25))
    assert one.mirrored.p_values(-0.25) == pytest.approx(binom.cdf([10, 14], [25, 30], 0.25))
    assert RatesData([3], [3], [0], [3], exact=True).p_values(0.0) == pytest.approx([1 / 20])


def test_wilsons_limits() -> None:
    one = RatesData([15], [25])
    found = [one.score_limit(1, z) for z in (norm.isf(0.025), -norm.isf(0.025))]
    assert found == pytest.approx([0.4073946244, 0.7659670940], abs=1e-6)
    assert [-one.mirrored.score_limit(1, z) for z in (-norm.isf(0.025), norm.isf(0.025))] == pytest.approx(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sample([1], [0.0], [1.0]), "a sample must have n of 2 or more"),
        (lambda: Sample([10, 10], [0.0], [1.0, 1.0]), "a sample must have one number per stage"),
        (lambda: RatesData([11], [10]), "events must be between 0 and n"),
        (lambda: LogRankData([0], [1.0], [1]), "events and allocation_ratio must be above 0"),
        (lambda: GroupSequentialTest(HALVES, lan_demets, 0.6), "alpha must be one-sided"),
        (lambda: GroupSequentialTest(HALVES, None), "bounds must be given"),
        (lambda: TrialAnalysis(GroupSequentialTest(np.ones(1), lan_demets), MEANS), "data must be of at most 1 stages"),
        (lambda: TrialAnalysis(COMBINED, MEANS).conditional_power(0.1, [60]), "planned must be 0 sizes"),
        (lambda: effective_sizes([60], 0.0), "allocation_ratio must be above 0"),
        (lambda: rate_effect((1.0, 0.3), 0.0, 0.1, [15]), "rates must be between 0 and 1"),
    ],
)
def test_refusals(call: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call()
