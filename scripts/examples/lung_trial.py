#!/usr/bin/env python
"""A phase 3 trial in lung cancer: a gate on response, PFS with an interim, OS, and an end that may come later.

    python scripts/examples/lung_trial.py [TRIALS]

Two patients on the new drug for each control, 600 in all. A response rate that is not better at month 18 stops the
trial. PFS (alpha 0.015) is tested after 65 % of its events and at the end, OS (alpha 0.010) at the end, which is at 340
deaths or month 48; if fewer than 220 patients have progressed or died by month 24, at month 54. The brief is issue 118
of RConsortium/pharma-skills (MIT).
"""

from __future__ import annotations

import sys

from medtwin.trials import Dropout, EvenAccrual, GroupSequential, PiecewiseRate, Site, Spending, SurvivalDesign
from medtwin.trials.engine.milestones import (
    EndBy,
    EndpointScenario,
    Events,
    Graph,
    GumbelPfsOs,
    Hypothesis,
    Milestone,
    MilestoneTrial,
    Month,
    PfsAndOs,
    Response,
    go_no_go,
    simulate_milestones,
)

# How many PFS events give 90 % power, with an interim by Lan and DeMets' O'Brien-Fleming spending?
PFS_DESIGN = SurvivalDesign(
    GroupSequential(alpha=0.015, power=0.9, looks=(0.65, 1.0), efficacy=Spending("obrien_fleming")),
    hazard_ratio=0.7,
    allocation_ratio=2.0,
)
INTERIM_EVENTS, PLANNED_EVENTS = PFS_DESIGN.events

TRIAL = MilestoneTrial(
    num_subjects=600,
    allocation_ratio=2.0,
    # 5 patients a month for three months, 15 for the next three, then 25, one after the other
    accrual=EvenAccrual([Site(PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 25.0)))]),
    dropout=Dropout.of_share(0.05),  # a year, from all endpoints
    milestones=[
        Milestone("response gate", Month(18.0), [go_no_go("orr", alpha=0.10)]),
        Milestone("checkpoint", Month(24.0), [EndBy(54.0, when=~Events("pfs", 220))]),
        Milestone("PFS interim", Events("pfs", INTERIM_EVENTS)),
        Milestone("final", Events("os", 340)),
    ],
    max_months=48.0,
    hypotheses=[
        Hypothesis("PFS", "pfs", ["PFS interim", "final"], fractions={"PFS interim": 0.65, "final": 1.0}),
        Hypothesis("OS", "os", ["final"]),
    ],
    alpha=0.025,
    graph=Graph(weights=[0.6, 0.4], transitions=[[0, 0], [0, 0]]),  # independent claims: nothing passes on
)


def scenario(name: str, pfs_ratio: float, os_ratio: float, response: float, tau: float = 0.5) -> EndpointScenario:
    """The truth: hazard ratios of PFS and OS, the new drug's response rate, Kendall's tau of PFS and OS under it."""
    control = GumbelPfsOs.of_kendall(PiecewiseRate.of_median(8.0), PiecewiseRate.of_median(18.0), tau=0.5)
    treated = GumbelPfsOs.of_kendall(
        PiecewiseRate.of_median(8.0 / pfs_ratio), PiecewiseRate.of_median(18.0 / os_ratio), tau
    )
    return EndpointScenario(name, [PfsAndOs(control, treated), Response("orr", 6.0, 0.25, response)])


SCENARIOS = [
    scenario("as hoped", 0.7, 0.78, 0.40),
    scenario("no effect on survival", 0.7, 1.0, 0.40, tau=0.7),  # PFS of 11.4 months holds more of OS of 18
    scenario("no effect", 1.0, 1.0, 0.25),
]


def main() -> None:
    """Prints the operating characteristics under each scenario, on the same patients."""
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"PFS events: {INTERIM_EVENTS}, {PLANNED_EVENTS}; bounds {PFS_DESIGN.plan.bounds.efficacy.round(3)}")
    for truth in SCENARIOS:
        print(simulate_milestones(TRIAL, truth, num_trials, seed=118).text)


if __name__ == "__main__":
    main()
