"""An endpoint that is read once, as a cohort has it in its record: its law in the control arm, a prognostic score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medtwin.core.errors import ConfigError
from medtwin.trials.design.hazard import DAYS_PER_MONTH
from medtwin.trials.outcome.endpoint import Endpoint, follow_up
from medtwin.trials.outcome.prognosis import strata_of
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Reading, Response, ResponsePool
from medtwin.trials.population.cohort import Cohort, latest_before
from medtwin.trials.population.criteria import Baseline, Candidates
from medtwin.trials.population.units import values_in

Floats = NDArray[np.float64]
MIN_READINGS = 20
MIN_OF_EACH = 5
_MAX_SD = 2.5


@dataclass(frozen=True)
class FittedResponse:
    """An endpoint as a cohort has it.

    Attributes:
        response: With the cohort's numbers. pool: Its subjects with their scores.
        coefficients: Covariate to change of the endpoint (of its log odds) per standard deviation.
        num_readings: Subjects whose endpoint the record has.
    """

    response: Response
    pool: ResponsePool
    coefficients: dict[str, float]
    num_readings: int


def fit_response(
    response: Response, cohort: Cohort, entry: Candidates, covariates: Baseline, *, ridge: float = 4.0
) -> FittedResponse:
    """The endpoint as the eligible subjects have it in their record.

    Args:
        response: As stated, with the record that has it.
        cohort: Of whom.
        entry: The eligible and their day of entry.
        covariates: Of them.
        ridge: Penalty on each squared coefficient per standard deviation.

    Raises:
        ConfigError: If too few of them have it, it is the same for nearly all, or a code is unknown.
    """
    x, names = _columns(covariates)
    stratum = strata_of(covariates.sex)
    if isinstance(response, ContinuousResponse) and isinstance(response.record, Reading):
        values = read_values(cohort, entry, response.record, response.months)
        beta, fitted = _fit_number(response, values, x, ridge)
        num_readings = int((~np.isnan(values)).sum())
    elif isinstance(response, BinaryResponse) and isinstance(response.record, Endpoint):
        happened = read_events(cohort, entry, response.record, response.months)
        beta, fitted = _fit_rate(response, happened, x, ridge)
        num_readings = int((~np.isnan(happened)).sum())
    else:
        raise ConfigError("endpoint.record must be a Reading of a number, or an Endpoint of yes and no")
    pool = ResponsePool.of(x @ beta, stratum, covariates)
    named = {name: float(b) for name, b in zip(names, beta, strict=True)}
    return FittedResponse(fitted, pool, named, num_readings)


def read_values(cohort: Cohort, entry: Candidates, reading: Reading, months: float) -> Floats:
    """The value nearest to a month after entry, (subjects,); nan where none lies in the window, after the day of entry.

    Raises:
        ConfigError: If the cohort has none of the codes.
    """
    cohort.require_known(reading.codes, "endpoint.record")
    records = cohort.rows_of(reading.codes)
    values = values_in(records, reading.unit)
    keep = ~np.isnan(values)
    records, values = records.take(keep), values[keep]
    wanted = entry.day + round(months * DAYS_PER_MONTH)
    if not len(values):
        return np.full(len(wanted), np.nan)
    before = latest_before(records, entry.subject, wanted)
    after = np.minimum(np.where(before >= 0, before, _start(records.subject, entry.subject) - 1) + 1, len(values) - 1)
    best, gap = np.full(len(wanted), np.nan), np.full(len(wanted), reading.window_days + 1)
    for found in (np.maximum(before, 0), after):
        is_theirs = (records.subject[found] == entry.subject) & (records.day[found] > entry.day)
        distance = np.where(is_theirs, np.abs(records.day[found] - wanted), reading.window_days + 1)
        best = np.where(distance < gap, values[found], best)
        gap = np.minimum(gap, distance)
    return best


def _start(sorted_subjects: NDArray[np.int64], subject: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.searchsorted(sorted_subjects, subject))


def read_events(cohort: Cohort, entry: Candidates, endpoint: Endpoint, months: float) -> Floats:
    """Whether the endpoint came within some months of entry, (subjects,) 1 or 0; nan where the record ends before."""
    followed = follow_up(cohort, entry, endpoint)
    came = followed.event & (followed.months <= months)
    return np.where(came, 1.0, np.where(followed.months >= months, 0.0, np.nan))


def _columns(covariates: Baseline) -> tuple[Floats, list[str]]:
    """Standardised covariates that vary, held within 2.5 standard deviations, (subjects, covariates)."""
    values = covariates.imputed()
    spread = values.std(axis=0)
    used = np.flatnonzero(spread > 1e-9)
    x = np.clip((values[:, used] - values[:, used].mean(axis=0)) / spread[used], -_MAX_SD, _MAX_SD)
    return x, [covariates.names[int(column)] for column in used]


def _fit_number(response: ContinuousResponse, values: Floats, x: Floats, ridge: float) -> tuple[Floats, Response]:
    """Coefficients by ridge regression, and the response with the cohort's mean, deviation and correlation."""
    known = ~np.isnan(values)
    n = int(known.sum())
    y = values[known]
    if n < MIN_READINGS or not y.std() > 1e-12 * max(1.0, float(np.abs(y).max(initial=0.0))):
        raise ConfigError(
            f"endpoint.record has values that differ of {n} of {len(values)} eligible subjects near month "
            f"{response.months:g} (at least {MIN_READINGS} needed): widen record.window_days, choose other months or "
            "codes, or state the endpoint: trial.endpoint.record=null"
        )
    z = x[known] - x[known].mean(axis=0)
    beta = np.linalg.solve(z.T @ z + (ridge + 1e-10) * np.eye(x.shape[1]), z.T @ (y - y.mean()))
    rest = y - y.mean() - z @ beta
    unexplained = float(rest @ rest) / max(n - 1 - x.shape[1], 1) / float(y.var(ddof=1))
    correlation = float(np.sqrt(max(0.0, 1 - unexplained)))
    sd = float(y.std(ddof=1))
    return beta, replace(response, mean=float(y.mean()), sd=sd, correlation=correlation)


def _fit_rate(response: BinaryResponse, happened: Floats, x: Floats, ridge: float) -> tuple[Floats, Response]:
    """Coefficients by ridge logistic regression, and the response with the cohort's rate and spread of log odds."""
    known = ~np.isnan(happened)
    y, events = happened[known], int(np.nansum(happened))
    if events < MIN_OF_EACH or len(y) - events < MIN_OF_EACH:
        raise ConfigError(
            f"endpoint.record says yes of {events} and no of {len(y) - events} of {len(happened)} eligible subjects by "
            f"month {response.months:g} (at least {MIN_OF_EACH} each needed): choose other months or codes, or state "
            "the endpoint: trial.endpoint.record=null"
        )
    design = np.column_stack([np.ones(len(y)), x[known]])
    penalty = np.diag([0.0] + [ridge] * x.shape[1])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = expit(np.clip(design @ beta, -30, 30))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty + 1e-10 * np.eye(len(beta))
        step = np.linalg.solve(hessian, design.T @ (y - p) - penalty @ beta)
        beta = beta + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    spread = float((x @ beta[1:]).std())
    rate = events / len(y)
    try:
        return beta[1:], replace(response, control=rate, prognostic_sd=spread)
    except ValueError as error:
        raise ConfigError(f"endpoint: the cohort's control rate is {rate:.3g}: {error}") from error
