"""Reference-based imputation: regressions in sequence, random imputation, the jackknife by definition, coverage."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.analysis.mmrm import MMRM
from medtwin.trials.analysis.reference_based import (
    RepeatedOutcome,
    Strategy,
    conditional_means,
    reference_based_effect,
)

Floats = NDArray[np.float64]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def trial(n: int = 40, dropout: float = 0.4, seed: int = 11, effect: float = 2.0) -> RepeatedOutcome:
    """Two arms, three visits and a baseline; an effect that grows; both arms are left for good at random."""
    rng = np.random.default_rng(seed)
    arm = np.arange(n) % 2 == 1
    baseline = rng.normal(size=n)
    y = (
        (0.7 * baseline + rng.normal(size=n))[:, None]
        + rng.normal(size=(n, 3))
        + np.outer(arm, effect * np.arange(1, 4) / 3)
    )
    leaves = rng.random(n) < dropout
    y[leaves, 2] = np.nan
    y[leaves & (rng.random(n) < 0.5), 1] = np.nan
    return RepeatedOutcome.of(y, arm, baseline)


def regressed_in_sequence(outcome: RepeatedOutcome, strategy: Strategy) -> Floats:
    """Imputed visit by visit: each is regressed on arm, baseline and the visits before, among those who were seen.

    For data that end for good that is the maximum of the likelihood, without any of the room's mixed models.
    """
    y, a, z = outcome.response.copy(), outcome.experimental.astype(float), outcome.covariates[:, 0]
    n, m = y.shape
    left = np.isnan(y)
    fits = []
    for k in range(m):
        seen = ~left[:, k]
        x = np.column_stack([np.ones(n), a, z, outcome.response[:, :k]])[seen]
        fits.append(np.linalg.lstsq(x, outcome.response[seen, k], rcond=None)[0])

    def marginal(arm: float, i: int) -> Floats:
        mean: list[float] = []
        for b in fits:
            mean.append(float(b[0] + b[1] * arm + b[2] * z[i] + b[3:] @ np.array(mean)))
        return np.array(mean)

    for i in np.flatnonzero(left.any(axis=1)):
        first = int(np.argmax(left[i]))
        own, reference = marginal(a[i], i), marginal(0.0, i)
        mean = {
            "missing_at_random": own,
            "jump_to_reference": np.append(own[:first], reference[first:]),
            "copy_reference": reference,
            "copy_increments": np.append(own[:first], reference[first:] + own[first - 1] - reference[first - 1]),
        }[strategy]
        for k in range(first, m):
            y[i, k] = mean[k] + fits[k][3:] @ (y[i, :k] - mean[:k])
    return y


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_means_are_those_of_regressions_in_sequence(strategy: Strategy) -> None:
    outcome = trial()
    found = conditional_means(outcome, strategy, MMRM(is_restricted=False))
    np.testing.assert_allclose(found, regressed_in_sequence(outcome, strategy), atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_effect_is_that_of_many_random_imputations(strategy: Strategy) -> None:
    """Drawn from the dense normal law of each subject, at the estimated means and covariance."""
    outcome, rng, draws = trial(), np.random.default_rng(3), 2000
    seen = ~np.isnan(outcome.response)
    x = outcome.design(outcome.experimental)
    fit = MMRM().fit(outcome.response[seen], x[seen], *np.nonzero(seen))
    centre, sigma = conditional_means(outcome, strategy), fit.covariances[0]
    many = np.repeat(outcome.response[:, 2][None], draws, axis=0)
    for i in np.flatnonzero(~seen[:, 2]):
        known = seen[i]
        rest = sigma[2, 2] - sigma[2, known] @ np.linalg.solve(sigma[np.ix_(known, known)], sigma[known, 2])
        many[:, i] = centre[i, 2] + np.sqrt(rest) * rng.normal(size=draws)
    design = np.column_stack([np.ones(len(seen)), outcome.experimental, outcome.covariates])
    effects = (np.linalg.pinv(design) @ many.T)[1]
    found = np.linalg.lstsq(design, centre[:, 2], rcond=None)[0][1]
    assert abs(effects.mean() - found) < 4 * effects.std() / np.sqrt(draws)


@pytest.mark.parametrize("strategy", ["jump_to_reference", "copy_increments"])
def test_the_error_is_the_jackknife_by_definition(strategy: Strategy) -> None:
    outcome = trial(24)
    n = len(outcome.response)
    values = np.empty(n)
    for i in range(n):
        keep = np.arange(n) != i
        y, arm, z = outcome.response[keep], outcome.experimental[keep], outcome.covariates[keep]
        last = conditional_means(RepeatedOutcome.of(y, arm, z), strategy)[:, 2]
        values[i] = np.linalg.lstsq(np.column_stack([np.ones(n - 1), arm, z]), last, rcond=None)[0][1]
    spread = np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum())
    assert reference_based_effect(outcome, strategy).standard_error == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_imputed_where_nothing_is_missing(strategy: Strategy) -> None:
    whole = trial(dropout=0.0)
    np.testing.assert_array_equal(conditional_means(whole, strategy), whole.response)


def test_missing_at_random_is_the_repeated_measures_model() -> None:
    outcome = trial()
    seen = ~np.isnan(outcome.response)
    fit = MMRM().fit(outcome.response[seen], outcome.design(outcome.experimental)[seen], *np.nonzero(seen))
    found = reference_based_effect(outcome, "missing_at_random")
    assert found.estimate == pytest.approx(fit.coefficients[5], abs=1e-6)
    assert found.standard_error == pytest.approx(fit.contrast(np.eye(9)[5]).standard_error, rel=0.2)


def test_strategies_are_ordered_by_what_they_grant() -> None:
    outcome = trial(80)
    mean = {each: conditional_means(outcome, each)[outcome.experimental, 2].mean() for each in STRATEGIES}
    assert mean["jump_to_reference"] < mean["copy_reference"] < mean["copy_increments"] < mean["missing_at_random"]


def test_the_reference_is_imputed_the_same_way_by_all() -> None:
    outcome = trial()
    found = [conditional_means(outcome, each)[~outcome.experimental] for each in STRATEGIES]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0])


def test_who_stays_is_missing_at_random() -> None:
    """Of two who miss the last visit, only the one who withdrew jumps; a gap before withdrawal is no withdrawal."""
    y = trial(dropout=0.0).response.copy()
    y[[1, 3], 2], y[5, 1] = np.nan, np.nan
    stays = np.full(40, 3)
    stays[3] = 2
    arm, z = np.arange(40) % 2, trial(dropout=0.0).covariates
    jump = conditional_means(RepeatedOutcome.of(y, arm, z, withdrawal=stays), "jump_to_reference")
    random = conditional_means(RepeatedOutcome.of(y, arm, z, withdrawal=stays), "missing_at_random")
    both = conditional_means(RepeatedOutcome.of(y, arm, z), "jump_to_reference")
    assert jump[[1, 5]] == pytest.approx(random[[1, 5]])
    assert jump[3, 2] < random[3, 2] - 0.5
    assert jump[3] == pytest.approx(both[3])
    assert both[5] == pytest.approx(random[5])


def test_who_was_never_seen_has_the_mean_of_the_strategy() -> None:
    outcome = trial()
    y = outcome.response.copy()
    y[1] = np.nan
    gone = RepeatedOutcome.of(y, outcome.experimental, outcome.covariates)
    jump, copy = (conditional_means(gone, each) for each in ("jump_to_reference", "copy_reference"))
    assert jump[1] == pytest.approx(copy[1])
    increments = conditional_means(gone, "copy_increments")
    assert increments[1] == pytest.approx(jump[1])
    assert conditional_means(gone, "missing_at_random")[1, 2] > jump[1, 2] + 0.5


def test_the_error_of_complete_data_is_near_that_of_the_regression() -> None:
    whole = trial(dropout=0.0)
    found = reference_based_effect(whole, "jump_to_reference")
    fit = linear_model(whole.response[:, 2], np.column_stack([np.ones(40), whole.experimental, whole.covariates]))
    assert found.estimate == pytest.approx(fit.coefficients[1])
    assert found.standard_error == pytest.approx(np.sqrt(fit.robust_covariance("HC3")[1, 1]), rel=0.02)


@pytest.mark.slow
def test_limits_cover_the_effect_of_the_strategy_and_not_of_another() -> None:
    """A jump of the 40 % who leave takes their part of the effect away: 0.6 of 2.

    The share who leave varies from trial to trial, so that limits are of the effect in the long run.
    """
    inside = {"jump_to_reference": 0, "missing_at_random": 0}
    for seed in range(200):
        outcome = trial(40, seed=seed)
        for strategy in inside:
            found = reference_based_effect(outcome, strategy)  # type: ignore[arg-type]
            inside[strategy] += found.low <= 0.6 * 2 <= found.high
    assert 179 <= inside["jump_to_reference"] <= 199  # 95 % of 200 but for chance, 1 in 1,000 either side
    assert inside["missing_at_random"] < 179


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditional_means(trial(), "jump"), "strategy must be one of"),  # type: ignore[arg-type]
        (lambda: reference_based_effect(trial(), "copy_reference", visit=3), "visit must be a place among 3"),
        (lambda: reference_based_effect(trial(), "copy_reference", level=95), "level"),
        (lambda: RepeatedOutcome.of([1.0, 2.0], [0, 1]), "response must be .subjects, visits."),
        (lambda: RepeatedOutcome.of([[1.0, 2]], [1]), "both arms"),
        (lambda: RepeatedOutcome.of([[1.0, 2], [np.inf, 1]], [0, 1]), "response must be finite"),
        (lambda: RepeatedOutcome.of([[1.0, 2], [1, 2]], [0, 1], [np.nan, 1]), "covariates must be finite"),
        (lambda: RepeatedOutcome.of([[1.0, 2], [1, 2]], [0, 1], [1.0]), "of the same subjects"),
        (lambda: RepeatedOutcome.of([[1.0, 2], [1, 2]], [0, 1], withdrawal=[1, 2]), "from the withdrawal on"),
        (lambda: RepeatedOutcome.of([[1.0, 2], [1, 2]], [0, 1], withdrawal=[2, 3]), "withdrawal must be a visit"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
