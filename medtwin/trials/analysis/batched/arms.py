"""The patients of many two-arm trials, checked at the door, (trials, patients): who is in which arm and analysed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Bools, Floats


@dataclass(frozen=True)
class Arms:
    """Patients of both arms, and how many of them are analysed.

    Attributes:
        experimental, control: (trials, patients) 1 for those who are analysed in the arm, else 0.
        num_experimental, num_control: (trials,) of them.
    """

    experimental: Floats
    control: Floats
    num_experimental: Floats
    num_control: Floats

    @property
    def observed(self) -> Floats:
        """(trials, patients) 1 for those who are analysed."""
        return self.experimental + self.control

    @property
    def total(self) -> Floats:
        """Patients who are analysed, (trials,)."""
        return self.num_experimental + self.num_control


def as_matrix(name: str, values: ArrayLike) -> Floats:
    """Values of every patient, (trials, patients).

    Raises:
        ValueError: If they have another shape or there are none.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{name} must be trials x patients, got the shape {found.shape!r}")
    return found


def as_marks(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Bools:
    """Yes or no for every patient, (trials, patients), from one row for all trials or one for each.

    Raises:
        ValueError: If they are not 0 or 1, or do not fit.
    """
    found = np.asarray(values)
    if found.ndim not in (1, 2) or found.shape[-1] != shape[-1] or len(np.atleast_2d(found)) not in (1, shape[0]):
        raise ValueError(f"{name} must fit {shape[0]} trials of {shape[-1]} patients, got the shape {found.shape!r}")
    if found.dtype != np.bool_ and not np.isin(found, (0, 1)).all():
        raise ValueError(f"{name} must be 0 or 1, got other values")
    return np.broadcast_to(found.astype(bool), shape)


def as_observed(observed: ArrayLike | None, shape: tuple[int, ...]) -> Bools:
    """Who is analysed, (trials, patients), from marks as of `as_marks`; None: everybody.

    Raises:
        ValueError: As of `as_marks`.
    """
    return np.ones(shape, dtype=bool) if observed is None else as_marks("observed", observed, shape)


def two_arms(shape: tuple[int, ...], experimental: ArrayLike, observed: ArrayLike | None, least: int = 1) -> Arms:
    """Who is analysed in which arm.

    Args:
        shape: Trials, patients.
        experimental: (trials, patients), or (patients,) for all trials: 1 experimental, 0 control.
        observed: The same of who is analysed; None: everybody.
        least: Patients that an arm must have.

    Raises:
        ValueError: If they do not fit, or an arm of some trial has fewer patients.
    """
    arm = as_marks("experimental", experimental, shape)
    here = as_observed(observed, shape)
    first, second = (arm & here).astype(np.float64), (here & ~arm).astype(np.float64)
    sizes = first.sum(axis=1), second.sum(axis=1)
    if min(each.min() for each in sizes) < least:
        raise ValueError(f"each arm must have {least} patients who are analysed, got a trial with fewer")
    return Arms(first, second, *sizes)


def seen(name: str, values: ArrayLike, observed: Floats) -> Floats:
    """Values of those who are analysed, 0 of the others, (trials, patients).

    Raises:
        ValueError: If one of them is not finite, or the shape is another.
    """
    found = as_matrix(name, values)
    if found.shape != observed.shape:
        raise ValueError(f"{name} must have the shape {observed.shape!r}, got {found.shape!r}")
    kept = np.where(observed > 0, found, 0.0)
    if not np.isfinite(kept).all():
        raise ValueError(f"{name} must be finite for patients who are analysed, got values that are not")
    return kept
