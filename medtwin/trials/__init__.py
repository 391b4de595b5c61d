"""Clinical-trial simulation: population, outcome, enrolment, design, analysis, engine; numpy and scipy only.

| question | room |
|---|---|
| who may enter, and what a criterion costs | population |
| what happens to patients, under either arm | outcome |
| when they come, who gets what, who leaves or switches | enrolment |
| bounds, sizes, events and timing, solved analytically | design |
| tests and estimates of one trial's data, or of many trials at once | analysis |
| trials with interim looks from summaries by stage | adaptive |
| many simulated trials | engine |
| a trial as ADaM, FHIR or parquet | export |

`survival_weights` and `restricted_rates` are shared by designs and analyses. The `__init__` of a room says which file
answers which question; docs/trials.md has the conventions.
"""

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.assumptions import Assumptions, DifferencePrior, EffectPrior
from medtwin.trials.engine.bound_surface import InformationRange
from medtwin.trials.engine.canonical import CanonicalDesign, ConditionalPowerStop, simulate_canonical
from medtwin.trials.engine.estimand import Estimand
from medtwin.trials.engine.response_design import NonInferiority, Superiority
from medtwin.trials.engine.response_tests import (
    CovarianceAnalysis,
    ScoreTestOfRates,
    StandardisedRates,
    StudentTest,
)
from medtwin.trials.engine.response_trial import ResponseStudy, ResponseTrial, prepare_responses
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial, prepare
from medtwin.trials.enrolment.accrual import (
    Accrual,
    EvenAccrual,
    LogNormalLag,
    RampedAccrual,
    Screening,
    Site,
    UniformLag,
)
from medtwin.trials.enrolment.adherence import Discontinuation, Dropout, SwitchAtMonth, SwitchAtProgression
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.enrolment.minimisation import Minimisation
from medtwin.trials.enrolment.randomisation import BiasedCoin, BigStick, PermutedBlocks, SimpleRandomisation, Urn
from medtwin.trials.outcome.endpoint import Endpoint
from medtwin.trials.outcome.prognosis import AssumedOutcome
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Reading
from medtwin.trials.population.cohort import Cohort, read_cohort
from medtwin.trials.population.criteria import Age, FollowUp, Has, HasNot, IndexDay, Lab, LatestValue, Sex
from medtwin.trials.population.evaluation import statement
from medtwin.trials.population.language import parse
from medtwin.trials.population.measures import Measure

__all__ = [
    "Accrual",
    "Age",
    "AssumedOutcome",
    "Assumptions",
    "BiasedCoin",
    "BigStick",
    "BinaryResponse",
    "CanonicalDesign",
    "Cohort",
    "ConditionalPowerStop",
    "ContinuousResponse",
    "CovarianceAnalysis",
    "DifferencePrior",
    "Discontinuation",
    "Dropout",
    "EffectPrior",
    "Endpoint",
    "Estimand",
    "EvenAccrual",
    "Factor",
    "FollowUp",
    "GroupSequential",
    "Has",
    "HasNot",
    "IndexDay",
    "InformationRange",
    "Lab",
    "LatestValue",
    "LogNormalLag",
    "Measure",
    "Minimisation",
    "NonInferiority",
    "PermutedBlocks",
    "PiecewiseRate",
    "RampedAccrual",
    "Reading",
    "ResponseStudy",
    "ResponseTrial",
    "ScoreTestOfRates",
    "Screening",
    "Sex",
    "SimpleRandomisation",
    "Site",
    "Spending",
    "StandardisedRates",
    "StudentTest",
    "Study",
    "Superiority",
    "SurvivalDesign",
    "SurvivalTrial",
    "SwitchAtMonth",
    "SwitchAtProgression",
    "UniformLag",
    "Urn",
    "parse",
    "prepare",
    "prepare_responses",
    "read_cohort",
    "simulate_canonical",
    "statement",
]
