"""Conjugate priors and mixtures: closed forms, invariants, simulation and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis import bayes
from medtwin.trials.analysis.bayes import Beta, Gamma, Mixture, Normal


def test_posteriors_by_hand() -> None:
    assert Beta(1, 2).after(3, 10)[0] == Beta(4, 9)
    assert Gamma(2, 4).after(10, 30)[0] == Gamma(12, 34)
    found = Normal(0, 1).after(1.0, 1.0)[0]
    assert [found.mean, found.sd] == pytest.approx([0.5, math.sqrt(0.5)])


def test_two_looks_are_one() -> None:
    prior = bayes.mixture_of([0.5, 0.3, 0.2], [6, 12, 1], [18, 30, 1])
    once, twice = prior.after(9, 20), prior.after(4, 12).after(5, 8)
    assert twice.weights == pytest.approx(once.weights)
    assert twice.mean == pytest.approx(once.mean)


def test_a_vague_part_takes_over_in_conflict() -> None:
    prior = bayes.mixture_of([0.8, 0.2], [20, 1], [80, 1])
    assert prior.after(4, 20).weights[1] < 0.2 < 0.8 < prior.after(16, 20).weights[1]
    assert prior.after(16, 20).mean > Beta(20, 80).after(16, 20)[0].mean


def test_better_by_normals_in_closed_form() -> None:
    one, other = Normal(0.4, 0.2), Normal(0.1, 0.3)
    assert bayes.probability_better(one, other, 0.1) == pytest.approx(norm.cdf(0.2 / math.hypot(0.2, 0.3)), abs=1e-10)


def test_better_by_symmetry_and_by_simulation() -> None:
    assert bayes.probability_better(Beta(5, 7), Beta(5, 7)) == pytest.approx(0.5)
    both = bayes.probability_better(Beta(32, 20), Beta(21, 31)), bayes.probability_better(Beta(21, 31), Beta(32, 20))
    assert sum(both) == pytest.approx(1)
    rng = np.random.default_rng(2)
    share = np.mean(rng.gamma(12, 1 / 30, 200_000) > 1.2 * rng.gamma(9, 1 / 30, 200_000))
    assert bayes.probability_ratio_above(Gamma(12, 30), Gamma(9, 30), 1.2) == pytest.approx(share, abs=0.005)


def test_a_narrow_posterior_is_not_missed() -> None:
    assert bayes.expectation(Beta(3e6, 7e6), lambda _: 1.0) == pytest.approx(1)
    assert bayes.expectation(Normal(1e4, 1e-3), lambda at: at) == pytest.approx(1e4)


def test_assurance_by_quadrature_and_in_closed_form() -> None:
    prior, se = Normal(0.3, 0.15), math.sqrt(0.02)
    by_power = bayes.assurance(prior, lambda effect: float(norm.sf(norm.isf(0.025) - effect / se)))
    assert bayes.normal_assurance(prior, se) == pytest.approx(by_power, abs=1e-10)
    assert bayes.normal_assurance(Normal(0.3, 1e-9), se) == pytest.approx(norm.sf(norm.isf(0.025) - 0.3 / se))


def test_predictive_probabilities() -> None:
    assert Beta(1, 1).predict(4) == pytest.approx([0.2] * 5)
    assert bayes.rate_predictive_probability(Beta(1, 1), 4, least_events=3) == pytest.approx(0.4)
    assert Gamma(1, 1).predict(1, 200).sum() == pytest.approx(1)
    found = bayes.two_arm_predictive_probability(Beta(1, 1), Beta(1, 1), (1, 1), lambda i, j: i > j)
    assert found == pytest.approx(0.25)


def test_limits_and_sizes() -> None:
    low, high = bayes.credible_interval(Mixture((1.0,), (Beta(3, 9),)))
    assert Beta(3, 9).below(low) == pytest.approx(0.025)
    assert Beta(3, 9).above(high) == pytest.approx(0.025)
    assert bayes.effective_sample_size(Beta(3, 9), "beta") == pytest.approx(12)
    assert bayes.effective_sample_size(Gamma(3, 9), "gamma") == pytest.approx(9)
    assert Mixture((0.5, 0.5), (Normal(-1, 1), Normal(1, 1))).variance == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Beta(0, 1), "a and b must be above 0"),
        (lambda: Beta(1, 1).after(5, 4), "events must be between"),
        (lambda: Mixture((0.5, 0.4), (Beta(1, 1), Beta(1, 2))), "shares of 1"),
        (lambda: Mixture((1.0,), (Beta(1, 1), Beta(1, 2))), "one for each of 2"),
        (lambda: bayes.rate_predictive_probability(Beta(1, 1), 4), "success or least_events"),
        (lambda: bayes.credible_interval(Beta(1, 1), 95), "level must be between"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
