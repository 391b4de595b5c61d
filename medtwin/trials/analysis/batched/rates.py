"""Tests of two rates in many trials at once, from counts: (trials,) events and patients of each arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import elementwise
from scipy.special import gammaln, ndtri

from medtwin.trials.analysis.batched.arms import as_matrix, seen, two_arms
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.batched.restricted_rates import restricted_rates
from medtwin.trials.analysis.follow_up import Floats, as_level
from medtwin.trials.restricted_rates import Scale

_SAME = 1e-7  # relative: tables no more likely than the observed one, up to rounding


@dataclass(frozen=True)
class Counts:
    """Events and patients of both arms, (trials,) each, or (trials, strata); in a stratum an arm may be empty.

    Raises:
        ValueError: If shapes differ, or events are no whole numbers between 0 and patients.
    """

    events_experimental: Floats
    events_control: Floats
    num_experimental: Floats
    num_control: Floats

    def __post_init__(self) -> None:
        arms = (self.events_experimental, self.num_experimental), (self.events_control, self.num_control)
        for events, patients in arms:
            if events.shape != patients.shape or events.shape != self.num_control.shape:
                raise ValueError(f"events and patients must have one shape, got {events.shape!r}, {patients.shape!r}")
            if not ((events >= 0) & (events <= patients) & (events == np.round(events))).all():
                raise ValueError("events must be whole numbers between 0 and patients, got others")

    @classmethod
    def of(cls, events: tuple[ArrayLike, ArrayLike], patients: tuple[ArrayLike, ArrayLike]) -> Counts:
        """Of events and patients, experimental and control, broadcast to one shape.

        Raises:
            ValueError: As of the class, or if an arm is empty.
        """
        found = [np.asarray(each, dtype=np.float64) for each in (*events, *patients)]
        shape = np.broadcast_shapes(*(each.shape for each in found))
        counts = cls(*(np.broadcast_to(each, shape) for each in found))
        if (np.minimum(counts.num_experimental, counts.num_control) <= 0).any():
            raise ValueError("patients must be 1 or more in each arm, got an empty one")
        return counts

    @classmethod
    def of_patients(cls, response: ArrayLike, experimental: ArrayLike, *, observed: ArrayLike | None = None) -> Counts:
        """Of every patient's response, (trials, patients) 0 or 1; arguments and errors as of `logistic_models`."""
        y = as_matrix("response", response)
        arms = two_arms(y.shape, experimental, observed)
        y = seen("response", y, arms.observed)
        first, second = (np.einsum("tn,tn->t", y, here) for here in (arms.experimental, arms.control))
        return cls(first, second, arms.num_experimental, arms.num_control)

    @property
    def rates(self) -> tuple[Floats, Floats]:
        """Experimental, control."""
        return self.events_experimental / self.num_experimental, self.events_control / self.num_control

    @property
    def total(self) -> Floats:
        """Patients of both arms."""
        return self.num_experimental + self.num_control

    def once(self, function: Callable[[Counts], Floats]) -> Floats:
        """A function of the counts of each trial, (trials,) to (..., trials), computed once for equal trials."""
        rows = np.stack([self.events_experimental, self.events_control, self.num_experimental, self.num_control])
        unique, inverse = np.unique(rows, axis=1, return_inverse=True)
        return np.asarray(function(Counts(*unique))[..., inverse.reshape(-1)])


def risk_differences(counts: Counts) -> Contrasts:
    """Wald's test of the difference of two rates, by unpooled variances."""
    (p, q), n, m = counts.rates, counts.num_experimental, counts.num_control
    return Contrasts.normal(p - q, np.sqrt(p * (1 - p) / n + q * (1 - q) / m))


def log_rate_ratios(counts: Counts) -> Contrasts:
    """Wald's test of the logarithm of the ratio of two rates, without an estimate where an arm has no event.

    Source: Katz et al. 1978, Biometrics 34:469.
    """
    (p, q), a, b = counts.rates, counts.events_experimental, counts.events_control
    usable = np.minimum(a, b) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.where(usable, np.log(p / q), np.nan)
        return Contrasts.normal(estimate, np.sqrt(np.where(usable, (1 - p) / a + (1 - q) / b, np.nan)))


def log_odds_ratios(counts: Counts) -> Contrasts:
    """Wald's test of the logarithm of the odds ratio, without an estimate where a cell is empty.

    Source: Woolf 1955, Ann Hum Genet 19:251.
    """
    a, b = counts.events_experimental, counts.events_control
    c, d = counts.num_experimental - a, counts.num_control - b
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate, error = np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    usable = np.minimum(np.minimum(a, b), np.minimum(c, d)) > 0
    return Contrasts.normal(np.where(usable, estimate, np.nan), np.where(usable, error, np.nan))


def pearson_z(counts: Counts, *, continuity: bool = False) -> Floats:
    """The signed root of Pearson's chi-square, (trials,); 0 where all or nobody responds.

    Args:
        counts: Of the trials.
        continuity: Whether it is corrected by Yates' one half, at most by the deviation itself.
    """
    n, m, total = counts.num_experimental, counts.num_control, counts.total
    events = counts.events_experimental + counts.events_control
    gap = counts.events_experimental - n * events / total
    short = np.sign(gap) * np.maximum(np.abs(gap) - 0.5 * continuity, 0.0)
    variance = n * m * events * (total - events) / total**3
    return np.asarray(short / np.sqrt(np.where(variance > 0, variance, np.inf)))


def miettinen_nurminen_z(
    counts: Counts, null: float | None = None, *, scale: Scale = "difference", bias_corrected: bool = True
) -> Floats:
    """The score statistic of two rates against a difference, ratio or odds ratio, (trials,).

    Args:
        counts: Of the trials.
        null: On the scale; None: of no difference. A margin of non-inferiority is given with its sign.
        scale: Difference experimental - control, or ratio experimental : control of risks or odds.
        bias_corrected: Whether the variance is enlarged by N/(N - 1); without it Farrington and Manning's.

    Raises:
        ValueError: If the null is impossible.

    Source: Miettinen & Nurminen 1985, Stat Med 4:213; Farrington & Manning 1990, Stat Med 9:1447.

    >>> counts = Counts.of(([56], [48]), ([70], [80]))
    >>> miettinen_nurminen_z(counts).round(4).tolist()
    [2.6413]
    """
    value = (0.0 if scale == "difference" else 1.0) if null is None else null
    at = np.array(value, dtype=np.float64)
    return counts.once(lambda one: _score_z(one, at, scale, bias_corrected=bias_corrected))


def _score_z(counts: Counts, null: Floats, scale: Scale, *, bias_corrected: bool) -> Floats:
    (p1, p2), n, m = counts.rates, counts.num_experimental, counts.num_control
    q1, q2 = restricted_rates(p1, p2, null, scale=scale, allocation_ratio=n / m)
    correction = counts.total / (counts.total - 1) if bias_corrected else np.ones_like(n)
    v1, v2 = q1 * (1 - q1) / n * correction, q2 * (1 - q2) / m * correction
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "odds_ratio":
            spread = np.sqrt(correction / (1 / (n * q1 * (1 - q1)) + 1 / (m * q2 * (1 - q2)))) / n
            gap = p1 - q1
        else:
            gap = p1 - null * p2 if scale == "ratio" else p1 - p2 - null
            spread = np.sqrt(v1 + v2 * (null**2 if scale == "ratio" else 1.0))
        return np.where(spread > 0, gap / spread, np.where(gap == 0, 0.0, np.sign(gap) * np.inf))


def miettinen_nurminen_limits(
    counts: Counts, *, scale: Scale = "difference", level: float = 0.95, bias_corrected: bool = True
) -> tuple[Floats, Floats]:
    """The limits of the values that the score test does not reject, (trials,) each.

    Args:
        counts: Of the trials.
        scale: Difference experimental - control, or ratio experimental : control of risks or odds.
        level: Of the limits.
        bias_corrected: Whether the variance is enlarged by N/(N - 1).

    Raises:
        ValueError: If the level does not lie between 0 and 1.

    >>> low, high = miettinen_nurminen_limits(Counts.of(([56], [48]), ([70], [80])))
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.0528], [0.3382])
    """
    bound = -float(ndtri((1 - as_level("level", level)) / 2))

    def both(one: Counts) -> Floats:
        return np.stack([_limit(one, sign * bound, scale, bias_corrected=bias_corrected) for sign in (1.0, -1.0)])

    low, high = counts.once(both)
    return low, high


def _limit(counts: Counts, bound: float, scale: Scale, *, bias_corrected: bool) -> Floats:
    """Where the score statistic is the bound; an end of the scale where it is nowhere."""
    parts = counts.events_experimental, counts.events_control, counts.num_experimental, counts.num_control

    def excess(at: Floats, *args: Floats) -> Floats:
        null = at if scale == "difference" else np.exp(at)
        return _score_z(Counts(*args), null, scale, bias_corrected=bias_corrected) - bound

    end = 1 - 1e-9 if scale == "difference" else 20.0
    low, high = np.full(counts.total.shape, -end), np.full(counts.total.shape, end)
    crosses = excess(low, *parts) * excess(high, *parts) < 0
    tolerances = {"xatol": 1e-13, "xrtol": 1e-14, "fatol": 0.0, "frtol": 0.0}
    safe = [np.where(crosses, each, usual) for each, usual in zip(parts, (1.0, 1.0, 2.0, 2.0), strict=True)]
    found = elementwise.find_root(excess, (low, high), args=tuple(safe), tolerances=tolerances).x
    if scale == "difference":
        return np.asarray(np.where(crosses, found, -np.copysign(1.0, bound)))
    return np.asarray(np.where(crosses, np.exp(found), 0.0 if bound > 0 else np.inf))


def fisher_p(counts: Counts, *, two_sided: bool = False) -> Floats:
    """The p values of Fisher's exact test, (trials,).

    Args:
        counts: Of the trials.
        two_sided: Whether of all tables that are no likelier than the one observed; else of a higher experimental rate.

    Source: Fisher 1935, J R Stat Soc 98:39.

    >>> fisher_p(Counts.of(([3], [1]), ([4], [4])), two_sided=True).round(4).tolist()
    [0.4857]
    """
    return counts.once(lambda one: _fisher(one, two_sided=two_sided))


def _fisher(counts: Counts, *, two_sided: bool) -> Floats:
    x, n, m = counts.events_experimental, counts.num_experimental, counts.num_control
    events = x + counts.events_control
    k = np.arange(int(n.max()) + 1.0)[:, None]
    possible = (k <= n) & (k <= events) & (events - k <= m)
    cells = [np.where(possible, each, 0.0) for each in (k + 0 * n, n - k, events - k, m - events + k)]
    logs = np.where(possible, -np.sum([gammaln(each + 1) for each in cells], axis=0), -np.inf)
    weights = np.exp(logs - logs.max(axis=0))
    here = np.take_along_axis(weights, x.astype(np.int64)[None], axis=0)[0]
    counted = weights <= here * (1 + _SAME) if two_sided else k >= x
    return np.asarray(np.minimum((weights * counted).sum(axis=0) / weights.sum(axis=0), 1.0))
