"""Trials that the tests of survival designs share."""

from __future__ import annotations

import numpy as np

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival


def constant(rate: float) -> PiecewiseRate:
    """A rate that never changes."""
    return PiecewiseRate((0.0,), (rate,))


def proportional(hazard_ratio: float = 0.7, dropout: float = 0.0, ratio: float = 1.0) -> TwoArmSurvival:
    """20 patients a month for 12 months, control median 12 months."""
    hazard = np.log(2) / 12
    arms = Arm(constant(hazard * hazard_ratio), dropout), Arm(constant(hazard), dropout)
    return TwoArmSurvival([Stratum(*arms, constant(20.0))], 12.0, ratio)


def delayed(hazard_ratio: float = 0.6, delay: float = 4.0) -> TwoArmSurvival:
    """20 patients a month for 18 months, control median 12 months, an effect that begins after some months."""
    hazard = np.log(2) / 12
    treated = PiecewiseRate((0.0, delay), (hazard, hazard * hazard_ratio))
    control = PiecewiseRate((0.0, delay), (hazard, hazard))
    return TwoArmSurvival([Stratum(Arm(treated, 0.001), Arm(control, 0.001), constant(20.0))], 18.0)
