"""What was seen of each subject of one trial, checked at the door: times, events, arms and strata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FollowUp:
    """Times of observation, (subjects,) each; a subject is at risk in (entry, time].

    Attributes:
        entry: Start of observation, -inf where it is from the beginning.
        time: Time of the event or of censoring.
        event: Whether it is an event.
    """

    entry: Floats
    time: Floats
    event: Bools

    def __len__(self) -> int:
        return len(self.time)

    def of(self, here: Bools | Ints) -> FollowUp:
        """Some of the subjects."""
        return FollowUp(self.entry[here], self.time[here], self.event[here])

    def at_risk(self, steps: Floats) -> Ints:
        """Subjects at risk just before each step, (steps,)."""
        return count_before(self.entry, steps) - count_before(self.time, steps)


def follow_up(time: ArrayLike, event: ArrayLike, entry: ArrayLike | None = None) -> FollowUp:
    """The times and events of a trial, checked.

    Raises:
        ValueError: If they are not of one length, times are not finite, or a subject leaves before it enters.
    """
    t = np.asarray(time, dtype=np.float64)
    if t.ndim != 1 or not np.isfinite(t).all():
        raise ValueError(f"time must be a vector of finite numbers, got {time!r}")
    d = as_flags("event", event, len(t))
    start = np.full(len(t), -np.inf) if entry is None else np.asarray(entry, dtype=np.float64)
    if start.shape != t.shape or not (start < t).all():
        raise ValueError(f"entry must be one time before the end of each subject, got {entry!r}")
    return FollowUp(start, t, d)


def count_before(values: Floats, steps: Floats) -> Ints:
    """How many values lie below each step, (steps,)."""
    return np.searchsorted(np.sort(values), steps, side="left").astype(np.int64)


def count_at(values: Floats, steps: Floats) -> Ints:
    """How many values equal each step, (steps,)."""
    return np.searchsorted(np.sort(values), steps, side="right").astype(np.int64) - count_before(values, steps)


def values_at(step_times: Floats, values: Floats, times: ArrayLike, *, before: float) -> Floats:
    """A step function at each time: its value from the last step on, and `before` ahead of the first one."""
    steps = np.concatenate([[before], values])
    return np.asarray(steps[np.searchsorted(step_times, np.asarray(times, dtype=np.float64), side="right")])


def as_flags(name: str, values: ArrayLike, length: int) -> Bools:
    """Yes or no for each subject, (length,), from booleans or 0 and 1.

    Raises:
        ValueError: For any other value or length.
    """
    found = np.asarray(values)
    if found.shape != (length,) or not np.isin(found, (0, 1)).all():
        raise ValueError(f"{name} must be 0 or 1 for each of {length} subjects, got {values!r}")
    return found.astype(bool)


def as_codes(name: str, values: ArrayLike, length: int) -> tuple[tuple[Any, ...], Ints]:
    """The levels of a grouping in their order, and the number of its level for each subject, (length,).

    Raises:
        ValueError: If it has not one value for each subject.
    """
    found = np.asarray(values)
    if found.shape != (length,):
        raise ValueError(f"{name} must be one value for each of {length} subjects, got shape {found.shape!r}")
    levels, codes = np.unique(found, return_inverse=True)
    return tuple(levels.tolist()), codes.astype(np.int64)


def as_level(name: str, value: float) -> float:
    """A level of confidence.

    Raises:
        ValueError: If it does not lie between 0 and 1.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return value


def as_covariates(values: ArrayLike, length: int) -> Floats:
    """Covariates, (length, covariates) finite; one covariate may come as a vector.

    Raises:
        ValueError: If they have another shape, are not finite, or depend linearly on one another or a constant.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) != length or not np.isfinite(x).all():
        raise ValueError(f"covariates must be finite, a row for each of {length} subjects, got shape {x.shape!r}")
    spread = x - x.mean(axis=0)
    scale = np.sqrt((spread**2).sum(axis=0))
    if (scale == 0).any() or np.linalg.matrix_rank(spread / scale, tol=1e-9) < x.shape[1]:
        raise ValueError(f"covariates must be linearly independent, got {x.shape[1]!r} of lower rank")
    return x
