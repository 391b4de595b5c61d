"""Clinical-trial simulation: population, outcome, enrolment, design, analysis, engine; numpy and scipy only."""

from medtwin.trials.cohort import Cohort, read_cohort
from medtwin.trials.design import GroupSequential, SurvivalDesign
from medtwin.trials.endpoint import Endpoint
from medtwin.trials.outcome import AssumedOutcome
from medtwin.trials.population import Age, FollowUp, Has, HasNot, IndexDay, Lab, LatestValue, Sex
from medtwin.trials.spending import Spending
from medtwin.trials.survival_trial import Study, SurvivalTrial, prepare

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
