"""How precise a result on a synthetic cohort is: Monte-Carlo error, the generator's seed, the patients it learned from.

A cohort of 50,000 twins of 100 patients knows no more than the 100. What a cohort adds to the Monte-Carlo error is told
in two ways. Several cohorts, each of a generator trained on patients resampled from the source, show it: their spread
is that of the source and of the generator together. Within one cohort, subjects are resampled in the number of the
source's patients, as if the generator were without error: a lower bound.

Source: Rubin 1987, Multiple Imputation for Nonresponse in Surveys, 3.3 (combining, degrees of freedom); Raghunathan,
Reiter & Rubin 2003, J Off Stat 19:1; Bickel, Goetze & van Zwet 1997, Stat Sin 7:1 (resampling fewer than n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from medtwin.trials.engine.estimates import Estimate

Ints = NDArray[np.int64]
Spread = Literal["bootstrap", "seeds"]


@dataclass(frozen=True)
class Precision:
    """A result with all that is uncertain in it.

    Attributes:
        value: The estimate, the mean over cohorts where there are several.
        monte_carlo_error: Of the value, from the number of simulated trials.
        cohort_error: What the cohorts add: the spread between them, or that of the source's patients.
        low, high: The interval at a level of confidence, of both.
        degrees_of_freedom: Of the interval; inf: normal.
        effective_subjects: How many patients it rests on; None where nobody has said.
        is_lower_bound: Whether errors are left out: those of the generator, or those of the source too.
        what: Which errors are in it.
    """

    value: float
    monte_carlo_error: float
    cohort_error: float
    low: float
    high: float
    level: float
    degrees_of_freedom: float
    effective_subjects: int | None
    is_lower_bound: bool
    what: str

    @property
    def total_error(self) -> float:
        """Of the value."""
        return math.hypot(self.monte_carlo_error, self.cohort_error)


def _interval(value: float, errors: tuple[float, float], df: float, level: float) -> tuple[float, float]:
    half = float(student.ppf(0.5 + level / 2, df)) * math.hypot(*errors) if max(errors) > 0 else 0.0
    return value - half, value + half


def across_cohorts(
    estimates: Sequence[Estimate],
    *,
    spread: Spread,
    source_error: float = 0.0,
    effective_subjects: int | None = None,
    level: float = 0.95,
) -> Precision:
    """The precision of a result that was simulated on several cohorts of the same source.

    With m cohorts of generators trained on resampled patients, the between-cohort variance B (less the Monte-Carlo
    variance in it) counts (1 + 1/m) times. Cohorts of one generator differ by its seed alone: B/m is what that leaves,
    and the source's own error, as `source_error` gives it, comes on top; that of training is not in it.

    Args:
        estimates: One a cohort, with Monte-Carlo errors.
        spread: Whether the cohorts are of generators trained on resampled patients, or of several seeds of one.
        source_error: Of the source's number of patients (`source_error`); for `seeds`.
        effective_subjects: How many patients the source has.
        level: Of confidence.

    Raises:
        ValueError: If there are fewer than two cohorts, or there is no such spread.
    """
    if len(estimates) < 2:
        raise ValueError(f"cohorts must be 2 or more, got {len(estimates)}")
    if spread not in ("bootstrap", "seeds"):
        raise ValueError(f"spread must be bootstrap or seeds, got {spread!r}")
    m = len(estimates)
    values = np.array([each.value for each in estimates])
    within = float(np.mean([each.standard_error**2 for each in estimates]))
    between = max(float(values.var(ddof=1)) - within, 0.0)
    cohort = (1 + 1 / m) * between if spread == "bootstrap" else between / m
    df = (m - 1) * (1 + within / m / cohort) ** 2 if cohort > 0 else math.inf
    errors = (math.sqrt(within / m), math.hypot(math.sqrt(cohort), source_error if spread == "seeds" else 0.0))
    if spread == "seeds" and source_error > 0:
        df = df * (errors[1] ** 2 / cohort) ** 2 if cohort > 0 else math.inf
    value = float(values.mean())
    low, high = _interval(value, errors, df, level)
    what = (
        f"{m} cohorts of generators trained on resampled patients"
        if spread == "bootstrap"
        else f"{m} seeds of one generator"
        + (", and the number of its patients as if it were exact" if source_error > 0 else ", the patients left out")
    )
    return Precision(value, *errors, low, high, level, df, effective_subjects, spread == "seeds", what)


def source_error(
    statistic: Callable[[Ints], float],
    pool_size: int,
    effective_subjects: int,
    generator: np.random.Generator,
    *,
    num_resamples: int = 200,
) -> float:
    """The standard deviation of a statistic over samples, with replacement, of as many subjects as the source had.

    Args:
        statistic: Of some subjects of the pool, by their places, drawn with replacement; nan where it has no value.
        pool_size: Subjects of the cohort.
        effective_subjects: How many are drawn; at most the pool's, of which more are not known.
        generator: Draws them.
        num_resamples: How often.

    Raises:
        ValueError: If numbers are not 2 or more, or the statistic has no value in half of the samples.
    """
    for name, number in (("pool_size", pool_size), ("effective_subjects", effective_subjects)):
        if number < 2:
            raise ValueError(f"{name} must be 2 or more, got {number}")
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be 2 or more, got {num_resamples}")
    count = min(effective_subjects, pool_size)
    drawn = np.array([statistic(generator.integers(pool_size, size=count)) for _ in range(num_resamples)])
    kept = drawn[np.isfinite(drawn)]
    if len(kept) < num_resamples / 2:
        raise ValueError(
            f"statistic must have a value in most samples of {count} subjects, got one in {len(kept)} of "
            f"{num_resamples}: the source is too small for it"
        )
    return float(kept.std(ddof=1))


def within_cohort(
    estimate: Estimate, error: float, *, effective_subjects: int, is_source: bool, level: float = 0.95
) -> Precision:
    """The precision of a result on one cohort.

    Args:
        estimate: With its Monte-Carlo error.
        error: Of the patients, as `source_error` gives it.
        effective_subjects: How many patients the cohort stands for.
        is_source: Whether the cohort is the patients themselves; else they are twins, and the interval a lower bound.
        level: Of confidence.
    """
    low, high = _interval(estimate.value, (estimate.standard_error, error), math.inf, level)
    what = "the cohort's patients" if is_source else "the number of the source's patients, as if twins were exact"
    errors, is_bound = (estimate.standard_error, error), not is_source
    return Precision(estimate.value, *errors, low, high, level, math.inf, effective_subjects, is_bound, what)


def effective_subjects(cohort_size: int, num_eligible: int, source_subjects: int | None) -> int:
    """How many eligible patients a cohort stands for: never more than its source had of them, in expectation.

    >>> effective_subjects(50_000, 25_000, 100), effective_subjects(80, 40, 100), effective_subjects(80, 40, None)
    (50, 40, 40)
    """
    if source_subjects is None or source_subjects >= cohort_size:
        return num_eligible
    return max(round(num_eligible * source_subjects / cohort_size), 1)
