"""Trials whose endpoint is read once, one of each kind."""

from __future__ import annotations

from medtwin.trials import GroupSequential, PermutedBlocks, Spending
from medtwin.trials.engine.response_batch import ResponseCharacteristics, ResponseStops, draw_patients, run_trials
from medtwin.trials.engine.response_design import NonInferiority
from medtwin.trials.engine.response_tests import CovarianceAnalysis, StandardisedRates
from medtwin.trials.engine.response_trial import ResponseStudy, ResponseTrial
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse

TWO = GroupSequential(looks=(0.5, 1.0))
THREE = GroupSequential(looks=(0.5, 0.75, 1.0), futility=Spending("hwang_shih_decani", -4.0))
BINDING = GroupSequential(looks=(0.5, 1.0), futility=Spending("hwang_shih_decani", -2.0), binding=True)
PRESSURE = ContinuousResponse("blood pressure", 6.0, -8.0, 12.0, 140.0, 0.6, higher_is_better=False)
SCORE = ContinuousResponse("pain", 3.0, 0.0, 2.0)
RESPONDS = BinaryResponse("response", 3.0, 0.3, 0.2)
RELAPSES = BinaryResponse("relapse", 6.0, 0.2, 0.0, 1.0, higher_is_better=False)

TRIALS = {
    "t": ResponseTrial("t", TWO, PRESSURE),
    "ancova": ResponseTrial("ancova", THREE, PRESSURE, analysis=CovarianceAnalysis()),
    "t non-inferiority": ResponseTrial("ni", BINDING, SCORE, NonInferiority(0.8)),
    "rates": ResponseTrial("rates", TWO, RESPONDS),
    "rates non-inferiority 2:1": ResponseTrial(
        "ni 2:1", THREE, RELAPSES, NonInferiority(0.15), allocation_ratio=2.0, randomisation=PermutedBlocks(6)
    ),
    "standardised rates": ResponseTrial(
        "g", TWO, BinaryResponse("response", 3.0, 0.3, 0.2, 1.0), analysis=StandardisedRates()
    ),
}


def simulated(study: ResponseStudy, effect: float, blocks: int, *, obeys: bool = True) -> ResponseCharacteristics:
    """So many hundred trials, with seed 1."""
    plan = study.plan
    parts = [run_trials(plan, draw_patients(plan, 1, b), effect, obeys_futility=obeys) for b in range(blocks)]
    return ResponseCharacteristics(effect, ResponseStops.join(parts))
