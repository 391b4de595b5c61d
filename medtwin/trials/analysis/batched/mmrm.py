"""The mixed model for repeated measures of many trials: unstructured covariance, residual likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.batched.ancova import inverse_of_gram
from medtwin.trials.analysis.batched.arms import as_marks
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.batched.mmrm_inference import contrasts_at_visits
from medtwin.trials.analysis.batched.mmrm_likelihood import ResidualLikelihood
from medtwin.trials.analysis.batched.mmrm_sums import VisitDesign, pattern_sums
from medtwin.trials.analysis.follow_up import Bools, Floats

BatchedInference = Literal["satterthwaite", "kenward_roger", "kenward_roger_linear"]
_BATCH, _MOST_STEPS = 64, 100
_NEAR, _AT_MAXIMUM = 1e-2, 1e-13  # gains of log-likelihood that a step still promises


@dataclass(frozen=True)
class VisitContrasts:
    """Experimental less control at every visit of every trial.

    Attributes:
        estimate, standard_error, degrees_of_freedom: (trials, visits); nan where the likelihood has no maximum inside.
        converged: (trials,).
    """

    estimate: Floats
    standard_error: Floats
    degrees_of_freedom: Floats
    converged: Bools

    def at(self, visit: int) -> Contrasts:
        """Of one visit, counted from 0, or from the last by -1."""
        return Contrasts(*(each[:, visit] for each in (self.estimate, self.standard_error, self.degrees_of_freedom)))


def repeated_measures(
    response: ArrayLike,
    experimental: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    by_visit: bool = True,
    inference: BatchedInference = "kenward_roger_linear",
) -> VisitContrasts:
    """The difference of the arms at every visit, by the mixed model for repeated measures, in every trial.

    Visits and the arm by visit are in the model; nothing is imputed. A patient without any measurement is left out.

    Args:
        response: (trials, patients, visits), nan where it was not measured.
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        covariates: (trials, patients, covariates), or (trials, patients) for one, such as the value at baseline.
        by_visit: Whether covariates have a slope for each visit, else one for all.
        inference: Of degrees of freedom and variances. kenward_roger_linear takes the covariance as linear in its
            entries: it is Student's t where all visits are seen, and keeps the error of small trials. kenward_roger,
            R's mmrm's by default, has second derivatives of a Cholesky factor, which make it liberal there; see `MMRM`.

    Raises:
        ValueError: If shapes do not fit, covariates are not finite, an arm of some trial is never seen at a visit, or
            columns of some trial depend on one another.

    Source: Mallinckrodt et al. 2008, Drug Inf J 42:303; Fisher scoring, Jennrich & Schluchter 1986, Biometrics 42:805.
    """
    return repeated_measures_by(response, experimental, covariates, by_visit=by_visit, inferences=(inference,))[
        inference
    ]


def repeated_measures_by(
    response: ArrayLike,
    experimental: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    by_visit: bool = True,
    inferences: Sequence[BatchedInference] = get_args(BatchedInference),
) -> dict[BatchedInference, VisitContrasts]:
    """The same fits with several inferences, by their names.

    Args:
        response: See `repeated_measures`, as for the errors.
        experimental: The same.
        covariates: The same.
        by_visit: The same.
        inferences: Of degrees of freedom and variances.
    """
    if unknown := set(inferences) - set(get_args(BatchedInference)):
        raise ValueError(f"inference must be one of {get_args(BatchedInference)}, got {sorted(unknown)}")
    y, numbers = _checked(response, experimental, covariates)
    design = VisitDesign.of(y.shape[2], numbers.shape[1] - 2, by_visit=by_visit)
    parts: dict[BatchedInference, list[VisitContrasts]] = {each: [] for each in inferences}
    for start in range(0, len(y), _BATCH):
        rows = slice(start, start + _BATCH)
        visits, sums = pattern_sums(y[rows], numbers[rows])
        start_at = ResidualLikelihood(design, visits, sums, _independent(y[rows]))
        inverse_of_gram(start_at.information)  # columns that depend on one another are refused there
        best, converged = _maximise(start_at)
        for inference, some in parts.items():
            found = contrasts_at_visits(best, inference)
            estimate, error, df = (np.where(converged[:, None], each, np.nan) for each in found)
            some.append(VisitContrasts(estimate, error, df, converged))
    return {inference: _joined(some) for inference, some in parts.items()}


def _joined(parts: list[VisitContrasts]) -> VisitContrasts:
    names = [each.name for each in fields(VisitContrasts)]
    return VisitContrasts(*(np.concatenate([getattr(each, name) for each in parts]) for name in names))


def _checked(response: ArrayLike, experimental: ArrayLike, covariates: ArrayLike | None) -> tuple[Floats, Floats]:
    """Responses, (trials, patients, visits), and numbers of patients, (trials, numbers, patients)."""
    y = np.asarray(response, dtype=np.float64)
    if y.ndim != 3 or not y.size:
        raise ValueError(f"response must be trials x patients x visits, got the shape {y.shape!r}")
    if np.isinf(y).any():
        raise ValueError("response must be finite, or nan where it was not measured, got infinite values")
    arm = as_marks("experimental", experimental, y.shape[:2])
    seen = np.isfinite(y)
    if not all((seen & here[:, :, None]).any(axis=1).all() for here in (arm, ~arm)):
        raise ValueError("response must be seen at every visit in both arms, got a trial where it is not")
    z = np.empty((*y.shape[:2], 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    z = z[:, :, None] if z.ndim == 2 else z
    if z.ndim != 3 or z.shape[:2] != y.shape[:2]:
        raise ValueError(f"covariates must be {y.shape[0]} trials x {y.shape[1]} patients, got the shape {z.shape!r}")
    z = np.where(np.asarray(seen.any(axis=2))[:, :, None], z, 0.0)
    if not np.isfinite(z).all():
        raise ValueError("covariates must be finite, got values that are not")
    z = z - z.mean(axis=1, keepdims=True)
    ones = np.ones(y.shape[:2])
    return y, np.concatenate([ones[:, None], arm.astype(np.float64)[:, None], z.transpose(0, 2, 1)], axis=1)


def _independent(y: Floats) -> Floats:
    """Covariances to start from: variances of each visit alone, (trials, visits, visits)."""
    seen = np.isfinite(y)
    filled, count = np.where(seen, y, 0.0), seen.sum(axis=1)
    mean = filled.sum(axis=1) / count
    variance = ((filled - mean[:, None]) ** 2 * seen).sum(axis=1) / count
    return np.asarray(np.maximum(variance, 1e-12)[:, :, None] * np.eye(y.shape[2]))


def _maximise(start: ResidualLikelihood) -> tuple[ResidualLikelihood, Bools]:
    """The greatest residual likelihood of each trial, and whether it was found, (trials,).

    Fisher scoring until the maximum is near, then Newton's steps; a step that loses likelihood is shortened.
    """
    sigma, entries, num = start.sigma.copy(), start.entries, len(start.sigma)
    converged, near, active = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool), np.arange(num)
    value, step = np.full(num, -np.inf), np.zeros((num, len(entries.rows)))
    for _ in range(_MOST_STEPS):
        tried = _inside(sigma[active], entries.matrix(step[active]))
        here = replace(start, sums=start.sums.of(active), sigma=tried)
        better = np.asarray(here.value >= value[active] - 1e-9 * np.abs(here.value))
        step[active[~better]] /= 4
        kept = active[better]
        sigma[kept], value[kept] = tried[better], here.value[better]
        near[active[~better]] = False
        steps, gains = _step(here, near[active])
        step[kept] = steps[better]
        done = better & (gains < _AT_MAXIMUM)
        near[kept] = gains[better] < _NEAR
        converged[active[done]] = True
        active = active[~done & np.isfinite(here.value)]
        if not len(active):
            break
    return replace(start, sigma=sigma), converged


def _inside(sigma: Floats, step: Floats) -> Floats:
    """A step further, shortened until the covariance is positive definite."""
    scale = np.einsum("tii->ti", sigma).min(axis=1)
    for _ in range(40):
        bad = np.linalg.eigvalsh(sigma + step)[:, 0] < 1e-8 * scale
        if not bad.any():
            break
        step = np.where(bad[:, None, None], step / 2, step)
    return sigma + step


def _step(likelihood: ResidualLikelihood, near: Bools) -> tuple[Floats, Floats]:
    """Steps, (trials, entries), and the gain of likelihood that each promises, (trials,); Newton's where near."""
    curvature, gradient = likelihood.curvature(near), likelihood.gradient
    eigenvalues, vectors = np.linalg.eigh(curvature)
    largest = np.maximum(np.abs(eigenvalues).max(axis=1, keepdims=True), 1e-300)
    turned = np.einsum("tij,ti->tj", vectors, gradient) / np.maximum(np.abs(eigenvalues), 1e-12 * largest)
    step = np.einsum("tij,tj->ti", vectors, turned)
    return step, np.asarray(np.einsum("ti,ti->t", step, gradient))
