"""The covariates of simulated patients as columns of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.criteria import Baseline


def covariate_columns(covariates: Baseline | None, index: NDArray[np.int64]) -> dict[str, Sequence[object]]:
    """Column to values, (patients,) each, of six digits, None where missing; no columns without covariates.

    Args:
        covariates: Of the pool.
        index: (patients,) into it.
    """
    if covariates is None:
        return {}
    columns: dict[str, Sequence[object]] = {
        "source_subject_id": covariates.subject_id[index].tolist(),
        "sex": covariates.sex[index].tolist(),
    }
    for name, values in zip(covariates.names, covariates.values.T, strict=True):
        if name != "is_female":
            columns[name] = [None if math.isnan(value) else float(f"{value:.6g}") for value in values[index]]
    return columns
