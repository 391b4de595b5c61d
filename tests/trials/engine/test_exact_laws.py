"""What the patient level is compared with: the exact power of tests of rates and of analyses of covariance."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, norm

from medtwin.trials.analysis.batched.ancova import analyses_of_covariance
from medtwin.trials.analysis.batched.rates import Counts, miettinen_nurminen_z
from medtwin.trials.analysis.rates import miettinen_nurminen_test
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.rates import RatesTest
from medtwin.trials.engine.exact_rates import crossing_probability, score_test_mean
from medtwin.trials.engine.response_design import NonInferiority, ResponseDesign
from tests.trials.engine.response_trials import BINDING, PRESSURE, RESPONDS


@pytest.mark.parametrize("null", [0.0, -0.1, 0.15])
@pytest.mark.parametrize("bound", [-0.5, 0.0, 1.0, 1.96, 3.0])
def test_the_least_events_that_cross_are_those_of_all_tables(null: float, bound: float) -> None:
    n, m, rates = 17, 12, (0.45, 0.3)
    total = 0.0
    for a, b in product(range(n + 1), range(m + 1)):
        if miettinen_nurminen_test((a, b), (n, m), null).z >= bound:
            total += binom.pmf(a, n, rates[0]) * binom.pmf(b, m, rates[1])
    assert crossing_probability(rates, (n, m), null, bound) == pytest.approx(total, abs=1e-12)


def test_the_mean_of_a_score_test_is_near_its_normal_approximation_where_there_are_many_patients() -> None:
    near = score_test_mean((0.5, 0.47), 20_000, 1.0, 0.0, 1.96)
    assert near is not None
    assert near == pytest.approx(RatesTest(0.5, 0.47, 0.0).drift(20_000, 0.025), abs=0.02)
    few = score_test_mean((0.8, 0.8), 321, 2.0, -0.15, 2.0143)
    assert few is not None
    assert few - RatesTest(0.8, 0.8, -0.15, allocation_ratio=2.0).drift(321, float(norm.sf(2.0143))) > 0.03
    assert score_test_mean((0.999, 0.001), 400, 1.0, 0.0, 0.0) is None


def test_trials_reject_as_often_as_all_tables_say() -> None:
    """The control: the normal approximation, which the same trials contradict."""
    rates, null, bound, trials = (0.8, 0.8), -0.15, 2.0143, 200_000
    rng = np.random.default_rng(3)
    control = 107 + rng.integers(-1, 2, trials)
    sizes = 321 - control, control
    events = rng.binomial(sizes[0], rates[0]), rng.binomial(sizes[1], rates[1])
    share = float(np.mean(miettinen_nurminen_z(Counts.of(events, sizes), null) >= bound))
    error = math.sqrt(share * (1 - share) / trials)
    mean = score_test_mean(rates, 321, 2.0, null, bound)
    assert mean is not None
    assert abs(share - norm.sf(bound - mean)) < 4 * error
    normal = RatesTest(*rates, null, allocation_ratio=2.0).drift(321, float(norm.sf(bound)))
    assert abs(share - norm.sf(bound - normal)) > 4 * error


def power_of_covariance(trials: int, n: int, shift: float, seed: int) -> tuple[float, float]:
    """Share of trials that an analysis of covariance rejects, and its Monte-Carlo error."""
    rng = np.random.default_rng(seed)
    x, arm = rng.standard_normal((trials, n)), np.arange(n) % 2 == 1
    y = 2.0 * x + shift * arm + rng.standard_normal((trials, n))
    found = analyses_of_covariance(y, np.broadcast_to(arm, y.shape), x[..., None])
    share = float(np.mean(found.z() >= norm.isf(0.025)))
    return share, math.sqrt(share * (1 - share) / trials)


@pytest.mark.parametrize("n", [16, 34])
def test_the_power_of_an_analysis_of_covariance(n: int) -> None:
    share, error = power_of_covariance(20_000, n, 1.0, 7)
    said = MeansTest(1.0, 1.0, num_covariates=1).rejects(n, 0.025)
    assert abs(share - said) < 4 * error
    unadjusted = MeansTest(1.0, 1.0).rejects(n, 0.025)  # the control: a t test that knew the slope
    assert unadjusted - share > 2 * error


def test_a_futility_bound_is_moved_by_as_much_as_the_means_differ() -> None:
    design = ResponseDesign(BINDING, PRESSURE, fixed=40)
    upper, lower = design.bounds.efficacy[0], design.bounds.futility[0]
    shift = design.futility_shift(-8.0, 20, upper, lower)
    below = norm.cdf(lower + shift - design.mean_at_bound(-8.0, 20, upper))
    assert below == pytest.approx(1 - MeansTest(-8.0, 12.0).rejects(20, float(norm.sf(lower))), abs=1e-9)
    assert abs(shift) > 0.01
    assert design.futility_shift(-8.0, 20, upper, -math.inf) == 0.0


def test_the_side_of_a_rate_does_not_matter() -> None:
    """Events that are bad, and their absence that is good."""
    margin = NonInferiority(0.1)
    good = ResponseDesign(BINDING, RESPONDS, margin, fixed=100)
    wanted = score_test_mean((0.5, 0.3), 100, 1.0, -0.1, 2.0)
    assert good.mean_at_bound(0.2, 100, 2.0) == wanted
    fails = replace(RESPONDS, control=0.7, effect=-0.2, higher_is_better=False)
    bad = ResponseDesign(BINDING, fails, margin, fixed=100)
    assert bad.mean_at_bound(-0.2, 100, 2.0) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("options", [{"groups": 1}, {"known_sd": True}, {"is_ratio": True, "null": 1.0}])
def test_covariates_are_for_a_t_test_of_two_means(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="num_covariates must be 0 or more"):
        MeansTest(0.5, 1.0, num_covariates=1, **options)
