"""Clinical-trial simulation: population, outcome, enrolment, design, analysis, engine; numpy and scipy only."""

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial, prepare
from medtwin.trials.outcome.endpoint import Endpoint
from medtwin.trials.outcome.prognosis import AssumedOutcome
from medtwin.trials.population.cohort import Cohort, read_cohort
from medtwin.trials.population.criteria import Age, FollowUp, Has, HasNot, IndexDay, Lab, LatestValue, Sex

__all__ = [
    "Age",
    "AssumedOutcome",
    "Cohort",
    "Endpoint",
    "FollowUp",
    "GroupSequential",
    "Has",
    "HasNot",
    "IndexDay",
    "Lab",
    "LatestValue",
    "Sex",
    "Spending",
    "Study",
    "SurvivalDesign",
    "SurvivalTrial",
    "prepare",
    "read_cohort",
]
