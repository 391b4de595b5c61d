"""The patients of many trials in order of stratum and time, with the risk set of each: what all tests of them share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.analysis.follow_up import Bools, Floats, Ints

_MOST_STRATA = 2**15  # their numbers are sorted as 16-bit integers, and take as many bits of a time's 52


@dataclass(frozen=True)
class TrialsInOrder:
    """Patients of every trial in order of stratum and time; arrays are (trials, patients).

    At one time in one stratum events come before ends of follow-up, as those who leave then are still at risk.

    Attributes:
        time: To event or censoring, to 2 + log2(strata) bits less than double precision.
        event: Whether it is an event. arm: 1 experimental, 0 control.
        stratum: From 0. num_strata: How many there are in all trials.
        at_risk, at_risk_1: Patients, and experimental ones, of the stratum at risk just before the time.
        tied, tied_1: Events, and experimental ones, at the time in the stratum; 1 and the arm where no two events tie.
            What they are at ends of follow-up means nothing.
        rank: Number of the event among those of its time and stratum, from 0.
    """

    time: Floats
    event: Bools
    arm: Bools
    stratum: Ints
    num_strata: int
    at_risk: Ints
    at_risk_1: Ints
    tied: Ints
    tied_1: Ints
    rank: Ints

    @cached_property
    def survival(self) -> Floats:
        """Kaplan-Meier estimate of both arms of the stratum together, just before each time.

        What stands at ends of follow-up means nothing.
        """
        with np.errstate(divide="ignore"):
            fall = np.where(self.event, np.log(1 - self.tied / self.at_risk), 0.0)
        fall[np.isneginf(fall)] = 0.0  # nobody of the stratum is left, so nothing of it follows
        fall /= self.tied
        before = np.cumsum(fall, axis=1) - fall * (1 + self.rank)
        if self.num_strata > 1:
            before -= np.take_along_axis(before, self._first_of_stratum, axis=1)
        before[before > -1e-12] = 0.0  # no step is as small: what is left of sums that cancel
        return np.asarray(np.exp(before))

    def as_time(self, months: float) -> float:
        """A time as it would stand in `time`: two that are tied are equal."""
        bits = (np.array([months]) + 0.0).view(np.int64) & -(1 << _num_bits(self.num_strata))
        return float(bits.view(np.float64)[0]) if np.isfinite(months) else months

    @property
    def _first_of_stratum(self) -> Ints:
        """The place at which the stratum of each patient begins."""
        return _starts(np.diff(self.stratum, axis=1) > 0)


def order_trials(time: ArrayLike, event: ArrayLike, arm: ArrayLike, stratum: ArrayLike | None = None) -> TrialsInOrder:
    """The patients of every trial in order.

    Times count as tied where they differ in no more than their last 2 + log2(strata) bits.

    Args:
        time: (trials, patients) to event or censoring, 0 or more; whoever is not yet enrolled has 0 and no event.
        event: (trials, patients) whether it is an event.
        arm: (trials, patients) 1 experimental, 0 control.
        stratum: (trials, patients) from 0, at most 32767; None: no strata.

    Raises:
        ValueError: For arrays of other shapes, times that are negative or not finite, events and arms that are not 0
            or 1, strata that are no such numbers.
    """
    t = np.asarray(time, dtype=np.float64)
    if t.ndim != 2 or not t.size:
        raise ValueError(f"time must be (trials, patients), at least one of each, got shape {t.shape!r}")
    if not (t.min() >= 0 and t.max() < np.inf):
        raise ValueError(f"time must be finite and 0 or more, got {float(t.min())!r} to {float(t.max())!r}")
    d, a = _flags("event", event, t.shape), _flags("arm", arm, t.shape)
    s, num_strata = _strata(stratum, t.shape)
    bits = _num_bits(num_strata)
    keys = (t + 0.0).view(np.int64) & -(1 << bits)  # + 0.0: no negative zeros
    if s is not None:
        keys |= s << 2
    keys |= np.left_shift(~d, 1, dtype=np.int64)
    keys |= a
    keys.sort(axis=1)
    stratum_in_order = np.zeros(t.shape, dtype=np.int64)
    if s is not None:
        code = (keys >> 2 & (1 << bits - 2) - 1).astype(np.int16)
        keys = np.take_along_axis(keys, np.argsort(code, axis=1, kind="stable"), axis=1)
        stratum_in_order = keys >> 2 & (1 << bits - 2) - 1
    low = keys.astype(np.uint8)
    in_order = (keys & -(1 << bits)).view(np.float64)
    return _with_risk_sets(in_order, (low & 2) == 0, (low & 1) == 1, stratum_in_order, num_strata)


def _num_bits(num_strata: int) -> int:
    """Of a time, that make room for stratum, event and arm."""
    return 2 + (num_strata - 1).bit_length()


def _flags(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Bools:
    found = np.asarray(values)
    if found.shape != shape:
        raise ValueError(f"{name} must have the shape of time, {shape!r}, got {found.shape!r}")
    if found.dtype != bool and not ((found == 0) | (found == 1)).all():
        raise ValueError(f"{name} must be 0 or 1 of every patient, got {found.dtype} of other values")
    return found.astype(bool)


def _strata(stratum: ArrayLike | None, shape: tuple[int, ...]) -> tuple[Ints | None, int]:
    if stratum is None:
        return None, 1
    found = np.asarray(stratum)
    if found.shape != shape or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"stratum must be integers of the shape of time, {shape!r}, got {found.dtype} {found.shape!r}")
    low, high = int(found.min()), int(found.max())
    if not 0 <= low <= high < _MOST_STRATA:
        raise ValueError(f"stratum must be from 0 to {_MOST_STRATA - 1}, got {low} to {high}")
    return (found.astype(np.int64), high + 1) if high else (None, 1)


def _with_risk_sets(time: Floats, event: Bools, arm: Bools, stratum: Ints, num_strata: int) -> TrialsInOrder:
    position = np.arange(time.shape[1])
    until_1 = np.cumsum(arm, axis=1, dtype=np.int64)
    if num_strata > 1:
        last = _ends(np.diff(stratum, axis=1) > 0)
        at_risk = last - position + 1
        at_risk_1 = np.take_along_axis(until_1, last, axis=1) - until_1 + arm
    else:
        at_risk = np.broadcast_to(len(position) - position, time.shape)
        at_risk_1 = until_1[:, -1:] - until_1 + arm
    is_tie = (np.diff(time, axis=1) == 0) & event[:, 1:] & (np.diff(stratum, axis=1) == 0)
    tied, tied_1, rank = np.ones((1, 1), dtype=np.int64), arm.astype(np.int64), np.zeros((1, 1), dtype=np.int64)
    if is_tie.any():  # an event that follows another of its time and stratum
        first, last = _starts(~is_tie), _ends(~is_tie)
        rank, tied = position - first, last - first + 1
        at_risk = np.take_along_axis(at_risk, first, axis=1)
        at_risk_1 = np.take_along_axis(at_risk_1, first, axis=1)
        tied_1 = np.take_along_axis(until_1, last, axis=1) - np.take_along_axis(until_1 - arm, first, axis=1)
    shape = time.shape
    return TrialsInOrder(
        time=time,
        event=event,
        arm=arm,
        stratum=stratum,
        num_strata=num_strata,
        at_risk=at_risk,
        at_risk_1=at_risk_1,
        tied=np.broadcast_to(tied, shape),
        tied_1=tied_1,
        rank=np.broadcast_to(rank, shape),
    )


def _starts(changes: NDArray[np.bool_]) -> Ints:
    """The first place of each place's run; changes: (trials, patients - 1) whether a run ends before the next place."""
    places = np.zeros((len(changes), changes.shape[1] + 1), dtype=np.int64)
    np.multiply(changes, np.arange(1, places.shape[1]), out=places[:, 1:])
    return np.asarray(np.maximum.accumulate(places, axis=1))


def _ends(changes: NDArray[np.bool_]) -> Ints:
    """The last place of each place's run, see `_starts`."""
    count = changes.shape[1] + 1
    return np.asarray(count - 1 - _starts(changes[:, ::-1])[:, ::-1])
