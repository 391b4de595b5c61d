"""Trials with PFS, OS and a response that the tests of milestones share."""

from __future__ import annotations

from medtwin.trials.design.graph import Graph
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.milestones.actions import ChangeAccrual, EndBy, PauseAccrual, Resize, Stop, go_no_go
from medtwin.trials.engine.milestones.conditions import Enrolled, Events, Month, Rejected, Since, Statistic
from medtwin.trials.engine.milestones.plan import Biomarker, EndpointScenario, Hypothesis, Milestone, MilestoneTrial
from medtwin.trials.enrolment.accrual import Accrual, Site
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.outcome.joint import GumbelPfsOs
from medtwin.trials.outcome.several_endpoints import PfsAndOs, Response


def median(months: float) -> PiecewiseRate:
    return PiecewiseRate.of_median(months)


def constant(rate: float) -> PiecewiseRate:
    return PiecewiseRate((0.0,), (rate,))


def scenario(pfs_ratio: float = 0.6, os_ratio: float = 0.7, response: float = 0.5) -> EndpointScenario:
    control = GumbelPfsOs.of_kendall(median(6.0), median(14.0), 0.6)
    experimental = GumbelPfsOs.of_kendall(median(6.0 / pfs_ratio), median(14.0 / os_ratio), 0.6)
    return EndpointScenario("alternative", [PfsAndOs(control, experimental), Response("orr", 3.0, 0.3, response)])


def busy_trial() -> MilestoneTrial:
    """Every kind of condition and action in 120 patients."""
    return MilestoneTrial(
        num_subjects=120,
        accrual=Accrual([Site(PiecewiseRate((0.0, 4.0), (4.0, 9.0)))]),
        milestones=[
            Milestone("gate", Enrolled(40, 3.0) | Month(12.0), [go_no_go("orr", 0.3)]),
            Milestone(
                "checkpoint",
                Month(15.0),
                [
                    ChangeAccrual(2.0, ~Events("pfs", 40)),
                    EndBy(34.0, ~Events("os", 18)),
                    Resize(150, ~Events("pfs", 45)),
                ],
            ),
            Milestone("pause", Enrolled(100), [PauseAccrual(1.5)]),
            Milestone(
                "interim",
                Events("pfs", 60) & Since("gate", 2.0),
                [
                    Stop("futility", Statistic("pfs", below=0.0)),
                    Stop("efficacy", Rejected("PFS", "OS")),
                ],
            ),
            Milestone("subgroup", Events("os", 20, "marker"), [Stop("efficacy", Rejected("PFS") & Rejected("PFS+"))]),
            Milestone("final", Events("os", 70) & Since("interim", 3.0)),
        ],
        max_months=30.0,
        hypotheses=[
            Hypothesis("PFS", "pfs", ["interim", "final"], planned=90),
            Hypothesis("OS", "os", ["interim", "subgroup", "final"], planned=70),
            Hypothesis("PFS+", "pfs", ["subgroup", "final"], planned=50, population="marker"),
            Hypothesis("ORR", "orr", ["interim"]),
        ],
        graph=Graph([0.4, 0.2, 0.2, 0.2], [[0, 0.5, 0.5, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0]]),
        allocation_ratio=2.0,
        dropout=Dropout.of_share(0.1),
        biomarker=Biomarker("marker", 0.5),
    )
