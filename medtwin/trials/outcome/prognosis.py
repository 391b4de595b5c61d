"""The outcome model of a trial's patients: a hazard over time, each one's relative risk, the treatment's effect.

Hazard of patient i in arm a: h0(t) exp(lp_i) HR^(a e_i), e_i = 1 unless effects differ between patients. Both
potential outcomes of a patient come from the same draw, so a patient under either arm differs by the treatment alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from medtwin.core.errors import ConfigError
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.outcome.endpoint import FollowedUp
from medtwin.trials.population.criteria import Baseline

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MIN_EVENTS = 5
_MAX_SD = 2.5  # a covariate further out counts as this far: a linear score must not extrapolate from a few events


@dataclass(frozen=True)
class PatientPool:
    """Those from whom the patients of a simulated trial are drawn, with replacement.

    Attributes:
        log_risk: (pool,) prognostic score: log hazard relative to `hazard`.
        stratum: (pool,) for stratified randomisation, from 0.
        hazard: At log risk 0, in the control arm.
        baseline: Their covariates, in the same order; None for a parametric pool.
        effect: (pool,) by how much the log hazard ratio of a scenario is multiplied for each; None: 1 for all.
    """

    log_risk: Floats
    stratum: Ints
    hazard: PiecewiseRate
    baseline: Baseline | None = None
    effect: Floats | None = None

    def log_hazard_ratios(self, hazard_ratio: float) -> Floats:
        """Of each of them under the hazard ratio of a scenario, (pool,)."""
        return math.log(hazard_ratio) * (np.ones(len(self.log_risk)) if self.effect is None else self.effect)

    def risk_groups(self, groups: int = 100, hazard_ratio: float = 1.0) -> tuple[float, ...]:
        """Mean relative hazards of equally large groups, for expected event counts.

        Args:
            groups: At most so many.
            hazard_ratio: Of a scenario; 1 is the control arm.
        """
        risks = np.sort(np.exp(self.log_risk + (self.log_hazard_ratios(hazard_ratio) if hazard_ratio != 1 else 0.0)))
        if risks[0] == risks[-1]:
            return (float(risks[0]),)
        if len(risks) <= groups:
            return tuple(risks.tolist())
        total = np.concatenate([[0.0], np.cumsum(risks)]) / len(risks)
        at_edges = np.interp(np.linspace(0, len(risks), groups + 1), np.arange(len(risks) + 1), total)
        return tuple((np.diff(at_edges) * groups).tolist())


@dataclass(frozen=True)
class AssumedOutcome:
    """An outcome that is assumed, not read from a cohort: for a trial without one, or where too few events occurred.

    Attributes:
        control_median_months: Median time to the event in the control arm.
        prognostic_sd: Standard deviation of the log hazard between patients; 0: all alike.
    """

    control_median_months: float
    prognostic_sd: float = 0.0

    def __post_init__(self) -> None:
        if not self.control_median_months > 0 or self.prognostic_sd < 0:
            raise ValueError(
                "control_median_months must be above 0 and prognostic_sd 0 or more, "
                f"got {self.control_median_months!r} and {self.prognostic_sd!r}"
            )

    def pool(self, generator: np.random.Generator, size: int = 1000) -> PatientPool:
        """Parametric patients: normal log risks, half of them in each of two strata."""
        log_risk = self.prognostic_sd * generator.standard_normal(size)
        return PatientPool(log_risk, np.arange(size) % 2, PiecewiseRate.of_median(self.control_median_months))

    def pool_of(self, baseline: Baseline, stratum: Ints) -> PatientPool:
        """The patients of a cohort under the assumed outcome; their covariates say nothing of their risk."""
        size = len(baseline.subject_id)
        return PatientPool(np.zeros(size), stratum, PiecewiseRate.of_median(self.control_median_months), baseline)


@dataclass(frozen=True)
class FittedOutcome:
    """What a cohort's own course says of the endpoint.

    Attributes:
        pool: Its patients with their risks and the hazard.
        coefficients: Covariate to log hazard ratio per standard deviation.
        num_events, person_months: What it was fitted on.
        low, high: Factors on the hazard that the event count allows, 95 % (exact Poisson).
    """

    pool: PatientPool
    coefficients: dict[str, float]
    num_events: int
    person_months: float
    low: float
    high: float


def fit_outcome(
    baseline: Baseline,
    followed: FollowedUp,
    stratum: Ints,
    *,
    ridge: float = 4.0,
    max_pieces: int = 4,
    horizon_months: float | None = None,
) -> FittedOutcome:
    """Fits a piecewise-exponential hazard with a penalised Cox prognostic score on the cohort itself.

    Args:
        baseline: Covariates; missing ones are replaced by the median.
        followed: The cohort's course.
        stratum: (subjects,) for stratified randomisation.
        ridge: Penalty on each squared coefficient per standard deviation; 4 is a normal prior with sd 1/2.
        max_pieces: Pieces of the hazard, at most one for every 5 events, cut at quantiles of the event times.
        horizon_months: The hazard is 0 after it; None: the last piece goes on.

    Raises:
        ConfigError: If the endpoint never occurs, or fewer than 5 times.
    """
    num_events = int(followed.event.sum())
    if num_events < MIN_EVENTS:
        said = "never occurs" if num_events == 0 else f"occurs only {num_events} times (at least {MIN_EVENTS} needed)"
        raise ConfigError(
            f"the endpoint {said} among the {len(followed.event)} eligible subjects: choose another trial.endpoint, "
            "loosen trial.eligibility, or state an outcome: trial.assumed.control_median_months=... "
            "with trial.assume_if_too_few=true"
        )
    values = baseline.imputed()
    spread = values.std(axis=0)
    used = np.flatnonzero(spread > 1e-9)
    x = np.clip((values[:, used] - values[:, used].mean(axis=0)) / spread[used], -_MAX_SD, _MAX_SD)
    beta = ridge_cox(followed.months, followed.event, x, ridge)
    log_risk = x @ beta
    hazard = piecewise_hazard(followed, np.exp(log_risk), min(max_pieces, max(1, num_events // 5)))
    if horizon_months is not None:
        kept = [
            (start, rate) for start, rate in zip(hazard.starts, hazard.rates, strict=True) if start < horizon_months
        ]
        starts, rates = zip(*kept, (horizon_months, 0.0), strict=True)
        hazard = PiecewiseRate(starts, rates)
    named = {baseline.names[int(column)]: float(b) for column, b in zip(used, beta, strict=True)}
    low, high = poisson_limits(num_events)
    pool = PatientPool(log_risk, stratum, hazard, baseline)
    months = float(followed.months.sum())
    return FittedOutcome(pool, named, num_events, months, low / num_events, high / num_events)


def ridge_cox(time: Floats, event: NDArray[np.bool_], x: Floats, ridge: float, *, max_steps: int = 50) -> Floats:
    """Coefficients, (covariates,), that maximise the Cox partial likelihood (Breslow ties) less ridge/2 |beta|^2.

    Args:
        time: (subjects,).
        event: (subjects,).
        x: (subjects, covariates), standardised.
        ridge: 0 is the unpenalised estimate.
        max_steps: Of Newton's method.

    Source: Verweij & van Houwelingen 1994, Stat Med 13:2427.
    """
    order = np.argsort(-time, kind="stable")
    t, d, z = time[order], event[order], x[order]
    last_tied = np.searchsorted(-t, -t, side="right") - 1  # everyone with time >= t_i stands up to here
    beta = np.zeros(z.shape[1])
    for _ in range(max_steps):
        weight = np.exp(np.clip(z @ beta, -30, 30))
        total = np.cumsum(weight)[last_tied][d]
        mean = np.cumsum(weight[:, None] * z, axis=0)[last_tied][d] / total[:, None]
        second = np.cumsum(weight[:, None, None] * z[:, :, None] * z[:, None, :], axis=0)[last_tied][d]
        gradient = (z[d] - mean).sum(axis=0) - ridge * beta
        outer = second / total[:, None, None] - mean[:, :, None] * mean[:, None, :]
        hessian = outer.sum(axis=0) + (ridge + 1e-10) * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        beta = beta + step / max(1.0, float(np.abs(step).max(initial=0.0)))
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return beta


def piecewise_hazard(followed: FollowedUp, risk: Floats, pieces: int) -> PiecewiseRate:
    """The hazard at risk 1: events over risk-weighted time in pieces with about as many events each.

    Args:
        followed: The cohort's course.
        risk: (subjects,) relative hazards.
        pieces: How many, at most.
    """
    events = followed.months[followed.event]
    inner = np.quantile(events, np.arange(1, pieces) / pieces)
    starts = np.unique(np.concatenate([[0.0], inner[(inner > 0) & (inner < events.max())]]))
    ends = np.append(starts[1:], np.inf)
    rates = []
    for start, end in zip(starts, ends, strict=True):
        exposure = np.clip(followed.months, start, end) - start
        count = ((events > start) & (events <= end)).sum()
        rates.append(float(count / (exposure * risk).sum()))
    return PiecewiseRate(tuple(starts.tolist()), tuple(rates))


def poisson_limits(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact limits of a Poisson mean. Source: Garwood 1936, Biometrika 28:437.

    >>> [round(limit, 2) for limit in poisson_limits(10)]
    [4.8, 18.39]
    """
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.isf(tail, 2 * count + 2) / 2)


def strata_of(sex: NDArray[np.str_]) -> Ints:
    """A stratum for each subject by sex: women 0, all others 1."""
    return np.asarray(np.where(sex == "F", 0, 1), dtype=np.int64)
