"""Many trials that look for a dose, side by side: interval designs and continual reassessment.

Patient j of trial i has one draw, which makes every dose toxic that is toxic enough: it is the same in every design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.continual_reassessment import ReassessmentModel
from medtwin.trials.design.dose_finding import IntervalDesign
from medtwin.trials.engine.estimates import Estimate, mean_of, share_of
from medtwin.trials.enrolment.draws import TrialDraws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_PRIOR = 0.05
"""Toxicities, and patients without one, added to each dose before doses are compared at the end."""


@dataclass(frozen=True)
class DoseTrials:
    """What became of trials.

    Attributes:
        chosen: (trials,) dose from 0; -1: none.
        patients, toxicities: (trials, doses).
    """

    chosen: Ints
    patients: Ints
    toxicities: Ints

    def chooses(self, dose: int) -> Estimate:
        """The share of trials that choose a dose, from 0; -1: none."""
        return share_of(int((self.chosen == dose).sum()), len(self.chosen))

    def patients_at(self, dose: int) -> Estimate:
        """Mean patients of a dose."""
        return mean_of(self.patients[:, dose].astype(np.float64))

    def toxicities_at(self, dose: int) -> Estimate:
        """Mean toxicities of a dose."""
        return mean_of(self.toxicities[:, dose].astype(np.float64))


@dataclass(frozen=True)
class Cohorts:
    """Patients of a trial, one cohort after the other.

    Attributes:
        num_cohorts, size: How many, of how many patients. start: The first dose, from 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_cohorts: int
    size: int
    start: int = 0

    def __post_init__(self) -> None:
        if self.num_cohorts < 1 or self.size < 1 or self.start < 0:
            raise ValueError(f"cohorts must be 1 or more of 1 or more patients, start 0 or more, got {self!r}")


class _Trials:
    """Trials on their way: cohorts are treated at the dose where each one is."""

    def __init__(self, toxicity: Sequence[float], cohorts: Cohorts, num_trials: int, seed: int) -> None:
        self.toxicity = np.asarray(toxicity, dtype=np.float64)
        p = self.toxicity
        if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all() or not cohorts.start < len(p):
            raise ValueError(f"toxicity must be of {cohorts.start + 1} doses or more, from 0 to 1, got {p.tolist()}")
        draws = TrialDraws(seed, num_trials).uniform(cohorts.num_cohorts * cohorts.size, "tolerance")
        self._tolerance, self._size = draws.reshape(num_trials, cohorts.num_cohorts, cohorts.size), cohorts.size
        self.dose = np.full(num_trials, cohorts.start, dtype=np.int64)
        self.running = np.ones(num_trials, dtype=np.bool_)
        self.patients, self.toxicities = (np.zeros((num_trials, len(p)), dtype=np.int64) for _ in range(2))

    def treat(self, cohort: int) -> Ints:
        """The toxicities of a cohort in each trial, (trials,)."""
        rows = np.flatnonzero(self.running)
        dose = self.dose[rows]
        seen = np.zeros(len(self.dose), dtype=np.int64)
        seen[rows] = (self._tolerance[rows, cohort] < self.toxicity[dose][:, None]).sum(axis=1)
        self.patients[rows, dose] += self._size
        self.toxicities[rows, dose] += seen[rows]
        return seen


def simulate_interval_design(
    design: IntervalDesign, toxicity: Sequence[float], cohorts: Cohorts, num_trials: int = 10_000, *, seed: int
) -> DoseTrials:
    """Trials by the Bayesian optimal interval design; the dose whose isotonic estimate is nearest the target is chosen.

    Args:
        design: Its boundaries.
        toxicity: (doses,) probabilities of a dose-limiting toxicity.
        cohorts: Patients.
        num_trials: 1 or more.
        seed: 0 or more.

    Raises:
        ValueError: If a number is out of its range.

    Source: Liu & Yuan 2015, J R Stat Soc C 64:507.
    """
    trials, doses = _Trials(toxicity, cohorts, num_trials, seed), len(toxicity)
    up, down, given_up = design.boundaries(np.arange(cohorts.num_cohorts * cohorts.size + 1))
    rows, gone = np.arange(num_trials), np.full(num_trials, doses)  # doses from this one on are given up
    for cohort in range(cohorts.num_cohorts):
        trials.treat(cohort)
        dose = trials.dose
        n, y = trials.patients[rows, dose], trials.toxicities[rows, dose]
        gone = np.where(trials.running & (y >= given_up[n]), np.minimum(gone, dose), gone)
        trials.running &= gone > 0
        may_rise = (y <= up[n]) & (dose + 1 < gone)
        step = np.where(may_rise, 1, np.where((y >= down[n]) & (dose > 0), -1, 0))
        trials.dose = np.where(trials.running, dose + step, dose)
    chosen = _nearest(trials, np.arange(doses) < gone[:, None], design.target)
    return DoseTrials(np.where(trials.running, chosen, -1), trials.patients, trials.toxicities)


def _nearest(trials: _Trials, allowed: Bools, target: float) -> Ints:
    """The dose whose isotonic estimate is nearest the target, (trials,), of those that were tried and are allowed."""
    tried = (trials.patients > 0) & allowed
    n, y = trials.patients + 2 * _PRIOR, trials.toxicities + _PRIOR
    rate = y / n
    weight = np.where(tried, n**2 * (n + 1) / (y * (n - y)), 0.0)
    fitted = _isotonic(rate, weight) + 1e-10 * np.arange(rate.shape[1])  # of equal ones below the target the highest
    return np.asarray(np.argmin(np.where(tried, np.abs(fitted - target), np.inf), axis=1))


def _isotonic(rate: Floats, weight: Floats) -> Floats:
    """Weighted isotonic regression of each row: the largest over starts of the least mean over ends.

    Source: Robertson, Wright & Dykstra 1988, Order Restricted Statistical Inference, theorem 1.4.4.
    """
    doses = rate.shape[1]
    total = np.cumsum(np.pad(weight * rate, ((0, 0), (1, 0))), axis=1)
    mass = np.cumsum(np.pad(weight, ((0, 0), (1, 0))), axis=1)
    fitted = np.zeros(rate.shape)
    for j in range(doses):
        best = np.full(len(rate), -np.inf)
        for a in range(j + 1):
            top, bottom = total[:, j + 1 :] - total[:, [a]], mass[:, j + 1 :] - mass[:, [a]]
            means = np.divide(top, bottom, out=np.full(top.shape, np.inf), where=bottom > 0)
            best = np.maximum(best, means.min(axis=1))
        fitted[:, j] = best
    return fitted


def simulate_reassessment(
    model: ReassessmentModel, toxicity: Sequence[float], cohorts: Cohorts, num_trials: int = 10_000, *, seed: int
) -> DoseTrials:
    """Trials by continual reassessment: no dose is skipped, and none is raised after a cohort too toxic.

    A cohort whose share of toxicities reaches the target is not followed by a higher dose. The dose chosen at the end
    is the model's.

    Args:
        model: Of dose and toxicity.
        toxicity: (doses,) probabilities of a dose-limiting toxicity.
        cohorts: Patients.
        num_trials: 1 or more.
        seed: 0 or more.

    Raises:
        ValueError: If a number is out of its range, or the doses are not the model's.

    Source: O'Quigley, Pepe & Fisher 1990, Biometrics 46:33; Cheung 2005, Biometrics 61:940 (coherence).
    """
    if len(toxicity) != len(model.skeleton):
        raise ValueError(f"toxicity must be of the model's {len(model.skeleton)} doses, got {len(toxicity)}")
    trials = _Trials(toxicity, cohorts, num_trials, seed)
    wanted = trials.dose
    for cohort in range(cohorts.num_cohorts):
        seen = trials.treat(cohort)
        wanted = _of_model(model, trials)
        highest = np.where(seen >= model.target * cohorts.size - 1e-12, trials.dose, trials.dose + 1)
        trials.dose = np.minimum(wanted, highest)
    return DoseTrials(wanted, trials.patients, trials.toxicities)


def _of_model(model: ReassessmentModel, trials: _Trials) -> Ints:
    """The model's dose, (trials,); equal data are looked at once."""
    data = np.hstack([trials.toxicities, trials.patients])
    rows, which = np.unique(data, axis=0, return_inverse=True)
    doses = trials.patients.shape[1]
    return np.asarray(model.after(rows[:, :doses], rows[:, doses:]).dose[which.ravel()])
