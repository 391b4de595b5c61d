from __future__ import annotations

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.design.timing import Arm, event_probability, expected_events, time_of_events
from medtwin.trials.outcome.endpoint import FollowedUp
from medtwin.trials.outcome.prognosis import (
    AssumedOutcome,
    PatientPool,
    fit_outcome,
    piecewise_hazard,
    ridge_cox,
    strata_of,
)
from medtwin.trials.population.criteria import Baseline


def table(values: np.ndarray) -> Baseline:
    count = len(values)
    names = [f"x{number}" for number in range(values.shape[1])]
    return Baseline(np.arange(count), names, values, np.array(["F", "M"] * count)[:count])


def course(rate: float, beta: float, count: int, seed: int = 0) -> tuple[Baseline, FollowedUp]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 2))
    time = rng.exponential(1 / (rate * np.exp(beta * x[:, 0])))
    return table(x), FollowedUp(np.minimum(time, 24.0), time <= 24.0)


def test_piecewise_rates_and_their_inverse() -> None:
    rate = PiecewiseRate((0.0, 2.0, 5.0), (0.5, 0.0, 1.0))
    np.testing.assert_allclose(rate.cumulative([0, 1, 2, 4, 6, -1]), [0, 0.5, 1, 1, 2, 0])
    np.testing.assert_allclose(rate.time_at([0, 0.5, 1.0, 1.5, 3.0]), [0, 1, 2, 5.5, 7])
    assert PiecewiseRate((0.0, 1.0), (1.0, 0.0)).time_at([0.5, 1.5]).tolist() == [0.5, np.inf]
    assert PiecewiseRate((0.0,), (0.0,)).time_at([0.0, 1.0]).tolist() == [0.0, np.inf]
    assert PiecewiseRate.of_median(12).cumulative(12.0) == pytest.approx(np.log(2))


def test_the_hazard_by_hand() -> None:
    """One piece: 2 events in 1 + 2 + 3 + 4 months. With risks 1, 1, 2, 2: over 1 + 2 + 6 + 8."""
    followed = FollowedUp(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False]))
    assert piecewise_hazard(followed, np.ones(4), 1).rates == pytest.approx((0.2,))
    assert piecewise_hazard(followed, np.array([1.0, 1, 2, 2]), 1).rates == pytest.approx((2 / 17,))
    two = piecewise_hazard(followed, np.ones(4), 2)  # cut at 2: 1 + 2 + 2 + 2 months, then 1 + 2
    assert two.starts == (0.0, 2.0)
    assert two.rates == pytest.approx((1 / 7, 1 / 3))


def test_the_fit_finds_the_law_it_was_drawn_from() -> None:
    covariates, followed = course(0.02, 0.7, 4000)
    fitted = fit_outcome(covariates, followed, strata_of(covariates.sex), ridge=0.0, max_pieces=1)
    assert fitted.coefficients["x0"] == pytest.approx(0.7, abs=0.1)
    assert fitted.coefficients["x1"] == pytest.approx(0.0, abs=0.1)
    assert fitted.pool.hazard.rates[0] == pytest.approx(0.02, rel=0.1)


def test_a_shuffled_covariate_gets_no_weight_and_few_events_little() -> None:
    covariates, followed = course(0.02, 0.7, 4000)
    shuffled = table(np.random.default_rng(1).permuted(covariates.values, axis=0))
    found = fit_outcome(shuffled, followed, strata_of(shuffled.sex)).coefficients
    assert abs(found["x0"]) < 0.1
    few, course_of_few = course(0.02, 0.7, 40)
    x = (few.values - few.values.mean(axis=0)) / few.values.std(axis=0)
    free, shrunk = (ridge_cox(course_of_few.months, course_of_few.event, x, ridge) for ridge in (0.0, 40.0))
    assert np.linalg.norm(shrunk) < 0.6 * np.linalg.norm(free)


def test_an_extreme_covariate_does_not_extrapolate() -> None:
    covariates, followed = course(0.02, 0.7, 400)
    values = covariates.values.copy()
    values[0, 0] = 1e4
    risk = fit_outcome(table(values), followed, strata_of(covariates.sex)).pool.log_risk
    assert abs(risk).max() < 4


def test_after_the_horizon_nothing_happens() -> None:
    covariates, followed = course(0.02, 0.7, 400)
    hazard = fit_outcome(covariates, followed, strata_of(covariates.sex), horizon_months=24.0).pool.hazard
    assert hazard.starts[-1] == 24.0
    assert hazard.rates[-1] == 0.0


@pytest.mark.parametrize(("num_events", "message"), [(0, "never occurs among the 9"), (4, "occurs only 4 times")])
def test_too_few_events_are_refused(num_events: int, message: str) -> None:
    followed = FollowedUp(np.arange(1.0, 10.0), np.arange(9) < num_events)
    with pytest.raises(ConfigError, match=message):
        fit_outcome(table(np.ones((9, 1))), followed, np.zeros(9, dtype=np.int64))


def test_missing_covariates_take_the_median_and_constant_ones_no_part() -> None:
    followed = FollowedUp(np.arange(1.0, 11.0), np.ones(10, dtype=bool))
    values = np.stack([np.arange(10.0), np.full(10, 3.0), np.full(10, np.nan)], axis=1)
    values[4, 0] = np.nan
    assert table(values).imputed()[4].tolist() == [5.0, 3.0, 0.0]
    assert list(fit_outcome(table(values), followed, np.zeros(10, dtype=np.int64)).coefficients) == ["x0"]


def test_risk_groups_keep_the_mean_risk() -> None:
    log_risk = np.random.default_rng(0).standard_normal(777)
    pool = PatientPool(log_risk, np.zeros(777, dtype=np.int64), PiecewiseRate.of_median(12))
    assert len(pool.risk_groups(100)) == 100
    assert np.mean(pool.risk_groups(100)) == pytest.approx(np.exp(log_risk).mean())
    assert AssumedOutcome(12).pool(np.random.default_rng(0)).risk_groups() == (1.0,)


def test_expected_events_by_hand() -> None:
    """Everyone enrolled at once, hazard .1, no dropout: 1 - exp(-.1 t); with dropout .1 half of 1 - exp(-.2 t)."""
    at_once = PiecewiseRate((0.0,), (1e9,))
    assert event_probability([5], Arm(PiecewiseRate((0.0,), (0.1,))), at_once, 1.0)[0] == pytest.approx(
        1 - np.exp(-0.5), abs=1e-6
    )
    leaving = Arm(PiecewiseRate((0.0,), (0.1,)), 0.1)
    assert event_probability([5], leaving, at_once, 1.0)[0] == pytest.approx((1 - np.exp(-1.0)) / 2, abs=1e-6)
    arms = (leaving.treated(0.5), leaving)
    month = time_of_events([10.0], lambda t: float(expected_events([t], arms, at_once, 100)[0]))[0]
    assert expected_events([month], arms, at_once, 100)[0] == pytest.approx(10.0)
    assert time_of_events([99.0], lambda t: float(expected_events([t], arms, at_once, 100)[0]))[0] == np.inf


def test_what_makes_no_rate_is_refused() -> None:
    for call, message in (
        (lambda: PiecewiseRate((), ()), "as many"),
        (lambda: PiecewiseRate((1.0,), (1.0,)), "begin with 0"),
        (lambda: PiecewiseRate((0.0,), (-1.0,)), "0 or more"),
        (lambda: PiecewiseRate.of_median(0), "above 0"),
        (lambda: dropout_rate(1.0), "share"),
        (lambda: AssumedOutcome(0.0), "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()  # type: ignore[no-untyped-call]
