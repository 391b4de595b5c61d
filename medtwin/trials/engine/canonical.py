"""The fast level: instead of a trial's patients, the joint normal statistic that its looks have in theory.

Z_1..Z_K are canonical joint normal given the information at the looks, whatever the endpoint and the test; what the
patients, their number and the calendar do to a trial beyond that is seen at the patient level alone. Number k of trial
i depends on (seed, k, i): neither on how many trials are drawn together, nor on the design or the drift.

Source: Jennison & Turnbull 2000, Group Sequential Methods, chapters 3 and 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from medtwin.trials.design.boundaries import Bounds, fractions
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.engine.bound_surface import BoundSurface, InformationRange
from medtwin.trials.engine.estimates import Estimate, share_of
from medtwin.trials.enrolment.draws import philox

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Drift = float | Sequence[float]
"""An effect as theta, E Z_k = theta sqrt(t_k) at information t_k in fractions of the planned maximum: E Z there, or for
an effect that changes from look to look (or a test whose z is not quite normal) a theta of each look, (looks,)."""
BLOCK = 8192
_HALF_STEP = 2.0**-54  # uniform numbers lie in the middle of their cells: none is 0


@dataclass(frozen=True)
class ConditionalPowerStop:
    """A non-binding stop for futility: where the conditional power at the planned end is at or below a threshold.

    Attributes:
        threshold: Between 0 and 1.
        trend: Under the effect as it is estimated then; else under that of the design.

    Raises:
        ValueError: If the threshold is no probability.

    Source: Lan & Wittes 1988, Biometrics 44:579.
    """

    threshold: float
    trend: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold!r}")

    def bound(self, information: ArrayLike, last_bound: float, drift: float) -> Floats:
        """The z at or below which the conditional power is so low, in the shape of the information.

        Args:
            information: Fractions of the planned maximum, below 1.
            last_bound: The efficacy bound at the planned maximum.
            drift: E Z there under the alternative of the design.
        """
        t = np.asarray(information, dtype=np.float64)
        needed = last_bound + np.sqrt(1 - t) * float(ndtri(self.threshold))
        if self.trend:
            return np.asarray(np.sqrt(t) * needed)
        return np.asarray((needed - drift * (1 - t)) / np.sqrt(t))


@dataclass(frozen=True)
class CanonicalDesign:
    """A group-sequential design as the law of its statistic.

    Attributes:
        plan: Errors, spending, whether futility is binding.
        information: (looks,) planned, increasing, in any unit, as of whole events; None: the plan's looks.
        observed: Where it lies in truth, as fractions of the planned maximum: bounds are recomputed at it. None: as
            planned.
        conditional_power: Stops for futility in the place of bounds that spend beta.
        obeys_futility: Whether a trial stops at non-binding futility bounds.
        futility_shift: (looks,) added to the futility bounds of the plan, where the drift suits a test's efficacy
            bounds and its z is not quite normal; None: nothing.

    Raises:
        ValueError: If information does not increase, the ranges are not one per look, there are two rules of futility,
            or bounds are disregarded on which alpha counts.
    """

    plan: GroupSequential
    information: Sequence[float] | None = None
    observed: InformationRange | None = None
    conditional_power: ConditionalPowerStop | None = None
    obeys_futility: bool = True
    futility_shift: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.observed is not None and self.observed.num_looks != self.num_looks:
            raise ValueError(f"observed must be of {self.num_looks} looks, got {self.observed.num_looks}")
        if self.conditional_power is not None and self.plan.futility is not None:
            raise ValueError("conditional_power stands in the place of plan.futility: give one of them")
        if self.plan.binding and not self.obeys_futility:
            raise ValueError("obeys_futility must be true where the futility bounds are binding")
        if self.futility_shift is not None and len(self.futility_shift) != self.num_looks:
            raise ValueError(f"futility_shift must be of {self.num_looks} looks, got {len(self.futility_shift)}")

    @cached_property
    def fractions(self) -> Floats:
        """Of the planned maximum, (looks,)."""
        return fractions(self.plan.looks if self.information is None else self.information)

    @property
    def num_looks(self) -> int:
        """Looks."""
        return len(self.fractions)

    @cached_property
    def bounds(self) -> Bounds:
        """At the planned information, with the drift of the alternative; not those of `conditional_power`."""
        return self.plan.bounds_at(self.fractions.tolist())

    @cached_property
    def surface(self) -> BoundSurface | None:
        """The bounds at other information; None where it is as planned."""
        return None if self.observed is None else BoundSurface(self.plan, self.observed, self.bounds.drift)

    def efficacy(self, look: int, information: Floats) -> Floats:
        """Z bounds at a look, () or (trials,), given (looks so far, trials) information."""
        if self.surface is None:
            return np.asarray(self.bounds.efficacy[look])
        return self.surface.efficacy(look, information)

    def futility(self, look: int, information: Floats) -> Floats | None:
        """Z bounds at a look, () or (trials,); None: none, as at the last look."""
        if look + 1 == self.num_looks or not self.obeys_futility:
            return None
        if self.conditional_power is not None:
            now = self.fractions[look] if self.surface is None else information[look]
            return self.conditional_power.bound(now, float(self.bounds.efficacy[-1]), self.bounds.drift)
        if self.plan.futility is None:
            return None
        shift = 0.0 if self.futility_shift is None else self.futility_shift[look]
        if self.surface is None:
            return np.asarray(self.bounds.futility[look] + shift)
        return np.asarray(self.surface.futility(look, information) + shift)


@dataclass(frozen=True)
class CanonicalTrials:
    """Trials under one drift.

    Attributes:
        information: (trials, looks) fractions of the planned maximum.
        z: (trials, looks) the statistic, also after the stop.
        look: (trials,) at which it stopped, from 0. is_rejected, is_futile: (trials,) how.
    """

    information: Floats
    z: Floats
    look: Ints
    is_rejected: Bools
    is_futile: Bools

    @property
    def estimate(self) -> Floats:
        """The effect as estimated at the stop, (trials,), in the unit of the drift."""
        rows = np.arange(len(self.look))
        return np.asarray(self.z[rows, self.look] / np.sqrt(self.information[rows, self.look]))


@dataclass(frozen=True)
class _Draws:
    """What trials have in common under all drifts: information and noise of each look, and the bounds, by look."""

    information: Floats
    noise: Floats
    efficacy: Sequence[Floats]
    futility: Sequence[Floats | None]


def _thetas(drift: Drift, num_looks: int) -> tuple[float, ...]:
    """The theta of each look.

    Raises:
        ValueError: If it is not finite, or not one or one per look.
    """
    found = (float(drift),) * num_looks if isinstance(drift, int | float) else tuple(map(float, drift))
    if len(found) != num_looks or not all(map(math.isfinite, found)):
        raise ValueError(f"drifts must be finite, each a number or {num_looks} of them, got {drift!r}")
    return found


def _uniform(seed: int, first: int, count: int, *purpose: str | int) -> Floats:
    """Numbers `first` and on of a purpose, (count,) in (0, 1); Philox makes four for each step of its counter."""
    source = philox(seed, 0, "canonical", *purpose)
    bits = source.bit_generator
    assert isinstance(bits, np.random.Philox)
    bits.advance(first // 4)
    skipped = first % 4
    found = source.random(count + skipped)[skipped:]
    found += _HALF_STEP
    return found


def _draw(design: CanonicalDesign, seed: int, first: int, count: int) -> _Draws:
    looks = design.num_looks
    if design.observed is None:
        information = design.fractions[:, None]
    else:
        shares = np.stack([_uniform(seed, first, count, "information", look) for look in range(looks)])
        information = design.observed.at(shares)
    score: Floats = np.zeros(count)
    noise = np.empty((looks, count))
    steps = np.sqrt(np.diff(information, axis=0, prepend=0.0))
    for look in range(looks):
        score = score + steps[look] * ndtri(_uniform(seed, first, count, "increment", look))
        noise[look] = score / np.sqrt(information[look])
    efficacy = [design.efficacy(look, information[: look + 1]) for look in range(looks)]
    futility = [design.futility(look, information[: look + 1]) for look in range(looks)]
    return _Draws(information, noise, efficacy, futility)


def canonical_trials(design: CanonicalDesign, drift: Drift, seed: int, first: int, count: int) -> CanonicalTrials:
    """Some trials, one by one.

    Args:
        design: Of the trials.
        drift: Their effect.
        seed: Of the run.
        first: The number of the first trial, from 0.
        count: How many.

    Raises:
        ValueError: If a number is out of its range.
    """
    _check_trials(first, count)
    draws = _draw(design, seed, first, count)
    look = np.full(count, design.num_looks - 1)
    is_rejected, is_futile, is_running = (np.full(count, value) for value in (False, False, True))
    theta = np.array(_thetas(drift, design.num_looks))[:, None]
    z = draws.noise + theta * np.sqrt(draws.information)
    for k, (upper, lower) in enumerate(zip(draws.efficacy, draws.futility, strict=True)):
        over = is_running & (z[k] >= upper)
        under = is_running & ~over & (z[k] <= lower) if lower is not None else np.zeros(count, dtype=np.bool_)
        is_rejected |= over
        is_futile |= under
        look[over | under] = k
        is_running &= ~(over | under)
    information = np.broadcast_to(draws.information, z.shape)
    return CanonicalTrials(information.T.copy(), z.T.copy(), look, is_rejected, is_futile)


@dataclass(frozen=True)
class CanonicalCounts:
    """How many trials did what, and what they knew when they stopped.

    Attributes:
        drifts: (drifts, looks) theta at each look. num_trials: Of each.
        rejected, futile, stopped: (drifts, looks) trials, by the look at which they stopped; the last look's `stopped`
            are all that came there.
        information: (drifts, 2) sums of the information at the stop and of its square.
        estimate: (drifts, 2) sums of the estimated drift at the stop and of its square.
    """

    drifts: tuple[tuple[float, ...], ...]
    num_trials: int
    rejected: Ints
    futile: Ints
    stopped: Ints
    information: Floats
    estimate: Floats

    def plus(self, other: CanonicalCounts) -> CanonicalCounts:
        """Those of more trials of the same drifts.

        Raises:
            ValueError: If the drifts differ.
        """
        if self.drifts != other.drifts:
            raise ValueError(f"drifts must be the same, got {self.drifts} and {other.drifts}")
        names = ("num_trials", "rejected", "futile", "stopped", "information", "estimate")
        return CanonicalCounts(self.drifts, *(getattr(self, name) + getattr(other, name) for name in names))

    def power(self, drift: int) -> Estimate:
        """Share of trials that rejected the null, under one of the drifts, counted from 0."""
        return share_of(int(self.rejected[drift].sum()), self.num_trials)

    def rejected_at(self, drift: int, look: int) -> Estimate:
        """Share of trials that rejected the null at a look."""
        return share_of(int(self.rejected[drift, look]), self.num_trials)

    def futile_at(self, drift: int, look: int) -> Estimate:
        """Share of trials that stopped for futility at a look."""
        return share_of(int(self.futile[drift, look]), self.num_trials)

    def mean_information(self, drift: int) -> Estimate:
        """Mean information at the stop, as a fraction of the planned maximum."""
        return _mean(self.num_trials, *self.information[drift].tolist())

    def mean_estimate(self, drift: int) -> Estimate:
        """Mean estimated drift at the stop; less the true one it is the bias."""
        return _mean(self.num_trials, *self.estimate[drift].tolist())

    def mean_of_looks(self, drift: int, amounts: ArrayLike) -> Estimate:
        """Mean at the stop of an amount that each look has, (looks,), such as its calendar month."""
        each, count = np.asarray(amounts, dtype=np.float64), self.stopped[drift]
        return _mean(self.num_trials, float(count @ each), float(count @ each**2))


@dataclass(frozen=True)
class CanonicalTask:
    """Consecutive trials under some drifts: a unit of work that depends on nothing else."""

    design: CanonicalDesign
    drifts: tuple[tuple[float, ...], ...]
    seed: int
    first: int
    count: int


def canonical_tasks(
    design: CanonicalDesign, drifts: Sequence[Drift], num_trials: int, seed: int, *, trials_per_task: int = 250_000
) -> list[CanonicalTask]:
    """The work, in a fixed order.

    Args:
        design: Of the trials.
        drifts: Effects, each tried on the same noise.
        num_trials: Under each drift.
        seed: Of the run.
        trials_per_task: The result does not depend on it.

    Raises:
        ValueError: If there are no trials or no drifts, or a drift is not finite or not of the looks.
    """
    _check_trials(0, num_trials)
    if not len(drifts):
        raise ValueError("drifts must be one or more, got none")
    if trials_per_task < 1:
        raise ValueError(f"trials_per_task must be 1 or more, got {trials_per_task!r}")
    starts = range(0, num_trials, trials_per_task)
    chosen = tuple(_thetas(drift, design.num_looks) for drift in drifts)
    return [CanonicalTask(design, chosen, seed, start, min(trials_per_task, num_trials - start)) for start in starts]


def run_canonical(task: CanonicalTask) -> CanonicalCounts:
    """What the trials of a task did."""
    end = task.first + task.count
    parts = [_count(task, start, min(BLOCK, end - start)) for start in range(task.first, end, BLOCK)]
    return joined(parts)


def joined(parts: Iterable[CanonicalCounts]) -> CanonicalCounts:
    """The counts of all of them.

    Raises:
        ValueError: If there are none.
    """
    total: CanonicalCounts | None = None
    for part in parts:
        total = part if total is None else total.plus(part)
    if total is None:
        raise ValueError("parts must be one or more, got none")
    return total


def simulate_canonical(
    design: CanonicalDesign, drifts: Sequence[Drift], num_trials: int, seed: int = 0
) -> CanonicalCounts:
    """What trials do under each drift, in this process; see `canonical_tasks`.

    >>> found = simulate_canonical(CanonicalDesign(GroupSequential(looks=(0.5, 1.0))), [0.0], 100_000, seed=1)
    >>> abs(found.power(0).value - 0.025) < 4 * found.power(0).standard_error
    True
    """
    return joined(map(run_canonical, canonical_tasks(design, drifts, num_trials, seed)))


def _mean(count: int, total: float, squares: float, level: float = 0.95) -> Estimate:
    """A mean, with the normal interval, from sums."""
    mean = total / count
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, level)
    error = math.sqrt(max(squares - count * mean**2, 0.0) / (count - 1) / count)
    half = float(ndtri(0.5 + level / 2)) * error
    return Estimate(mean, error, mean - half, mean + half, level)


def _check_trials(first: int, count: int) -> None:
    if first < 0 or count < 1:
        raise ValueError(f"num_trials must be 1 or more and the first 0 or more, got {count!r} and {first!r}")


def _count(task: CanonicalTask, first: int, count: int) -> CanonicalCounts:
    """What one block did."""
    design, draws = task.design, _draw(task.design, task.seed, first, count)
    shape = (len(task.drifts), design.num_looks)
    rejected, futile, stopped = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    information, estimate = np.zeros((shape[0], 2)), np.zeros((shape[0], 2))
    for row, theta in enumerate(task.drifts):
        running: Ints | slice = slice(None)
        for k in range(design.num_looks):
            now = draws.information[k] if draws.information.shape[1] == 1 else draws.information[k][running]
            z = draws.noise[k][running] + theta[k] * np.sqrt(now)
            upper, lower = (_taken(each, running) for each in (draws.efficacy[k], draws.futility[k]))
            over = z >= upper
            ends = over if lower is None else over | (z <= lower)
            rejected[row, k] = np.count_nonzero(over)
            if k + 1 == design.num_looks:
                ends = np.ones_like(over)
            elif lower is not None:
                futile[row, k] = np.count_nonzero(ends) - rejected[row, k]
            found = z[ends] / np.sqrt(now if now.size == 1 else now[ends])
            stopped[row, k] = len(found)
            estimate[row] += found.sum(), found @ found
            at = np.broadcast_to(now, z.shape)[ends]
            information[row] += at.sum(), at @ at
            kept = np.flatnonzero(~ends)
            running = kept if isinstance(running, slice) else running[kept]
    return CanonicalCounts(task.drifts, count, rejected, futile, stopped, information, estimate)


def _taken(bound: Floats | None, running: Ints | slice) -> Floats | None:
    """A bound of the trials that are running; one for all stays."""
    return bound if bound is None or bound.ndim == 0 else bound[running]
