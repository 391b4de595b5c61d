"""The analysis of covariance of many trials at once, (trials, patients), with model-based or robust variances."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.batched.arms import Arms, as_matrix, seen, two_arms
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.follow_up import Floats

Variance = Literal["model", "HC0", "HC1", "HC2", "HC3"]
_SINGULAR = 1e-10  # share of a column's length that the columns before it leave


def analyses_of_covariance(
    response: ArrayLike,
    experimental: ArrayLike,
    covariates: ArrayLike,
    *,
    observed: ArrayLike | None = None,
    variance: Variance = "model",
) -> Contrasts:
    """The difference of the arms, adjusted for covariates by least squares, in every trial.

    Args:
        response: (trials, patients).
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        covariates: (trials, patients, covariates), or (trials, patients) for one.
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.
        variance: Of errors of one variance, or robust: see `LinearModel.robust_covariance`. Degrees of freedom are
            patients less columns for all of them.

    Raises:
        ValueError: If shapes do not fit, values are not finite, columns of some trial depend on one another, or no
            degrees of freedom are left.

    Source: White 1980, Econometrica 48:817; MacKinnon & White 1985, J Econom 29:305.

    >>> found = analyses_of_covariance([[1.0, 2.0, 4.0, 6.0, 5.0]], [0, 0, 1, 1, 1], [[0.0, 1.0, 0.0, 1.0, 2.0]])
    >>> found.estimate.round(4).tolist()
    [3.2]
    """
    if variance not in get_args(Variance):
        raise ValueError(f"variance must be one of {get_args(Variance)}, got {variance!r}")
    y = as_matrix("response", response)
    arms = two_arms(y.shape, experimental, observed)
    x, here = design_of(arms, covariates), arms.observed[:, None]
    x[:, 2:] -= x[:, 2:].sum(axis=2, keepdims=True) / arms.total[:, None, None] * here
    return _contrast(seen("response", y, arms.observed), x, arms.total, variance)


def prognostic_score_tests(
    response: ArrayLike,
    experimental: ArrayLike,
    score: ArrayLike,
    *,
    observed: ArrayLike | None = None,
    variance: Variance = "HC3",
) -> Contrasts:
    """The difference of the arms, adjusted for one prognostic score that was fixed before the trial, in every trial.

    Valid whatever the score is, as treatment is randomised; the closer it is to the patient's outcome under control,
    the smaller the variance. A score that does not vary in a trial adjusts nothing there.

    Args:
        response: (trials, patients).
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        score: (trials, patients).
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.
        variance: As of `analyses_of_covariance`.

    Raises:
        ValueError: As of `analyses_of_covariance`.

    Source: Schuler et al. 2022, Int J Biostat 18:329.
    """
    y, m = as_matrix("response", response), as_matrix("score", score)
    arms = two_arms(y.shape, experimental, observed, least=2)
    m = seen("score", m, arms.observed)
    means = [(m * here).sum(axis=1) / here.sum(axis=1) for here in (arms.experimental, arms.control)]
    within = m - arms.experimental * means[0][:, None] - arms.control * means[1][:, None]
    varies = np.abs(within).max(axis=1) > 1e-9 * np.abs(m).max(axis=1)
    found = np.full((3, len(y)), np.nan)
    for here, columns in ((varies, m[:, :, None]), (~varies, m[:, :, None][:, :, :0])):
        if here.any():
            marks = arms.observed[here]
            part = analyses_of_covariance(
                y[here], arms.experimental[here], columns[here], observed=marks, variance=variance
            )
            found[:, here] = part.estimate, part.standard_error, part.degrees_of_freedom
    return Contrasts(*found)


def design_of(arms: Arms, covariates: ArrayLike) -> Floats:
    """The design of every trial, (trials, columns, patients): constant, arm, covariates; 0 for who is not analysed.

    Raises:
        ValueError: If covariates have another shape or are not finite.
    """
    z = np.asarray(covariates, dtype=np.float64)
    z = z[:, :, None] if z.ndim == 2 else z
    shape = arms.observed.shape
    if z.ndim != 3 or z.shape[:2] != shape:
        raise ValueError(f"covariates must be {shape[0]} trials x {shape[1]} patients x any, got the shape {z.shape!r}")
    x = np.empty((shape[0], 2 + z.shape[2], shape[1]))
    here = arms.observed
    x[:, 0], x[:, 1] = here, arms.experimental
    x[:, 2:] = np.where(here[:, None] > 0, z.transpose(0, 2, 1), 0.0)
    if not np.isfinite(x).all():
        raise ValueError("covariates must be finite for patients who are analysed, got values that are not")
    return x


def inverse_of_gram(gram: Floats) -> Floats:
    """Inverses of x'x, (trials, columns, columns).

    Raises:
        ValueError: If columns of some trial depend on one another.
    """
    scale = np.sqrt(np.einsum("tii->ti", gram))
    if not (scale > 0).all():
        raise ValueError("covariates must not be 0 for all patients of a trial, got such")
    scaled = gram / (scale[:, :, None] * scale[:, None, :])
    try:
        root = np.linalg.cholesky(scaled)
    except np.linalg.LinAlgError:
        root = np.zeros((1, 1, 1))
    if np.einsum("tii->ti", root).min() ** 2 < _SINGULAR:
        raise ValueError("covariates must not depend on one another, the arm or a constant, got a trial where they do")
    return np.asarray(np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :]))


def _contrast(y: Floats, x: Floats, total: Floats, variance: Variance) -> Contrasts:
    df = total - x.shape[1]
    if df.min() < 1:
        raise ValueError(f"patients must outnumber the {x.shape[1]} columns of the model, got a trial without")
    bread = inverse_of_gram(np.matmul(x, x.transpose(0, 2, 1)))
    b = np.matmul(bread, np.matmul(x, y[:, :, None]))
    residuals = y - np.matmul(b.transpose(0, 2, 1), x)[:, 0]
    if variance == "model":
        spread = np.einsum("tn,tn->t", residuals, residuals) / df * bread[:, 1, 1]
        return Contrasts(b[:, 1, 0], np.sqrt(spread), df)
    influence = np.matmul(bread[:, 1:2], x)[:, 0] * residuals
    if variance in ("HC2", "HC3"):
        leverages = (np.matmul(bread, x) * x).sum(axis=1)
        influence /= np.sqrt(1 - leverages) if variance == "HC2" else 1 - leverages
    spread = np.einsum("tn,tn->t", influence, influence)
    return Contrasts(b[:, 1, 0], np.sqrt(spread * (total / df if variance == "HC1" else 1.0)), df)
