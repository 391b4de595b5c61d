from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.enrolment.accrual import (
    Accrual,
    EvenAccrual,
    LogNormalLag,
    RampedAccrual,
    Screening,
    Site,
    UniformLag,
    even_arrivals,
    poisson_arrivals,
)
from medtwin.trials.enrolment.draws import TrialDraws

DRAWS = TrialDraws(11, 300)
STEPS = PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 30.0))


def p_value(months: np.ndarray, rate: PiecewiseRate, until: float) -> float:
    """Of counts in months of all trials together against the integrated rate: independent Poisson counts."""
    edges = np.linspace(0, until, 25)
    observed, _ = np.histogram(months, edges)
    expected = len(months) * np.diff(rate.cumulative(edges))
    return float(chi2.sf((((observed - expected) ** 2 / expected).sum()), len(expected)))


def test_arrivals_agree_with_the_integrated_rate() -> None:
    screened = Accrual([Site(STEPS)]).enrol(DRAWS, 300).screened
    assert screened.min(axis=0)[-1] > 9  # no trial is full by then
    assert p_value(screened, STEPS, 9.0) > 0.01
    assert p_value(screened, PiecewiseRate((0.0, 3.0, 6.0), (5.0, 16.0, 30.0)), 9.0) < 1e-4  # a control: 7 % off
    counts = (screened <= 9.0).sum(axis=1)
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(1.0, abs=4 * (2 / 300) ** 0.5)
    even = EvenAccrual([Site(STEPS)]).enrol(DRAWS, 300).screened
    np.testing.assert_allclose(STEPS.cumulative(even), np.tile(np.arange(1, 301), (300, 1)))


def test_sites_share_arrivals_by_their_rates_at_the_time() -> None:
    accrual = Accrual([Site(4.0), Site(8.0, opens=2.0), Site(STEPS, opens=1.0, closes=5.0)])
    found = accrual.enrol(DRAWS, 250)
    for number, site in enumerate(accrual.sites):
        mine = np.where(found.site == number, found.screened, np.inf)
        rate = site.calendar_rate
        assert mine.min() >= site.opens
        finite = mine[np.isfinite(mine)]
        assert finite.max() <= site.closes
        edges = np.array([site.opens, 2.0, 4.0, 5.0]) if number == 2 else np.array([2.0, 5.0, 8.0])
        observed, _ = np.histogram(finite, edges)
        expected = 300 * np.diff(rate.cumulative(edges))
        assert (np.abs(observed - expected) < 4 * np.sqrt(expected)).all()
    assert accrual.screening_rate.at([0.5, 1.5, 3.0, 4.5, 6.0]).tolist() == [4.0, 9.0, 17.0, 27.0, 12.0]


def test_nobody_comes_in_a_pause() -> None:
    accrual = Accrual([Site(10.0)], pauses=[(2.0, 5.0), (4.0, 6.0)])
    screened = accrual.enrol(DRAWS, 60).screened
    assert not ((screened > 2.0) & (screened < 6.0)).any()
    assert accrual.enrolment_months(50) == 9.0
    assert p_value(np.where(screened > 6.0, screened - 4.0, screened), PiecewiseRate((0.0,), (10.0,)), 3.0) > 0.01
    ramped = RampedAccrual(10.0, pauses=[(2.0, 5.0)]).of_size(100)
    assert ramped.enrolment_months(100) == pytest.approx(13.0)


def test_screening_failures_are_those_of_independent_patients() -> None:
    accrual = Accrual([Site(20.0)], screening=Screening(failure=0.3))
    found = accrual.enrol(DRAWS, 100)
    failed = found.failures.sum(axis=1)  # negative binomial: before the 100th suitable patient
    assert failed.mean() == pytest.approx(100 * 0.3 / 0.7, abs=4 * (100 * 0.3 / 0.49 / 300) ** 0.5)
    assert failed.var(ddof=1) == pytest.approx(100 * 0.3 / 0.49, rel=0.35)
    early = np.where(found.screened <= 5.0, found.failures, 0).sum(axis=1)
    assert early.mean() == pytest.approx(5 * 20 * 0.3, abs=0.6)
    assert accrual.enrolment_months(140) == pytest.approx(10.0)
    assert RampedAccrual(10.0, screening=Screening(0.3)).of_size(70).screening_rate.rates == pytest.approx((10.0,))


@pytest.mark.parametrize("lag", [UniformLag(0.5, 2.5), UniformLag(1.0, 1.0), LogNormalLag(1.0, 0.5)])
def test_the_rate_of_enrolment_is_what_is_simulated(lag: UniformLag | LogNormalLag) -> None:
    accrual = Accrual([Site(STEPS), Site(6.0, opens=1.0)], [(3.0, 4.0)], Screening(0.2, lag))
    found = accrual.enrol(DRAWS, 120)
    wait = found.enrolled - found.screened
    assert np.quantile(wait, [0.25, 0.5]) == pytest.approx(lag.quantile([0.25, 0.5]), rel=0.03)
    rate = accrual.enroll_rate(120)
    for month in (2.0, 4.5, 7.0):
        counts = (found.enrolled <= month).sum(axis=1)
        error = counts.std(ddof=1) / 300**0.5
        # at 7 the last patients come, and the expectation of a minimum is below the minimum of expectations
        assert counts.mean() == pytest.approx(float(rate.cumulative(month)), abs=4 * error + 0.3 + 2.5 * (month == 7.0))
    assert float(rate.cumulative(1000.0)) == pytest.approx(120)
    order = found.order
    assert (np.diff(np.take_along_axis(found.enrolled, order, axis=1), axis=1) >= 0).all()


def test_sites_that_vary_between_trials_are_overdispersed() -> None:
    sites = [Site(2.0)] * 4
    alike, varied = (Accrual(sites, site_variation=cv).enrol(DRAWS, 150).screened for cv in (0.0, 0.8))
    counts = (varied <= 6.0).sum(axis=1)
    assert counts.mean() == pytest.approx(48, abs=4 * counts.std() / 300**0.5)
    assert counts.var(ddof=1) == pytest.approx(48 + 4 * (12 * 0.8) ** 2, rel=0.35)
    assert (alike <= 6.0).sum(axis=1).var(ddof=1) == pytest.approx(48, rel=0.35)


def test_the_first_patients_of_a_larger_trial_are_those_of_the_smaller() -> None:
    accrual = Accrual([Site(4.0), Site(8.0, 2.0)], [(3.0, 4.0)], Screening(0.2, UniformLag(0.5, 2.5)), 0.5)
    small, large = accrual.enrol(DRAWS, 50), accrual.enrol(DRAWS, 80)
    for name in ("screened", "enrolled", "site", "failures"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:, :50])
    alone = accrual.enrol(TrialDraws(11, 1, 137), 50)
    np.testing.assert_array_equal(alone.enrolled[0], small.enrolled[137])


def test_patients_who_can_never_come_are_refused_by_number() -> None:
    ends = PiecewiseRate((0.0, 6.0), (10.0, 0.0))
    rng = np.random.default_rng(0)
    message = "num_subjects must be at most the 60 who can ever be enrolled, got 61"
    for call in (
        lambda: poisson_arrivals(rng, (2, 61), ends),
        lambda: even_arrivals(61, ends),
        lambda: Accrual([Site(10.0, closes=6.0)]).enrol(DRAWS, 61),
        lambda: Accrual([Site(20.0, closes=6.0)], screening=Screening(0.5)).of_size(61),
        lambda: Accrual([Site(ends)]).enroll_rate(61),
        lambda: Accrual([Site(ends)]).enrolment_months(61),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert even_arrivals(60, ends)[-1] == 6.0
    assert Accrual([Site(10.0, closes=6.0)]).most == pytest.approx(60)
    with pytest.raises(ValueError, match="num_subjects must be 1 or more, got 0"):
        poisson_arrivals(rng, (2, 0), ends)


def test_refusals() -> None:
    for call, message in (
        (lambda: Accrual([]), "sites must be one or more"),
        (lambda: Accrual([Site(0.0)]), "sites must screen somebody"),
        (lambda: Accrual([Site(1.0, closes=2.0)], [(0.0, 2.0)]), "sites must screen somebody"),
        (lambda: Accrual([Site(1.0)], [(3.0, 3.0)]), "pauses must be pairs"),
        (lambda: RampedAccrual(3.0, pauses=[(3.0,)]), "pauses must be pairs"),
        (lambda: Accrual([Site(1.0)], site_variation=-1.0), "site_variation must be 0 or more"),
        (lambda: Site(-1.0), "rate must be 0 or more"),
        (lambda: Site(1.0, 3.0, 2.0), "opens must be 0 or more and before closes"),
        (lambda: Screening(1.0), "failure must be a share"),
        (lambda: UniformLag(2.0, 1.0), "lag must have"),
        (lambda: LogNormalLag(0.0, 1.0), "median_months must be above 0"),
        (lambda: RampedAccrual(3.0, 4.0), "its ramp at most as long"),
        (lambda: RampedAccrual(3.0).of_size(0), "num_subjects must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
