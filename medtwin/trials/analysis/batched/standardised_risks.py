"""Standardised risks of both arms in many trials at once, from their logistic models: g-computation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.batched.glm import BatchedModels
from medtwin.trials.analysis.follow_up import Floats


@dataclass(frozen=True)
class StandardisedRisks:
    """Means of all patients if all were in one arm, in every trial.

    Attributes:
        experimental, control: (trials,). covariance: (trials, 2, 2) of the two, experimental first.
    """

    experimental: Floats
    control: Floats
    covariance: Floats

    def difference(self) -> Contrasts:
        """Experimental less control."""
        one = np.ones_like(self.control)
        return self._contrast(self.experimental - self.control, one, -one)

    def log_ratio(self) -> Contrasts:
        """The logarithm of experimental by control."""
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate, slopes = np.log(self.experimental / self.control), (1 / self.experimental, -1 / self.control)
        return self._contrast(estimate, *slopes)

    def log_odds_ratio(self) -> Contrasts:
        """The logarithm of the ratio of the odds of the standardised risks, not of the model."""
        p, q = self.experimental, self.control
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate, slopes = np.log(p / (1 - p) / (q / (1 - q))), (1 / (p * (1 - p)), -1 / (q * (1 - q)))
        return self._contrast(estimate, *slopes)

    def _contrast(self, estimate: Floats, slope1: Floats, slope0: Floats) -> Contrasts:
        """By the delta method."""
        slopes = np.stack([slope1, slope0], axis=1)
        with np.errstate(invalid="ignore"):
            variance = np.einsum("ti,tij,tj->t", slopes, self.covariance, slopes)
            return Contrasts.normal(estimate, np.sqrt(np.where(variance > 0, variance, np.nan)))


def standardised_risks(models: BatchedModels) -> StandardisedRisks:
    """Standardised means with the variance of the delta method, for the covariates as they are in each trial.

    Source: Ge et al. 2011, Drug Inf J 45:481.
    """
    means, jacobian = [], []
    for x in _as_if(models):
        predicted = models.predict(x) * models.arms.observed
        slopes = predicted * (1 - predicted) if models.link == "logit" else predicted
        means.append(predicted.sum(axis=1) / models.arms.total)
        jacobian.append(np.matmul(x, slopes[:, :, None])[:, :, 0] / models.arms.total[:, None])
    j = np.stack(jacobian, axis=1)
    return StandardisedRisks(means[0], means[1], np.matmul(np.matmul(j, models.bread), j.transpose(0, 2, 1)))


def augmented_risks(models: BatchedModels) -> StandardisedRisks:
    """Standardised means with the variance of their influence function, for the population the patients are from.

    The means have the mean residual of an arm added: they are valid for any working model in a randomised trial.

    Source: Tsiatis et al. 2008, Stat Med 27:4658; Ye et al. 2023, Stat Biosci 15:321.
    """
    arms = models.arms
    here, total = arms.observed, arms.total
    means, influence = [], []
    for x, inside in zip(_as_if(models), (arms.experimental, arms.control), strict=True):
        predicted = models.predict(x) * here
        share = inside.sum(axis=1) / total
        part = inside * (models.response - predicted) / share[:, None] + predicted
        mean = part.sum(axis=1) / total
        means.append(np.where(models.converged, mean, np.nan))
        influence.append((part - mean[:, None]) * here)
    rows = np.stack(influence, axis=1)
    covariance = np.matmul(rows, rows.transpose(0, 2, 1)) / ((total - 1) * total)[:, None, None]
    return StandardisedRisks(means[0], means[1], covariance)


def _as_if(models: BatchedModels) -> tuple[Floats, Floats]:
    """The designs of all patients as if in the experimental arm, and as if in the control arm."""
    both = []
    for value in (1.0, 0.0):
        x = models.x.copy()
        x[:, 1] = value * models.arms.observed
        both.append(x)
    return both[0], both[1]
