"""What simulated trials were like: distributions with Monte-Carlo intervals, estimates by where they stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from medtwin.trials.design.timing import expected_events
from medtwin.trials.engine.batch import Characteristics, Estimate, course_of, draw_patients, mean_of, share_of
from medtwin.trials.engine.response_batch import ResponseCharacteristics, ResponseStops
from medtwin.trials.engine.survival_trial import Study

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Distribution:
    """How a number differs between simulated trials.

    Attributes:
        name: What it is, with its unit. mean: Over the trials.
        quantiles: Probability to the quantile, its interval from order statistics.
        least, most: Over the trials.
    """

    name: str
    mean: Estimate
    quantiles: Mapping[float, Estimate]
    least: float
    most: float


def quantile_of(values: Floats, probability: float, level: float = 0.95) -> Estimate:
    """A quantile of the law that values come from, its distribution-free interval from order statistics.

    The standard error is the half width of the interval over the normal quantile (Woodruff 1952, J Am Stat Assoc
    47:635); infinite where the values are too few for an end of the interval.

    Args:
        values: (trials,).
        probability: Between 0 and 1.
        level: Of the interval.

    Raises:
        ValueError: If there are no values, or the probability is not between 0 and 1.

    >>> found = quantile_of(np.arange(1.0, 1001.0), 0.5)
    >>> found.value, found.low, found.high
    (500.5, 469.0, 532.0)
    """
    if not len(values) or not 0 < probability < 1:
        raise ValueError(f"quantiles need values and a probability in (0, 1), got {len(values)} and {probability!r}")
    order, count = np.sort(values), len(values)
    below, above = binom.ppf([(1 - level) / 2, (1 + level) / 2], count, probability)
    low = float(order[int(below) - 1]) if below >= 1 else -math.inf
    high = float(order[int(above)]) if above < count else math.inf
    error = (high - low) / (2 * float(norm.ppf(0.5 + level / 2)))
    return Estimate(float(np.quantile(order, probability)), error, low, high, level)


def distribution_of(name: str, values: Floats) -> Distribution:
    """The distribution of a number over the trials.

    Args:
        name: What it is, with its unit.
        values: (trials,).
    """
    found = {probability: quantile_of(values, probability) for probability in QUANTILES}
    return Distribution(name, mean_of(values), found, float(values.min()), float(values.max()))


def distributions(found: Characteristics | ResponseCharacteristics) -> list[Distribution]:
    """Of calendar months, patients enrolled, and events or outcomes by the end of the trials."""
    stops = found.stops
    name, counts = ("outcomes", stops.outcomes) if isinstance(stops, ResponseStops) else ("events", stops.events)
    return [
        distribution_of("duration, months", stops.months),
        distribution_of("patients enrolled", stops.subjects.astype(np.float64)),
        distribution_of(name, counts.astype(np.float64)),
    ]


@dataclass(frozen=True)
class StoppedEstimate:
    """The estimates of the trials that ended alike.

    Attributes:
        look: Where they stopped, from 1. outcome: How. share: Of all trials.
        log_hazard_ratio: Mean of their estimates.
    """

    look: int
    outcome: str
    share: Estimate
    log_hazard_ratio: Estimate


def estimates_by_stop(found: Characteristics) -> list[StoppedEstimate]:
    """The estimates of trials that rejected, stopped for futility, or did neither, at each look that ended any."""
    stops = found.stops
    outcomes: Sequence[tuple[str, NDArray[np.bool_]]] = (
        ("null rejected", stops.is_rejected),
        ("stopped for futility", stops.is_futile),
        ("null not rejected", ~stops.is_rejected & ~stops.is_futile),
    )
    rows = []
    for look in range(stops.z.shape[1]):
        for outcome, holds in outcomes:
            here = holds & (stops.look == look)
            if here.any():
                share = share_of(int(here.sum()), found.num_trials)
                rows.append(StoppedEstimate(look + 1, outcome, share, mean_of(stops.log_hazard_ratio[here])))
    return rows


def events_by_month(study: Study, months: Floats, hazard_ratio: float) -> Floats:
    """Events expected by calendar months, (months,), of patients who all enrol; no trial stops.

    Where patients change treatment it is the mean of 100 simulated trials.

    Args:
        study: The trial on its patients.
        months: (months,).
        hazard_ratio: Of each patient.
    """
    plan = study.plan
    if plan.changes:
        course = course_of(plan, draw_patients(plan, 0, 0, "months of looks"), hazard_ratio)
        calendar = np.sort(course.calendar[np.isfinite(course.calendar)])
        return np.asarray(np.searchsorted(calendar, months, side="right") / len(course.calendar))
    share = study.trial.allocation_ratio / (1 + study.trial.allocation_ratio)
    return expected_events(months, study.arms(hazard_ratio), plan.enroll_rate, plan.num_subjects, share)
