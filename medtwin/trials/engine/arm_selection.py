"""Many trials of several arms against one control that go on with the arms that look best: closed combination tests.

The outcome is normal with a known standard deviation, so that a stage of an arm is its mean; the statistics are those
of any large trial whose effects are differences of means.

Source: Bauer & Kieser 1999, Stat Med 18:1833; Lehmacher & Wassmer 1999, Biometrics 55:1286; Dunnett 1955, J Am Stat
Assoc 50:1096; Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, ch. 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from medtwin.trials.analysis.multiplicity import intersections
from medtwin.trials.design.boundaries import fractions
from medtwin.trials.engine.estimates import Estimate, mean_of, share_of
from medtwin.trials.enrolment.draws import TrialDraws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Intersection = Literal["dunnett", "bonferroni", "sidak", "simes"]
_LEAST = 2.0**-54  # a uniform number of 0 stands for the first cell's middle
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(56)
_REACH = 9.0  # standard deviations of the factor that the comparisons share


@dataclass(frozen=True)
class Selection:
    """Which arms go on to the next stage, by their mean differences from the control so far.

    Attributes:
        best: So many of the best.
        within: Those at most so far below the best; inf: any.
        above: Those above this difference only; a trial none of whose arms is stops.

    Raises:
        ValueError: If none could ever go on.
    """

    best: int | None = None
    within: float = math.inf
    above: float = -math.inf

    def __post_init__(self) -> None:
        if self.best is not None and (int(self.best) != self.best or self.best < 1):
            raise ValueError(f"best must be a whole number of 1 or more, got {self.best!r}")
        if not self.within >= 0 or math.isnan(self.above):
            raise ValueError(f"within must be 0 or more and above a number, got {self!r}")

    def kept(self, difference: Floats, active: Bools) -> Bools:
        """The arms that go on, (trials, arms), of the differences so far of those that are still there."""
        seen = np.where(active, difference, -np.inf)
        kept = active & (seen >= seen.max(axis=1, keepdims=True) - self.within) & (seen > self.above)
        if self.best is not None:
            rank = np.argsort(np.argsort(-seen, axis=1, kind="stable"), axis=1)
            kept &= rank < self.best
        return np.asarray(kept)


@dataclass(frozen=True)
class ArmSelectionTrial:
    """Arms that are compared with one control over stages, by the inverse normal combination of closed tests.

    Attributes:
        subjects: (looks,) patients of each arm by each look, as long as it takes part.
        bounds: (looks,) efficacy z bounds of the combination test; `Spending` and information give them.
        information: (looks,) fractions that set the weights of the stages; None: by the patients.
        selection: Of arms at each look but the last.
        intersection: The test of arms together at a stage.
        control_ratio: Patients of the control for each of an arm.
        stop_at_any: Whether the trial stops once one arm is shown, else once all that take part are.
        sd: Of a patient's outcome, above 0.

    Raises:
        ValueError: If looks do not match or increase, or a number is out of its range.
    """

    subjects: Sequence[float]
    bounds: Sequence[float]
    information: Sequence[float] | None = None
    selection: Selection = Selection(best=1)
    intersection: Intersection = "dunnett"
    control_ratio: float = 1.0
    stop_at_any: bool = False
    sd: float = 1.0

    def __post_init__(self) -> None:
        if len(self.subjects) != len(self.bounds) or len(self.fractions) != len(self.bounds):
            raise ValueError(
                f"subjects, bounds and information must be as many, got {len(self.subjects)}, {len(self.bounds)} and "
                f"{len(self.fractions)}"
            )
        if not (np.diff(self.subjects, prepend=0.0) > 0).all():
            raise ValueError(f"subjects must increase from look to look, got {list(self.subjects)}")
        if not self.control_ratio > 0 or not self.sd > 0:
            raise ValueError(f"control_ratio and sd must be above 0, got {self.control_ratio!r} and {self.sd!r}")
        if self.intersection not in ("dunnett", "bonferroni", "sidak", "simes"):
            raise ValueError(f"intersection must be dunnett, bonferroni, sidak or simes, got {self.intersection!r}")

    @cached_property
    def fractions(self) -> Floats:
        """Of the information, (looks,)."""
        return fractions(self.subjects if self.information is None else self.information)

    @cached_property
    def stage_subjects(self) -> Floats:
        """Of an arm in each stage, (looks,)."""
        return np.diff(self.subjects, prepend=0.0)

    def p_values(self, z: Floats, active: Bools) -> Floats:
        """Of the arms together, (trials,), given their z and who takes part, (trials, arms); 1 where none does."""
        count = active.sum(axis=1)
        found = np.ones(len(z))
        for m in np.unique(count[count > 0]):
            rows = np.flatnonzero(count == m)
            inside = np.where(active[rows], z[rows], -np.inf)
            if self.intersection == "dunnett":
                found[rows] = self._dunnett(inside.max(axis=1), int(m))
            else:
                p = np.sort(ndtr(-inside), axis=1)
                found[rows] = _joined(p[:, : int(m)], self.intersection)
        return found

    def _dunnett(self, largest: Floats, arms: int) -> Floats:
        """That the largest of so many comparisons with one control reaches a height, by chance."""
        if arms == 1:
            return np.asarray(ndtr(-largest))
        rho = 1 / (
            1 + self.control_ratio
        )  # an arm of 1 and a control of c patients: the control's part of the variance
        factor, weight = _REACH * _NODES, _REACH * _WEIGHTS * np.exp(-0.5 * (_REACH * _NODES) ** 2) / np.sqrt(2 * np.pi)
        beyond = ndtr(-(largest[:, None] + math.sqrt(rho) * factor) / math.sqrt(1 - rho))
        with np.errstate(divide="ignore"):  # where one is beyond for certain
            return np.asarray(-np.expm1(arms * np.log1p(-beyond)) @ weight)


def _joined(p: Floats, how: Intersection) -> Floats:
    """One p value of several in order, (trials,)."""
    m = p.shape[1]
    if how == "bonferroni":
        return np.asarray(np.minimum(m * p[:, 0], 1.0))
    if how == "sidak":
        return np.asarray(-np.expm1(m * np.log1p(-np.minimum(p[:, 0], 1 - 1e-16))))
    return np.asarray((m * p / np.arange(1, m + 1)).min(axis=1))


@dataclass(frozen=True)
class ArmSelectionCharacteristics:
    """What the trials did.

    Attributes:
        rejected_at: (trials, arms) number of the look at which an arm is shown, -1: not.
        active: (trials, looks, arms) who takes part in each stage.
        ended_at: (trials,) number of the last look. is_futile: (trials,) no arm was kept.
        subjects: (trials,) patients in all.
    """

    rejected_at: Ints
    active: Bools
    ended_at: Ints
    is_futile: Bools
    subjects: Floats

    def _share(self, hits: Bools) -> Estimate:
        return share_of(int(hits.sum()), len(hits))

    @property
    def any_rejected(self) -> Estimate:
        """The share of trials that show at least one arm."""
        return self._share(np.any(self.rejected_at >= 0, axis=1))

    def power(self, arm: int, look: int | None = None) -> Estimate:
        """The share of trials that show an arm, at a look or at any; both count from 0."""
        at = self.rejected_at[:, arm]
        return self._share(at >= 0 if look is None else at == look)

    def selected(self, arm: int, look: int) -> Estimate:
        """The share of trials in which an arm takes part in a stage; both count from 0."""
        return self._share(self.active[:, look, arm])

    def stopped_at(self, look: int, *, success: bool) -> Estimate:
        """The share of trials that stop at a look, from 0, because arms are shown, or because none is kept."""
        return self._share((self.ended_at == look) & (self.is_futile != success))

    @property
    def num_subjects(self) -> Estimate:
        """Mean patients."""
        return mean_of(self.subjects)


def simulate_arm_selection(
    trial: ArmSelectionTrial, effects: ArrayLike, num_trials: int = 10_000, *, seed: int
) -> ArmSelectionCharacteristics:
    """The operating characteristics of a trial with selection of arms.

    A larger run begins with the trials of a smaller one; effects share the draws of a seed.

    Args:
        trial: The trial.
        effects: (arms,) mean differences from the control, larger being better.
        num_trials: 1 or more.
        seed: 0 or more.

    Raises:
        ValueError: If there is no arm, or there are more than 8.
    """
    delta = np.atleast_1d(np.asarray(effects, dtype=np.float64))
    if delta.ndim != 1 or not 1 <= len(delta) <= 8 or not np.isfinite(delta).all():
        raise ValueError(f"effects must be of 1 to 8 arms, got {delta.tolist()}")
    draws, run = TrialDraws(seed, num_trials), _Run(trial, len(delta), num_trials)
    for stage in range(len(trial.bounds)):
        run.stage(stage, _differences(trial, draws, delta, stage))
    return ArmSelectionCharacteristics(run.rejected_at, run.active, run.ended_at, run.is_futile, run.subjects)


class _Run:
    """Trials side by side on their way through the stages."""

    def __init__(self, trial: ArmSelectionTrial, arms: int, num_trials: int) -> None:
        looks = len(trial.bounds)
        self._trial, self._members = trial, np.asarray(intersections(arms), dtype=np.bool_)
        self._weights = np.sqrt(np.diff(trial.fractions, prepend=0.0))
        self._combined = np.zeros((num_trials, len(self._members)))
        self._gone = np.zeros(self._combined.shape, dtype=np.bool_)
        self._total = np.zeros((num_trials, arms))
        self._running = np.ones(num_trials, dtype=np.bool_)
        self.active = np.zeros((num_trials, looks, arms), dtype=np.bool_)
        self.active[:, 0] = True
        self.rejected_at = np.full((num_trials, arms), -1, dtype=np.int64)
        self.ended_at, self.is_futile = np.full(num_trials, looks - 1, dtype=np.int64), np.zeros(num_trials, np.bool_)
        self.subjects = np.zeros(num_trials)

    def stage(self, k: int, difference: Floats) -> None:
        """One stage, given its mean differences from the control, (trials, arms)."""
        trial, here = self._trial, self.active[:, k]
        size = float(trial.stage_subjects[k])
        self._total += size * difference
        self.subjects += np.where(self._running, size * (here.sum(axis=1) + trial.control_ratio), 0.0)
        shown = self._closed(k, difference / (trial.sd * math.sqrt((1 + 1 / trial.control_ratio) / size)), here)
        self.rejected_at[shown & (self.rejected_at < 0)] = k
        if k + 1 == len(trial.bounds):
            return
        success = (shown & here).any(axis=1) if trial.stop_at_any else (shown | ~here).all(axis=1)
        kept = trial.selection.kept(self._total / trial.subjects[k], here)
        futile = self._running & ~success & ~kept.any(axis=1)
        self.ended_at[self._running & (success | futile)] = k
        self.is_futile |= futile
        self._running &= ~(success | futile)
        self.active[:, k + 1] = kept & self._running[:, None]

    def _closed(self, k: int, z: Floats, here: Bools) -> Bools:
        """Which arms are shown by now, (trials, arms): all intersections that hold them are rejected."""
        for number, member in enumerate(self._members):
            p = self._trial.p_values(z, here & member)
            self._combined[:, number] += self._weights[k] * -ndtri(np.clip(p, 1e-300, 1.0))
        statistic = self._combined / math.sqrt(float(np.sum(self._weights[: k + 1] ** 2)))
        self._gone |= self._running[:, None] & (statistic >= self._trial.bounds[k])
        return np.stack([self._gone[:, holds].all(axis=1) for holds in self._members.T], axis=1)


def _differences(trial: ArmSelectionTrial, draws: TrialDraws, delta: Floats, stage: int) -> Floats:
    """Mean differences from the control of a stage's patients, (trials, arms)."""
    size = float(trial.stage_subjects[stage])
    noise = ndtri(np.maximum(draws.uniform(len(delta) + 1, "mean of arm", stage), _LEAST))
    spread = np.full(len(delta) + 1, trial.sd / math.sqrt(size))
    spread[0] /= math.sqrt(trial.control_ratio)
    means = noise * spread
    return np.asarray(delta + means[:, 1:] - means[:, :1])
