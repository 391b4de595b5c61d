"""When events are expected: enrolment, hazards and dropout joined, without simulation. Time is in calendar months."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.hazard import PiecewiseRate

Floats = NDArray[np.float64]
_GAUSS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True)
class Arm:
    """What happens to the patients of one arm.

    Attributes:
        hazard: Of the event, at risk 1.
        dropout_rate: Monthly hazard of leaving without an event.
        risks: (groups,) relative hazards of equally large groups of patients; one group of risk 1 by default.
    """

    hazard: PiecewiseRate
    dropout_rate: float = 0.0
    risks: Sequence[float] = (1.0,)

    def treated(self, hazard_ratio: float) -> Arm:
        """The same patients under a treatment that multiplies their hazard."""
        return Arm(self.hazard, self.dropout_rate, tuple(hazard_ratio * risk for risk in self.risks))


def event_probability(time: ArrayLike, arm: Arm, enroll_rate: PiecewiseRate, num_subjects: float) -> Floats:
    """P(event by each calendar time) per planned subject: those not yet enrolled count as free of events.

    Args:
        time: (times,) calendar months.
        arm: Who they are.
        enroll_rate: Patients per month.
        num_subjects: Enrolment ends with so many.
    """
    return np.array([_by(float(t), arm, enroll_rate, num_subjects) for t in np.atleast_1d(np.asarray(time))])


def _by(time: float, arm: Arm, enroll_rate: PiecewiseRate, num_subjects: float) -> float:
    """The integral over follow-up u of hazard(u) survival(u) x share enrolled by time - u, piece by piece."""
    end = float(enroll_rate.time_at([num_subjects])[0])
    cuts = {0.0, time, *arm.hazard.starts, *(time - start for start in enroll_rate.starts), time - end}
    edges = np.array(sorted(cut for cut in cuts if 0 <= cut <= time))
    if len(edges) < 2:
        return 0.0
    x, w = _GAUSS
    half = 0.5 * np.diff(edges)[:, None]
    u = (half * x + edges[:-1, None] + half).ravel()
    weight = (half * w).ravel()
    enrolled = np.minimum(enroll_rate.cumulative(time - u), num_subjects) / num_subjects
    hazard, total = arm.hazard.at(u), arm.hazard.cumulative(u)
    risks = np.asarray(arm.risks, dtype=np.float64)[:, None]
    density = risks * hazard * np.exp(-risks * total - arm.dropout_rate * u)
    return float((density.mean(axis=0) * enrolled) @ weight)


def expected_events(
    time: ArrayLike, arms: tuple[Arm, Arm], enroll_rate: PiecewiseRate, num_subjects: float, share: float = 0.5
) -> Floats:
    """Expected events by each calendar time, (times,), of both arms together.

    Args:
        time: (times,) calendar months.
        arms: Experimental, control.
        enroll_rate: Patients per month, both arms.
        num_subjects: Enrolment ends with so many.
        share: Share of the patients in the experimental arm.
    """
    experimental, control = (event_probability(time, arm, enroll_rate, num_subjects) for arm in arms)
    return num_subjects * (share * experimental + (1 - share) * control)


def time_of_events(events: ArrayLike, expected: Callable[[float], float], *, latest: float = 1200.0) -> Floats:
    """The calendar month at which so many events are expected, (numbers,); inf where not by `latest`.

    Args:
        events: (numbers,) counts.
        expected: Expected events by a calendar month, increasing.
        latest: The last month looked at.
    """
    most = expected(latest)
    wanted = np.atleast_1d(np.asarray(events, dtype=np.float64))
    return np.array([_root(expected, float(d), latest) if d < most else np.inf for d in wanted])


def _root(expected: Callable[[float], float], events: float, latest: float) -> float:
    return float(brentq(lambda t: expected(t) - events, 0.0, latest, xtol=1e-8)) if events > 0 else 0.0
