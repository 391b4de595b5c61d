"""Student's and Welch's tests of many trials at once, (trials, patients)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.batched.arms import Arms, as_matrix, as_observed, seen, two_arms
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.follow_up import Floats


def one_sample_t_tests(values: ArrayLike, *, observed: ArrayLike | None = None) -> Contrasts:
    """Student's test of one mean in every trial; for pairs give their differences.

    Args:
        values: (trials, patients).
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or a trial has fewer than two patients.

    >>> one_sample_t_tests([[1.0, 2.0, 3.0]]).statistic().round(4).tolist()
    [3.4641]
    """
    x = as_matrix("values", values)
    here = as_observed(observed, x.shape).astype(np.float64)
    n = here.sum(axis=1)
    if n.min() < 2:
        raise ValueError("values must be of two patients in each trial, got a trial with fewer")
    mean, squares = _moments(seen("values", x, here), here, n)
    return Contrasts(mean, np.sqrt(squares / (n - 1) / n), n - 1)


def pooled_t_tests(response: ArrayLike, experimental: ArrayLike, *, observed: ArrayLike | None = None) -> Contrasts:
    """Student's test of two means of equal variances in every trial.

    Args:
        response: (trials, patients).
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        observed: The same of who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or an arm has fewer than two patients.

    >>> pooled_t_tests([[1.0, 2.0, 4.0, 6.0]], [0, 0, 1, 1]).statistic().round(4).tolist()
    [3.1305]
    """
    arms, (mean1, squares1), (mean0, squares0) = _by_arm(response, experimental, observed)
    df = arms.total - 2
    error = np.sqrt((squares1 + squares0) / df * (1 / arms.num_experimental + 1 / arms.num_control))
    return Contrasts(mean1 - mean0, error, df)


def welch_t_tests(response: ArrayLike, experimental: ArrayLike, *, observed: ArrayLike | None = None) -> Contrasts:
    """Welch's test of two means of any variances in every trial; arguments and errors as of `pooled_t_tests`.

    Source: Welch 1947, Biometrika 34:28; Satterthwaite 1946, Biometrics Bull 2:110.
    """
    arms, (mean1, squares1), (mean0, squares0) = _by_arm(response, experimental, observed)
    n, m = arms.num_experimental, arms.num_control
    a, b = squares1 / (n - 1) / n, squares0 / (m - 1) / m
    df = (a + b) ** 2 / np.maximum(a**2 / (n - 1) + b**2 / (m - 1), 1e-300)
    return Contrasts(mean1 - mean0, np.sqrt(a + b), df)


def _by_arm(
    response: ArrayLike, experimental: ArrayLike, observed: ArrayLike | None
) -> tuple[Arms, tuple[Floats, Floats], tuple[Floats, Floats]]:
    y = as_matrix("response", response)
    arms = two_arms(y.shape, experimental, observed, least=2)
    y = seen("response", y, arms.observed)
    first = _moments(y, arms.experimental, arms.num_experimental)
    return arms, first, _moments(y, arms.control, arms.num_control)


def _moments(values: Floats, here: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations of some patients, (trials,) each."""
    mean = np.einsum("tn,tn->t", values, here) / count
    rest = (values - mean[:, None]) * here
    return mean, np.einsum("tn,tn->t", rest, rest)
