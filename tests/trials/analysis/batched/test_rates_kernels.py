"""Batched tests of rates agree with the room's function of one trial, and in strata with the textbook's definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.analysis import rates
from medtwin.trials.analysis.batched.rates import (
    Counts,
    fisher_p,
    log_odds_ratios,
    log_rate_ratios,
    miettinen_nurminen_limits,
    miettinen_nurminen_z,
    pearson_z,
    risk_differences,
)
from medtwin.trials.analysis.batched.stratified_rates import (
    Weights,
    stratified_miettinen_nurminen_limits,
    stratified_miettinen_nurminen_z,
    stratified_z,
)
from medtwin.trials.restricted_rates import Scale
from medtwin.trials.restricted_rates import restricted_rates as of_one_trial

NULLS: list[tuple[Scale, float | None]] = [
    ("difference", None),
    ("difference", -0.1),
    ("difference", 0.15),
    ("ratio", None),
    ("ratio", 0.8),
    ("odds_ratio", None),
    ("odds_ratio", 1.6),
]


def _counts(seed: int, trials: int = 40) -> Counts:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(5, 40, trials), rng.integers(5, 40, trials)
    return Counts.of((rng.binomial(n, 0.45), rng.binomial(m, 0.3)), (n, m))


def _each(counts: Counts) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    events = zip(counts.events_experimental.tolist(), counts.events_control.tolist(), strict=True)
    return list(
        zip(events, zip(counts.num_experimental.tolist(), counts.num_control.tolist(), strict=True), strict=True)
    )


@pytest.mark.parametrize(("scale", "null"), NULLS)
@pytest.mark.parametrize("corrected", [True, False])
def test_miettinen_nurminen(scale: Scale, null: float | None, corrected: bool) -> None:
    counts = _counts(1)
    found = miettinen_nurminen_z(counts, null, scale=scale, bias_corrected=corrected)
    for z, (events, patients) in zip(found, _each(counts), strict=True):
        if scale == "odds_ratio" and sum(events) in (0, sum(patients)):
            continue
        one = rates.miettinen_nurminen_test(events, patients, null, scale=scale, bias_corrected=corrected)
        assert z == pytest.approx(one.z, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("scale", ["difference", "ratio", "odds_ratio"])
def test_miettinen_nurminen_limits(scale: Scale) -> None:
    counts = _counts(2)
    low, high = miettinen_nurminen_limits(counts, scale=scale, level=0.9)
    for i, (events, patients) in enumerate(_each(counts)):
        if min(events) == 0 or any(k == n for k, n in zip(events, patients, strict=True)):
            continue  # the other function divides by 0 there, or its bracket is not this one's
        one = rates.miettinen_nurminen_interval(events, patients, scale=scale, level=0.9)
        assert (low[i], high[i]) == pytest.approx((one.low, one.high), rel=1e-8, abs=1e-9)


def test_limits_at_the_ends() -> None:
    counts = Counts.of(([0, 10, 0, 10], [0, 10, 10, 0]), ([10] * 4, [10] * 4))
    low, high = miettinen_nurminen_limits(counts)
    assert ((low < high) & (low >= -1) & (high <= 1)).all()
    for i in (0, 1):
        one = rates.miettinen_nurminen_interval((10.0 * i, 10.0 * i), (10.0, 10.0))
        assert (low[i], high[i]) == pytest.approx((one.low, one.high), abs=1e-9)


@pytest.mark.parametrize("two_sided", [True, False])
def test_fisher(two_sided: bool) -> None:
    counts = _counts(3)
    found = fisher_p(counts, two_sided=two_sided)
    for p, ((a, b), (n, m)) in zip(found, _each(counts), strict=True):
        side: rates.Alternative = "two_sided" if two_sided else "greater"
        assert p == pytest.approx(rates.fisher_test([[a, n - a], [b, m - b]], alternative=side).p_value, rel=1e-8)


@pytest.mark.parametrize("continuity", [True, False])
def test_pearson(continuity: bool) -> None:
    counts = _counts(4)
    found = pearson_z(counts, continuity=continuity)
    for z, ((a, b), (n, m)) in zip(found, _each(counts), strict=True):
        one = rates.chi_square_test([[a, n - a], [b, m - b]], continuity=continuity)
        assert z**2 == pytest.approx(one.chi_square, rel=1e-8, abs=1e-10)
        assert z == 0 or np.sign(z) == np.sign(a / n - b / m)
    assert pearson_z(Counts.of(([0], [0]), ([5], [6]))).tolist() == [0]


def test_risk_difference_and_odds_ratio() -> None:
    counts = _counts(5)
    low, high = risk_differences(counts).limits()
    odds = log_odds_ratios(counts)
    for i, ((a, b), (n, m)) in enumerate(_each(counts)):
        one = rates.wald_interval((a, b), (n, m))
        assert (max(low[i], -1), min(high[i], 1)) == pytest.approx((one.low, one.high), rel=1e-10)
        if 0 < a < n and 0 < b < m:
            assert odds.estimate[i] == pytest.approx(np.log(a / (n - a) / (b / (m - b))))
    ratios = log_rate_ratios(counts)
    for i, ((a, b), (n, m)) in enumerate(_each(counts)):
        if a > 0 and b > 0:
            expected = np.log(a * m / (b * n)) / np.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
            assert ratios.statistic()[i] == pytest.approx(expected, rel=1e-8)
    empty = log_odds_ratios(Counts.of(([0], [3]), ([5], [5])))
    assert np.isnan(empty.statistic()).all()


def _strata(seed: int, trials: int = 12, strata: int = 4) -> Counts:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(3, 25, (trials, strata)), rng.integers(3, 25, (trials, strata))
    return Counts.of((rng.binomial(n, 0.5), rng.binomial(m, np.linspace(0.2, 0.6, strata))), (n, m))


def test_cochran_mantel_haenszel() -> None:
    x = _strata(6)
    for i, z in enumerate(stratified_z(x)):
        a, b, n, m = (e[i] for e in (x.events_experimental, x.events_control, x.num_experimental, x.num_control))
        tables = np.stack([np.stack([a, n - a], 1), np.stack([b, m - b], 1)], 1)
        assert z**2 == pytest.approx(rates.stratified_test(tables, continuity=False).chi_square, rel=1e-8)


def _by_definition(events: np.ndarray, patients: np.ndarray, null: float, mantel_haenszel: bool) -> float:
    """Weighted differences over the root of weighted restricted variances, stratum by stratum."""
    top, below, weights = 0.0, 0.0, 0.0
    for (x1, x0), (n1, n0) in zip(events, patients, strict=True):
        q1, q0 = of_one_trial((x1 / n1, x0 / n0), null, allocation_ratio=n1 / n0)
        w = n1 * n0 / (n1 + n0) if mantel_haenszel else n1 + n0
        top += w * (x1 / n1 - x0 / n0 - null)
        below += w**2 * (q1 * (1 - q1) / n1 + q0 * (1 - q0) / n0) * (n1 + n0) / (n1 + n0 - 1)
        weights += w
    return float(top / np.sqrt(below))


@pytest.mark.parametrize("weights", ["mantel_haenszel", "sample_size"])
def test_stratified_miettinen_nurminen(weights: Weights) -> None:
    x = _strata(7)
    found = stratified_miettinen_nurminen_z(x, -0.1, weights=weights)
    low, high = stratified_miettinen_nurminen_limits(x, weights=weights)
    bound = norm.ppf(0.975)
    for i in range(len(found)):
        events = np.stack([x.events_experimental[i], x.events_control[i]], 1)
        patients = np.stack([x.num_experimental[i], x.num_control[i]], 1)
        args = events, patients
        by_mh = weights == "mantel_haenszel"
        assert found[i] == pytest.approx(_by_definition(*args, -0.1, by_mh), rel=1e-8)
        limits = [
            brentq(lambda d, s, a=args, w=by_mh: _by_definition(*a, d, w) - s * bound, -0.999, 0.999, (s,), xtol=1e-13)
            for s in (1, -1)
        ]
        assert (low[i], high[i]) == pytest.approx(limits, abs=1e-10)


def test_one_stratum_is_none() -> None:
    counts = _counts(8)
    x = Counts(
        *(each[:, None] for each in (counts.events_experimental, counts.events_control)),
        *(each[:, None] for each in (counts.num_experimental, counts.num_control)),
    )
    assert stratified_miettinen_nurminen_z(x, 0.1) == pytest.approx(miettinen_nurminen_z(counts, 0.1), rel=1e-9)
    for one, other in zip(stratified_miettinen_nurminen_limits(x), miettinen_nurminen_limits(counts), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_a_stratum_with_an_empty_arm_says_nothing() -> None:
    full = Counts.of(([[5, 3]], [[2, 4]]), ([[9, 9]], [[8, 9]]))
    more = Counts(np.array([[5.0, 3, 1]]), np.array([[2.0, 4, 0]]), np.array([[9.0, 9, 3]]), np.array([[8.0, 9, 0]]))
    assert stratified_miettinen_nurminen_z(more) == pytest.approx(stratified_miettinen_nurminen_z(full))
    assert stratified_z(more) == pytest.approx(stratified_z(full))


def test_counts_of_patients() -> None:
    rng = np.random.default_rng(9)
    y, arm, here = rng.random((5, 20)) < 0.4, rng.random((5, 20)) < 0.5, rng.random((5, 20)) < 0.9
    counts = Counts.of_patients(y, arm, observed=here)
    assert counts.events_experimental.tolist() == (y & arm & here).sum(axis=1).tolist()
    assert counts.num_control.tolist() == (~arm & here).sum(axis=1).tolist()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="between 0 and patients"):
        Counts.of(([6], [1]), ([5], [5]))
    with pytest.raises(ValueError, match="between 0 and patients"):
        Counts.of(([np.nan], [1]), ([5], [5]))
    with pytest.raises(ValueError, match="1 or more in each arm"):
        Counts.of(([0], [1]), ([0], [5]))
    with pytest.raises(ValueError, match="difference between -1 and 1"):
        miettinen_nurminen_z(_counts(1), 1.0)
    with pytest.raises(ValueError, match="ratio above 0"):
        miettinen_nurminen_z(_counts(1), 0.0, scale="ratio")
    with pytest.raises(ValueError, match="weights must be"):
        stratified_miettinen_nurminen_z(_strata(1), weights="inverse")  # type: ignore[arg-type]
    none = Counts(np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="patients of both arms"):
        stratified_miettinen_nurminen_z(none)
