"""Several endpoints of the same simulated patient: times to events, two of them jointly, responses at a month.

A patient's numbers depend on the draws alone: the other arm, or another law, turns the same numbers into other times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.outcome.joint import JointLaw, same_rate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Law = TypeVar("Law")
Both = tuple[Law, Law]
"""What holds for the control and the experimental arm."""
_NEVER = 1e12  # months, of an event that never comes


class Draws(Protocol):
    """The random numbers of simulated trials; see `medtwin.trials.enrolment.draws.TrialDraws`."""

    def uniform(self, count: int, *purpose: str | int) -> Floats:
        """Numbers in [0, 1), (trials, count)."""
        ...

    def exponential(self, count: int, *purpose: str | int) -> Floats:
        """Exponential numbers of mean 1, (trials, count)."""
        ...


@dataclass(frozen=True)
class Group:
    """Where patients belong, (trials, patients) each.

    Attributes:
        arm: 1 experimental. inside: Whether the patient has the biomarker; None: the trial knows none.
    """

    arm: Ints
    inside: Bools | None = None

    def parts(self, outside: object | None) -> list[tuple[Ints, int, bool]]:
        """Patients of the same law: their places in the flattened arrays, their arm, whether they lack the biomarker.

        Raises:
            ValueError: If some have laws of their own and no biomarker tells who.
        """
        if outside is None:
            return [(np.flatnonzero(self.arm == arm), arm, False) for arm in (0, 1)]
        if self.inside is None:
            raise ValueError("outside must be None in a trial without a biomarker, got laws of patients without it")
        return [
            (np.flatnonzero((self.arm == arm) & (self.inside != out)), arm, out)
            for arm in (0, 1)
            for out in (False, True)
        ]


@dataclass
class Drawn:
    """What becomes of patients, (trials, patients) each, by endpoint.

    Attributes:
        months: From enrolment to the event; inf where it never comes.
        response: Whether the patient responds. response_month: When that is seen, months from enrolment.
    """

    months: dict[str, Floats] = field(default_factory=dict)
    response: dict[str, Bools] = field(default_factory=dict)
    response_month: dict[str, float] = field(default_factory=dict)


class Outcome(Protocol):
    """One or more endpoints of a scenario."""

    @property
    def times_to_event(self) -> tuple[str, ...]:
        """Names of its times to an event."""
        ...

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of its responses."""
        ...

    def draw(self, draws: Draws, group: Group, drawn: Drawn, others: Sequence[Outcome]) -> None:
        """Adds the endpoints' values of all patients to what is drawn already, of the outcomes before."""
        ...

    def survived(self, endpoint: str, group: Group, drawn: Drawn) -> Floats:
        """The probability, under each patient's own law, of a later event than the patient's, (trials, patients)."""
        ...

    def is_null(self, endpoint: str, *, inside: bool) -> bool:
        """Whether both arms are known to have the same law, of those with the biomarker or of all."""
        ...


def _checked(name: str, control: object, experimental: object, outside: Sized | None) -> None:
    if not name:
        raise ValueError(f"name must say which endpoint it is, got {name!r}")
    if control is None or experimental is None:
        raise ValueError(f"{name} must have a law of the control and of the experimental arm")
    if outside is not None and len(outside) != 2:
        raise ValueError(f"outside of {name} must be the laws of the control and the experimental arm, got {outside!r}")


def _all_null(pairs: Sequence[Both[Law]], same: Callable[[Law, Law], bool]) -> bool:
    return all(same(*pair) for pair in pairs)


@dataclass(frozen=True)
class TimeToEvent:
    """A time to an event, independent of the other endpoints.

    Attributes:
        name: Of the endpoint.
        control, experimental: Hazards per month since enrolment, by arm; they need not be proportional.
        outside: Those of patients without the biomarker, (control, experimental); None: the same.
    """

    name: str
    control: PiecewiseRate
    experimental: PiecewiseRate
    outside: Both[PiecewiseRate] | None = None

    def __post_init__(self) -> None:
        _checked(self.name, self.control, self.experimental, self.outside)

    @property
    def times_to_event(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    @property
    def responses(self) -> tuple[str, ...]:
        """None."""
        return ()

    def _law(self, arm: int, *, out: bool) -> PiecewiseRate:
        pair = self.outside if out and self.outside is not None else (self.control, self.experimental)
        return pair[arm]

    def draw(self, draws: Draws, group: Group, drawn: Drawn, others: Sequence[Outcome]) -> None:
        """Adds the times; see `Outcome`."""
        amount = np.ascontiguousarray(draws.exponential(group.arm.shape[1], "endpoint", self.name))
        flat = amount.ravel()
        for places, arm, out in group.parts(self.outside):
            flat[places] = self._law(arm, out=out).time_at(flat[places])
        drawn.months[self.name] = amount

    def survived(self, endpoint: str, group: Group, drawn: Drawn) -> Floats:
        """See `Outcome`."""
        return _of_law(drawn.months[endpoint], group, self.outside, lambda arm, out: self._law(arm, out=out))

    def is_null(self, endpoint: str, *, inside: bool) -> bool:
        """See `Outcome`."""
        pairs: list[Both[PiecewiseRate]] = [(self.control, self.experimental)]
        if self.outside is not None and not inside:
            pairs.append(self.outside)
        return _all_null(pairs, same_rate)


def _of_law(months: Floats, group: Group, outside: object | None, law: Callable[[int, bool], PiecewiseRate]) -> Floats:
    flat = months.flatten()
    for places, arm, out in group.parts(outside):
        flat[places] = np.exp(-law(arm, out).cumulative(np.minimum(flat[places], _NEVER)))
    return flat.reshape(months.shape)


@dataclass(frozen=True)
class PfsAndOs:
    """Progression-free and overall survival of the same patient.

    Attributes:
        control, experimental: Their joint laws.
        outside: Those of patients without the biomarker, (control, experimental); None: the same.
        pfs, os: Names of the endpoints.
    """

    control: JointLaw
    experimental: JointLaw
    outside: Both[JointLaw] | None = None
    pfs: str = "pfs"
    os: str = "os"

    def __post_init__(self) -> None:
        _checked(self.pfs and self.os, self.control, self.experimental, self.outside)
        if self.pfs == self.os:
            raise ValueError(f"pfs and os must have names of their own, got {self.pfs!r} twice")

    @property
    def times_to_event(self) -> tuple[str, ...]:
        """Both."""
        return self.pfs, self.os

    @property
    def responses(self) -> tuple[str, ...]:
        """None."""
        return ()

    def _law(self, arm: int, *, out: bool) -> JointLaw:
        pair = self.outside if out and self.outside is not None else (self.control, self.experimental)
        return pair[arm]

    def draw(self, draws: Draws, group: Group, drawn: Drawn, others: Sequence[Outcome]) -> None:
        """Adds the times; see `Outcome`."""
        count = group.arm.shape[1]
        purpose = "endpoint", self.pfs, self.os
        first, second = (np.ascontiguousarray(draws.exponential(count, *purpose, part)) for part in (1, 2))
        uniform = draws.uniform(count, *purpose)
        one, two, decides = first.ravel(), second.ravel(), uniform.ravel()
        for places, arm, out in group.parts(self.outside):
            law = self._law(arm, out=out)
            one[places], two[places] = law.times(one[places], two[places], decides[places])
        drawn.months |= {self.pfs: first, self.os: second}

    def survived(self, endpoint: str, group: Group, drawn: Drawn) -> Floats:
        """See `Outcome`.

        Raises:
            ValueError: Of OS, whose margin is not known in closed form.
        """
        if endpoint != self.pfs:
            raise ValueError(f"correlated_with must be {self.pfs!r}, not {endpoint!r}: its margin has no closed form")
        flat = drawn.months[endpoint].flatten()
        for places, arm, out in group.parts(self.outside):
            flat[places] = self._law(arm, out=out).pfs_survival(np.minimum(flat[places], _NEVER))
        return flat.reshape(group.arm.shape)

    def is_null(self, endpoint: str, *, inside: bool) -> bool:
        """See `Outcome`."""
        pairs: list[Both[JointLaw]] = [(self.control, self.experimental)]
        if self.outside is not None and not inside:
            pairs.append(self.outside)
        if endpoint == self.pfs:
            return _all_null(pairs, lambda one, other: one.same_pfs(other))
        return _all_null(pairs, lambda one, other: one.same_os(other))


@dataclass(frozen=True)
class Response:
    """A response that is assessed a fixed time after enrolment; who has left by then is not assessed.

    Attributes:
        name: Of the endpoint. month: Of its assessment, months from enrolment.
        control, experimental: Probabilities of a response.
        outside: Those of patients without the biomarker, (control, experimental); None: the same.
        correlation: Of the normal scores of response and of the time to the event named by `correlated_with`, above 0
            where responders have it later; a Gaussian copula.
        correlated_with: An endpoint before it; None with correlation 0.

    Raises:
        ValueError: If a number is out of its range, or one of correlation and endpoint is missing.
    """

    name: str
    month: float
    control: float
    experimental: float
    outside: Both[float] | None = None
    correlation: float = 0.0
    correlated_with: str | None = None

    def __post_init__(self) -> None:
        _checked(self.name, self.control, self.experimental, self.outside)
        if not 0 <= self.month < np.inf:
            raise ValueError(f"month of {self.name} must be 0 or more, got {self.month!r}")
        for share in (self.control, self.experimental, *(self.outside or ())):
            if not 0 <= share <= 1:
                raise ValueError(f"{self.name} must have probabilities from 0 to 1, got {share!r}")
        if not -1 < self.correlation < 1 or (self.correlation != 0) != (self.correlated_with is not None):
            raise ValueError(
                f"correlation of {self.name} must lie between -1 and 1 and come with correlated_with, got "
                f"{self.correlation!r} and {self.correlated_with!r}"
            )

    @property
    def times_to_event(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def responses(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def draw(self, draws: Draws, group: Group, drawn: Drawn, others: Sequence[Outcome]) -> None:
        """Adds the responses; see `Outcome`.

        Raises:
            ValueError: If the endpoint that it is correlated with is not drawn before it.
        """
        score = draws.uniform(group.arm.shape[1], "endpoint", self.name)
        if self.correlated_with is not None:
            mine = [each for each in others if self.correlated_with in each.times_to_event]
            if not mine or self.correlated_with not in drawn.months:
                raise ValueError(
                    f"correlated_with of {self.name} must be a time to an event that stands before it, got "
                    f"{self.correlated_with!r}"
                )
            late = ndtri(np.clip(mine[0].survived(self.correlated_with, group, drawn), 1e-15, 1 - 1e-15))
            own = ndtri(np.clip(score, 1e-15, None))
            # a late event has a small chance of a later one: both scores are small for who does well
            score = ndtr(self.correlation * late + np.sqrt(1 - self.correlation**2) * own)
        law = group.arm
        if self.outside is not None:
            if group.inside is None:
                raise ValueError(
                    "outside must be None in a trial without a biomarker, got rates of patients without it"
                )
            law = group.arm + 2 * ~group.inside
        found = score < np.array([self.control, self.experimental, *(self.outside or ())])[law]
        drawn.response[self.name], drawn.response_month[self.name] = found, self.month

    def survived(self, endpoint: str, group: Group, drawn: Drawn) -> Floats:
        """A response has no time.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"correlated_with must be a time to an event, got {endpoint!r}")

    def is_null(self, endpoint: str, *, inside: bool) -> bool:
        """See `Outcome`."""
        pairs: list[Both[float]] = [(self.control, self.experimental)]
        if self.outside is not None and not inside:
            pairs.append(self.outside)
        return _all_null(pairs, lambda one, other: one == other)


def draw_endpoints(outcomes: Sequence[Outcome], draws: Draws, group: Group) -> Drawn:
    """All endpoints of patients, one outcome after the other.

    Raises:
        ValueError: If an outcome asks for what is not there.
    """
    drawn = Drawn()
    for each in outcomes:
        each.draw(draws, group, drawn, outcomes)
    return drawn


def hazard_with_ratio(hazard: PiecewiseRate, starts: Sequence[float], ratios: ArrayLike) -> PiecewiseRate:
    """A hazard times a ratio that changes over the months since enrolment, such as a delayed effect.

    Args:
        hazard: Of the control arm.
        starts: Months at which each ratio begins, the first 0.
        ratios: Hazard ratios, 0 or more.

    Raises:
        ValueError: If they do not match or a ratio is negative.

    >>> hazard_with_ratio(PiecewiseRate((0.0,), (0.1,)), (0.0, 4.0), (1.0, 0.6)).rates
    (0.1, 0.06)
    """
    ratio = PiecewiseRate(tuple(starts), tuple(np.asarray(ratios, dtype=np.float64).tolist()))
    cuts = sorted({*hazard.starts, *ratio.starts})
    return PiecewiseRate(tuple(cuts), tuple((hazard.at(cuts) * ratio.at(cuts)).tolist()))


def names_of(outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
    """The outcome of each endpoint.

    Raises:
        ValueError: If two have the same name.
    """
    found: dict[str, Outcome] = {}
    for each in outcomes:
        for name in (*each.times_to_event, *each.responses):
            if name in found:
                raise ValueError(f"endpoints must have names of their own, got {name!r} twice")
            found[name] = each
    return found
