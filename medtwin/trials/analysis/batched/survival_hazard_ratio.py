"""Cox's model of many trials: the arm's log hazard ratio by Wald's test, and score tests of any hazard ratio.

Estimates are those of `survival_batch.cox_log_hazard_ratio`, of times with ties and in strata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from medtwin.trials.analysis.batched.survival_order import TrialsInOrder
from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.analysis.survival_batch import RiskSets, cox_log_hazard_ratio


@dataclass(frozen=True)
class HazardRatioTests:
    """Tests of a hazard ratio against one it should lie below, (trials,); nan where there is no finite estimate.

    Attributes:
        log_hazard_ratio: Experimental / control. standard_error: Of it.
        z: Positive where the hazard ratio lies below the null's.
    """

    log_hazard_ratio: Floats
    standard_error: Floats
    z: Floats

    @property
    def p_value(self) -> Floats:
        """One-sided, of a hazard ratio below the null's."""
        return np.asarray(ndtr(-self.z))


def cox_wald(trials: TrialsInOrder, null_hazard_ratio: float = 1.0) -> HazardRatioTests:
    """Wald's test of the Cox estimate of every trial, ties by Efron's method, within strata where there are any.

    Args:
        trials: In order.
        null_hazard_ratio: What the hazard ratio is to lie below: 1 for superiority, the margin for non-inferiority.

    Raises:
        ValueError: If the null hazard ratio is not above 0.

    Source: Cox 1972, J R Stat Soc B 34:187; Efron 1977, J Am Stat Assoc 72:557.
    """
    margin = _log_margin(null_hazard_ratio)
    sets = RiskSets(
        trials.event,
        trials.arm.astype(np.int64),
        trials.at_risk,
        trials.at_risk_1,
        trials.tied,
        trials.tied_1,
        trials.rank,
    )
    found = cox_log_hazard_ratio(sets)
    return HazardRatioTests(found.estimate, found.standard_error, (margin - found.estimate) / found.standard_error)


def cox_score(trials: TrialsInOrder, null_hazard_ratio: float = 1.0) -> Floats:
    """Cox's score test of every trial: z, (trials,), ties by Efron's method; nan where nothing is compared.

    Against a hazard ratio of 1 and without ties this is the log-rank test.

    Args:
        trials: In order.
        null_hazard_ratio: As in `cox_wald`.

    Raises:
        ValueError: If the null hazard ratio is not above 0.

    Source: Cox 1972, J R Stat Soc B 34:187.
    """
    ratio = math.exp(_log_margin(null_hazard_ratio))
    gone = trials.rank / trials.tied
    at_1 = ratio * (trials.at_risk_1 - gone * trials.tied_1)
    at_0 = (trials.at_risk - trials.at_risk_1) - gone * (trials.tied - trials.tied_1)
    share = np.where(trials.event, at_1 / np.where(trials.event, at_1 + at_0, 1.0), 0.0)
    excess = (trials.arm & trials.event).sum(axis=1) - share.sum(axis=1)
    variance = (share * (1 - share)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, -excess / np.sqrt(variance), np.nan)


def _log_margin(null_hazard_ratio: float) -> float:
    if not 0 < null_hazard_ratio < math.inf:
        raise ValueError(f"null_hazard_ratio must be above 0, got {null_hazard_ratio!r}")
    return math.log(null_hazard_ratio)
