"""When events are expected: enrolment, hazards and dropout joined, without simulation. Time is in calendar months."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard

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

    hazard: PiecewiseRate | WeibullHazard
    dropout_rate: float | PiecewiseRate = 0.0
    risks: Sequence[float] = (1.0,)

    @property
    def dropout(self) -> PiecewiseRate:
        """The hazard of leaving without an event, over time."""
        rate = self.dropout_rate
        return rate if isinstance(rate, PiecewiseRate) else PiecewiseRate((0.0,), (float(rate),))

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months of follow-up at which the hazard or the dropout changes, or much fewer patients are left.

        Between them the share at risk is smooth and falls by a factor of e^8 at most, until e^-40 are left.
        """
        falls = 8.0 * np.arange(1, 6)
        events = [self.hazard.time_at(falls / risk) for risk in {min(self.risks), max(self.risks)} if risk > 0]
        times = np.concatenate([*events, self.dropout.time_at(falls)])
        return (*self.hazard.starts, *self.dropout.starts, *times[np.isfinite(times)].tolist())

    def treated(self, hazard_ratio: float) -> Arm:
        """The same patients under a treatment that multiplies their hazard."""
        return Arm(self.hazard, self.dropout_rate, tuple(hazard_ratio * risk for risk in self.risks))

    def survival(self, time: ArrayLike) -> Floats:
        """The share without an event by each time of follow-up, were there no dropout, in the shape of `time`."""
        total = self.hazard.cumulative(time)
        return np.asarray(np.mean([np.exp(-risk * total) for risk in self.risks], axis=0))

    def hazard_at(self, time: ArrayLike) -> Floats:
        """The hazard among those still at risk at each time of follow-up, in the shape of `time`."""
        risks, least = np.asarray(self.risks, dtype=np.float64), min(self.risks)
        excess = [np.exp(-(risk - least) * self.hazard.cumulative(time)) for risk in risks]
        mean_risk = np.tensordot(risks, excess, axes=1) / np.sum(excess, axis=0)
        return np.asarray(self.hazard.at(time) * mean_risk)

    def retained(self, time: ArrayLike) -> Floats:
        """The share neither with an event nor dropped out at each time of follow-up, in the shape of `time`."""
        return np.asarray(self.survival(time) * np.exp(-self.dropout.cumulative(time)))


def follow_up_nodes(edges: ArrayLike, *, graded: bool = False) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights over follow-up, both (24 x pieces,), between edges where an integrand may jump.

    Args:
        edges: (pieces + 1,) months, increasing.
        graded: Whether the nodes of the first piece gather at its start (u = b v^4), where the density of a Weibull
            time is a power of u.
    """
    cuts = np.asarray(edges, dtype=np.float64)
    if len(cuts) < 2:
        return np.zeros(0), np.zeros(0)
    x, w = _GAUSS
    half = 0.5 * np.diff(cuts)[:, None]
    u, weight = half * x + cuts[:-1, None] + half, half * w
    if graded:
        v = 0.5 * (x + 1.0)
        u[0], weight[0] = cuts[0] + 2.0 * half[0] * v**4, 4.0 * half[0] * w * v**3
    return u.ravel(), weight.ravel()


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
    cuts = {0.0, time, *arm.cuts, *(time - start for start in enroll_rate.starts), time - end}
    graded = isinstance(arm.hazard, WeibullHazard)
    u, weight = follow_up_nodes(sorted(cut for cut in cuts if 0 <= cut <= time), graded=graded)
    enrolled = np.minimum(enroll_rate.cumulative(time - u), num_subjects) / num_subjects
    return float((arm.hazard_at(u) * arm.retained(u) * enrolled) @ weight)


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
