"""Joint laws of PFS and OS: margins, order, association, what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import expon, kendalltau, kstest

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.outcome.joint import GumbelPfsOs, IllnessDeath, JointLaw, gumbel_exponentials

COUNT = 40_000
CHANGING = GumbelPfsOs(PiecewiseRate((0.0, 4.0), (0.1, 0.06)), PiecewiseRate((0.0, 8.0), (0.03, 0.02)), 2.0)


def rate(value: float) -> PiecewiseRate:
    return PiecewiseRate((0.0,), (value,))


def times(law: JointLaw, seed: int = 1, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    return law.times(source.standard_exponential(count), source.standard_exponential(count), source.random(count))


def proportional(tau: float) -> GumbelPfsOs:
    return GumbelPfsOs.of_kendall(PiecewiseRate.of_median(8.0), PiecewiseRate.of_median(18.0), tau)


@pytest.mark.parametrize(
    "law",
    [
        proportional(0.5),
        proportional(0.9),
        CHANGING,
        GumbelPfsOs(rate(0.1), rate(0.1), 3.0),
        GumbelPfsOs(PiecewiseRate((0.0, 6.0), (0.1, 0.05)), PiecewiseRate((0.0, 6.0), (0.05, 0.025)), 1.5),
    ],
)
def test_margins_are_those_given_and_pfs_comes_first(law: GumbelPfsOs) -> None:
    pfs, os = times(law)
    assert (pfs <= os).all()
    assert kstest(law.pfs_survival(pfs), "uniform").pvalue > 0.001
    assert kstest(law.os_survival(os), "uniform").pvalue > 0.001


def test_another_margin_is_found_out() -> None:
    """The negative control of the test of margins: a hazard five per cent off."""
    pfs, _ = times(CHANGING)
    off = GumbelPfsOs(CHANGING.pfs.scaled(1.05), CHANGING.os, 2.0)
    assert kstest(off.pfs_survival(pfs), "uniform").pvalue < 0.001


@pytest.mark.parametrize("tau", [8 / 18, 0.5, 0.7, 0.9])
def test_kendalls_tau_is_that_of_pfs_and_os(tau: float) -> None:
    law = proportional(tau)
    pfs, os = times(law, count=4000)
    assert law.kendall_tau == pytest.approx(tau, abs=1e-9)
    # its standard error is at most sqrt(2 (1 - tau^2) / n), Kendall & Gibbons 1990
    assert kendalltau(pfs, os)[0] == pytest.approx(tau, abs=4 * math.sqrt(2 * (1 - tau**2) / 4000))
    share = float((pfs < os).mean())
    assert share == pytest.approx(law.progresses, abs=4 * math.sqrt(0.25 / 4000))


def test_the_copula_has_exponential_margins_and_its_tau() -> None:
    source = np.random.default_rng(3)
    draws = source.standard_exponential(COUNT), source.standard_exponential(COUNT), source.random(COUNT)
    x, y = gumbel_exponentials(2.5, *draws)
    assert min(kstest(x, expon.cdf).pvalue, kstest(y, expon.cdf).pvalue) > 0.001
    assert kendalltau(x[:4000], y[:4000])[0] == pytest.approx(0.6, abs=0.04)
    a, b = 0.4, 0.7  # the joint survival function at a point
    theory = math.exp(-((a**2.5 + b**2.5) ** 0.4))
    assert float(((x > a) & (y > b)).mean()) == pytest.approx(theory, abs=0.01)


def test_illness_death_with_constant_hazards_is_known_in_closed_form() -> None:
    """OS is PFS plus, of those who progress, an independent exponential: Fleischer et al. 2009."""
    law = IllnessDeath(rate(0.08), rate(0.02), rate(0.06))
    pfs, os = times(law, count=200_000)
    assert (pfs <= os).all()
    total, share, after = 0.1, 0.8, 0.06
    variance = 1 / total**2 + 2 * share / after**2 - (share / after) ** 2
    assert float(np.corrcoef(pfs, os)[0, 1]) == pytest.approx(1 / total / math.sqrt(variance), abs=0.01)
    assert float(os.mean()) == pytest.approx(1 / total + share / after, rel=0.01)
    t = 10.0
    alive = math.exp(-t * total) + 0.08 * (math.exp(-after * t) - math.exp(-total * t)) / (total - after)
    assert law.os_survival([t])[0] == pytest.approx(alive, abs=1e-12)


@pytest.mark.parametrize("since_progression", [False, True])
def test_illness_death_has_the_survival_it_says(since_progression: bool) -> None:
    law = IllnessDeath(
        PiecewiseRate((0.0, 4.0), (0.1, 0.06)), rate(0.02), PiecewiseRate((0.0, 6.0), (0.05, 0.1)), since_progression
    )
    pfs, os = times(law, count=100_000)
    at = np.array([3.0, 6.0, 12.0, 30.0])
    for share, theory in (((pfs[:, None] > at), law.pfs_survival(at)), ((os[:, None] > at), law.os_survival(at))):
        np.testing.assert_allclose(share.mean(axis=0), theory, atol=4 * 0.5 / math.sqrt(100_000))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="month 0 on death is more frequent"):
        GumbelPfsOs(rate(0.05), rate(0.06))
    with pytest.raises(ValueError, match="month 6 on death is more frequent"):
        GumbelPfsOs(PiecewiseRate((0.0, 6.0), (0.2, 0.01)), rate(0.05), 2.0)
    with pytest.raises(ValueError, match=r"tau must be from 0\.4444"):
        proportional(0.4)
    with pytest.raises(ValueError, match="give theta instead"):
        GumbelPfsOs.of_kendall(CHANGING.pfs, CHANGING.os, 0.6)
    with pytest.raises(ValueError, match="theta must be from 1"):
        GumbelPfsOs(rate(0.1), rate(0.05), 0.9)
    with pytest.raises(ValueError, match="proportional to those of pfs"):
        _ = CHANGING.kendall_tau
    with pytest.raises(ValueError, match="hazards above 0"):
        IllnessDeath(rate(0.0), rate(0.0), rate(0.1))


def test_nobody_who_never_progresses_has_a_time() -> None:
    law = GumbelPfsOs(PiecewiseRate((0.0, 5.0), (0.1, 0.0)), PiecewiseRate((0.0, 5.0), (0.02, 0.0)), 2.0)
    pfs, os = times(law)
    assert np.isinf(pfs).mean() == pytest.approx(math.exp(-0.5), abs=0.01)
    assert np.isinf(os).mean() == pytest.approx(math.exp(-0.1), abs=0.01)
    uneven = GumbelPfsOs(PiecewiseRate((0.0, 5.0), (0.1, 0.0)), PiecewiseRate((0.0, 3.0), (0.02, 0.0)), 2.0)
    pfs, os = times(uneven)
    assert (pfs <= os).all()
    assert np.isinf(pfs).mean() == pytest.approx(math.exp(-0.5), abs=0.01)
