"""Clinical-trial simulation: population, outcome, enrolment, design, analysis, engine; numpy and scipy only."""

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial, prepare
from medtwin.trials.outcome.endpoint import Endpoint
from medtwin.trials.outcome.prognosis import AssumedOutcome
from medtwin.trials.population.cohort import Cohort, read_cohort
from medtwin.trials.population.criteria import Age, FollowUp, Has, HasNot, IndexDay, Lab, LatestValue, Sex
from medtwin.trials.population.evaluation import statement
from medtwin.trials.population.language import parse
from medtwin.trials.population.measures import Measure

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
    "Measure",
    "Sex",
    "Spending",
    "Study",
    "SurvivalDesign",
    "SurvivalTrial",
    "parse",
    "prepare",
    "read_cohort",
    "statement",
]
