"""Trials with several endpoints, whose looks are milestones at which something is tested, decided and changed.

The names that a script types are here; see docs/trials.md, Milestones.
"""

from medtwin.trials.design.graph import Graph
from medtwin.trials.engine.milestones.actions import (
    ChangeAccrual,
    EndBy,
    Enrich,
    PauseAccrual,
    Resize,
    Stop,
    go_no_go,
)
from medtwin.trials.engine.milestones.conditions import Enrolled, Events, Month, Rejected, Since, Statistic
from medtwin.trials.engine.milestones.operating import MilestoneCharacteristics
from medtwin.trials.engine.milestones.plan import Biomarker, EndpointScenario, Hypothesis, Milestone, MilestoneTrial
from medtwin.trials.engine.milestones.simulate import simulate_milestones
from medtwin.trials.outcome.joint import GumbelPfsOs, IllnessDeath
from medtwin.trials.outcome.several_endpoints import PfsAndOs, Response, TimeToEvent, hazard_with_ratio

__all__ = [
    "Biomarker",
    "ChangeAccrual",
    "EndBy",
    "EndpointScenario",
    "Enrich",
    "Enrolled",
    "Events",
    "Graph",
    "GumbelPfsOs",
    "Hypothesis",
    "IllnessDeath",
    "Milestone",
    "MilestoneCharacteristics",
    "MilestoneTrial",
    "Month",
    "PauseAccrual",
    "PfsAndOs",
    "Rejected",
    "Resize",
    "Response",
    "Since",
    "Statistic",
    "Stop",
    "TimeToEvent",
    "go_no_go",
    "hazard_with_ratio",
    "simulate_milestones",
]
