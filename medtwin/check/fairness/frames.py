"""A metric in a group and of the rest, and intervals from resampled patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import LEVEL

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def group_and_rest(
    metric: Metric, truth: NDArray[Any], prediction: NDArray[Any], is_member: NDArray[np.bool_]
) -> tuple[float, float]:
    """What a metric is in a group, and of all who are not of it.

    Args:
        metric: Of truth and prediction of some rows.
        truth: (rows,) what is so.
        prediction: (rows,) what is said.
        is_member: (rows,) who is of the group; not all, nor nobody.

    Source: Weerts et al. 2023, J Mach Learn Res 24(257):1 (fairlearn's MetricFrame).

    >>> def right(t, p): return float(np.mean(t == p))
    >>> group_and_rest(right, np.ones(3), np.array([1, 0, 1]), np.array([True, True, False]))
    (0.5, 1.0)
    """
    from fairlearn.metrics import MetricFrame  # loads scikit-learn

    frame = MetricFrame(metrics=metric, y_true=truth, y_pred=prediction, sensitive_features=is_member)
    return float(frame.by_group[True]), float(frame.by_group[False])


def interval_around(value: float, draws: Floats) -> tuple[float, float]:
    """The percentile interval of resampled values, shifted so that its middle is the value; of none the value alone.

    Args:
        value: The estimate.
        draws: (resamples,) the same of resampled patients; NaN where it is not defined.
    """
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return value, value
    low, high = np.quantile(finite - np.median(finite), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value + float(low), value + float(high)
