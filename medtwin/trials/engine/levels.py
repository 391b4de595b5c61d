"""Levels of the factors that randomisation and analysis ask of simulated patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.outcome.prognosis import PatientPool
from medtwin.trials.outcome.response import SCORE, ResponsePool

Ints = NDArray[np.int64]
SEX, SITE, LOG_RISK = "sex", "site", "log_risk"


def pool_levels(factor: Factor, pool: PatientPool | ResponsePool) -> Ints:
    """The level of everyone in the pool, (pool,).

    Args:
        factor: `sex` (women, all others), the prognostic score with cuts (`log_risk`, or `score` where the endpoint is
            read once), or a covariate of the pool's baseline with cuts.
        pool: From which patients are drawn.

    Raises:
        ValueError: If the pool does not know the factor, or a number has no cuts.
    """
    if factor.name == SEX:
        return pool.stratum
    numbers = {LOG_RISK: pool.log_risk} if isinstance(pool, PatientPool) else {SCORE: pool.score}
    if pool.baseline is not None:
        numbers |= dict(zip(pool.baseline.names, pool.baseline.values.T, strict=True))
    if factor.name not in numbers:
        raise ValueError(f"factors must be among {', '.join([SEX, SITE, *numbers])}, got {factor.name!r}")
    if not factor.cuts:
        raise ValueError(f"cuts must be given for {factor.name}, which is a number")
    return factor.levels(numbers[factor.name])


def levels_of(factors: Sequence[Factor], pool: PatientPool | ResponsePool, index: Ints, site: Ints) -> Ints:
    """The levels of simulated patients, (factors, trials, patients).

    Args:
        factors: Asked for; `site` is the number of the patient's site.
        pool: From which patients are drawn.
        index: (trials, patients) into the pool.
        site: (trials, patients).

    Raises:
        ValueError: As `pool_levels`.
    """
    found = [site if factor.name == SITE else pool_levels(factor, pool)[index] for factor in factors]
    return np.stack(found) if found else np.zeros((0, *index.shape), dtype=np.int64)
