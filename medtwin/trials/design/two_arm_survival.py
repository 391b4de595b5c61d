"""Two arms followed for an event, in expectation: patients, events and patients at risk at any calendar month.

Every large-sample design of this folder is an integral over follow-up u of these: at calendar time t, n_i(u) = share_i
N(t - u) S_i(u) G_i(u) patients of arm i are expected to be at risk after u months (N: enrolled, S: free of events, G:
not dropped out).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard
from medtwin.trials.design.timing import Arm, follow_up_nodes

Floats = NDArray[np.float64]
_LATEST = 1e4  # months: expected events that have not come by then never will


@dataclass(frozen=True)
class Stratum:
    """One group of patients and what happens to it in either arm.

    Attributes:
        experimental: Its patients under the new treatment. control: Under the control.
        enroll_rate: Its patients per month, both arms.
    """

    experimental: Arm
    control: Arm
    enroll_rate: PiecewiseRate

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Experimental, control."""
        return self.experimental, self.control


@dataclass(frozen=True)
class FollowUp:
    """What is expected to be seen of one stratum at one calendar time, on nodes of follow-up; arm 0 is experimental.

    Attributes:
        time: (nodes,) months of follow-up. weight: (nodes,) of quadrature.
        at_risk: (2, nodes) patients of either arm still followed. hazard: (2, nodes) of the event.
        survival: (2, nodes) free of events. share: Of the stratum among the patients planned.
    """

    time: Floats
    weight: Floats
    at_risk: Floats
    hazard: Floats
    survival: Floats
    share: float

    @property
    def events(self) -> Floats:
        """(2, nodes) events, weighted for quadrature: sums over nodes are expected counts."""
        return self.weight * self.at_risk * self.hazard


@dataclass(frozen=True)
class TwoArmSurvival:
    """A trial of two arms with staggered entry.

    Attributes:
        strata: Groups of patients, each with its own enrolment and hazards.
        enroll_duration: Month at which enrolment ends.
        allocation_ratio: Experimental : control, in every stratum.
        max_follow_up: Months after which a patient is no longer followed; inf: until the analysis.

    Raises:
        ValueError: If there is no stratum, or a number is not above 0.
    """

    strata: Sequence[Stratum]
    enroll_duration: float
    allocation_ratio: float = 1.0
    max_follow_up: float = np.inf

    def __post_init__(self) -> None:
        if not len(self.strata):
            raise ValueError(f"strata must be at least one, got {list(self.strata)!r}")
        for name in ("enroll_duration", "allocation_ratio", "max_follow_up"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of the patients in the experimental and the control arm."""
        return self.allocation_ratio / (1 + self.allocation_ratio), 1 / (1 + self.allocation_ratio)

    @cached_property
    def stratum_shares(self) -> tuple[float, ...]:
        """Shares of the strata among the patients planned."""
        counts = [float(each.enroll_rate.cumulative(self.enroll_duration)) for each in self.strata]
        return tuple(count / sum(counts) for count in counts)

    @property
    def num_subjects(self) -> float:
        """Patients planned."""
        return float(self.subjects(self.enroll_duration))

    def subjects(self, time: ArrayLike) -> Floats:
        """Patients enrolled by each calendar month, in the shape of `time`."""
        until = np.minimum(np.asarray(time, dtype=np.float64), self.enroll_duration)
        return np.asarray(np.sum([each.enroll_rate.cumulative(until) for each in self.strata], axis=0))

    def follow_up(self, stratum: int, time: float, *, cuts: Iterable[float] = (), until: float = np.inf) -> FollowUp:
        """What is expected of a stratum at a calendar month.

        Args:
            stratum: Its place.
            time: Calendar month of the analysis.
            cuts: Months of follow-up at which an integrand of the caller jumps.
            until: Months of follow-up after which nothing is looked at.
        """
        group = self.strata[stratum]
        last = min(time, self.max_follow_up, until)
        edges = {0.0, last, time - self.enroll_duration, *cuts, *(time - start for start in group.enroll_rate.starts)}
        for arm in group.arms:
            edges.update(arm.cuts)
        graded = any(isinstance(arm.hazard, WeibullHazard) for arm in group.arms)
        u, weight = follow_up_nodes(sorted(edge for edge in edges if 0 <= edge <= last), graded=graded)
        enrolled = group.enroll_rate.cumulative(np.minimum(time - u, self.enroll_duration))
        at_risk = np.array(
            [share * enrolled * arm.retained(u) for share, arm in zip(self.shares, group.arms, strict=True)]
        )
        hazard = np.array([arm.hazard_at(u) for arm in group.arms])
        survival = np.array([arm.survival(u) for arm in group.arms])
        return FollowUp(u, weight, at_risk, hazard, survival, self.stratum_shares[stratum])

    def all_follow_up(self, time: float, *, cuts: Iterable[float] = (), until: float = np.inf) -> list[FollowUp]:
        """What is expected of every stratum at a calendar month, see `follow_up`."""
        chosen = tuple(cuts)
        return [self.follow_up(i, time, cuts=chosen, until=until) for i in range(len(self.strata))]

    def events(self, time: float) -> Floats:
        """Expected events by a calendar month, (strata, 2): experimental, control."""
        return np.array([seen.events.sum(axis=1) for seen in self.all_follow_up(time)])

    def total_events(self, time: float) -> float:
        """Expected events of both arms by a calendar month."""
        return float(self.events(time).sum())

    def dropouts(self, time: float) -> Floats:
        """Expected patients who left without an event by a calendar month, (strata, 2): experimental, control."""
        found = []
        for seen, group in zip(self.all_follow_up(time), self.strata, strict=True):
            leaving = np.array([arm.dropout.at(seen.time) for arm in group.arms])
            found.append((seen.weight * seen.at_risk * leaving).sum(axis=1))
        return np.array(found)

    def at_risk(self, follow_up: ArrayLike, time: float) -> Floats:
        """Patients followed for each of so many months by a calendar month, (times, 2): experimental, control."""
        u = np.minimum(np.atleast_1d(np.asarray(follow_up, dtype=np.float64)), min(self.max_follow_up, time))
        found = np.zeros((len(u), 2))
        for group in self.strata:
            enrolled = group.enroll_rate.cumulative(np.minimum(time - u, self.enroll_duration))
            for i, arm in enumerate(group.arms):
                found[:, i] += self.shares[i] * enrolled * arm.retained(u)
        return found

    def time_of_events(self, events: ArrayLike, latest: float = _LATEST) -> Floats:
        """The calendar months by which so many events are expected, in both arms; inf where not by `latest`."""
        most = self.total_events(latest)
        return np.array([self._time_of(float(d), most, latest) for d in np.atleast_1d(np.asarray(events))])

    def _time_of(self, events: float, most: float, latest: float) -> float:
        if events <= 0:
            return 0.0
        if events > most * (1 + 1e-12):
            return np.inf
        high = min(latest, self.enroll_duration)
        while high < latest and self.total_events(high) < events:
            high = min(2 * high, latest)
        if self.total_events(high) <= events:
            return high
        return float(brentq(lambda t: self.total_events(t) - events, 0.0, high, xtol=1e-10))

    def enrolling(self, factor: float) -> TwoArmSurvival:
        """The same with every rate of enrolment multiplied."""
        strata = tuple(Stratum(s.experimental, s.control, s.enroll_rate.scaled(factor)) for s in self.strata)
        return TwoArmSurvival(strata, self.enroll_duration, self.allocation_ratio, self.max_follow_up)

    def enrolling_for(self, duration: float) -> TwoArmSurvival:
        """The same with enrolment that ends at another month."""
        return TwoArmSurvival(self.strata, duration, self.allocation_ratio, self.max_follow_up)

    def under_null(self, hazard_ratio: float = 1.0) -> TwoArmSurvival:
        """The same with the control's hazards, times the null hazard ratio, in the experimental arm."""
        strata = tuple(
            Stratum(Arm(s.control.hazard.scaled(hazard_ratio), s.experimental.dropout_rate), s.control, s.enroll_rate)
            for s in self.strata
        )
        return TwoArmSurvival(strata, self.enroll_duration, self.allocation_ratio, self.max_follow_up)
