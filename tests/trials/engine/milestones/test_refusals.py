"""Trials that make no sense, or whose tests would not hold, are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medtwin.trials.design.graph import Graph
from medtwin.trials.design.hazard import PiecewiseRate
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
from medtwin.trials.engine.milestones.plan import Biomarker, EndpointScenario, Hypothesis, Milestone, MilestoneTrial
from medtwin.trials.engine.milestones.simulate import simulate_milestones
from medtwin.trials.enrolment.accrual import Accrual, Site
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.enrolment.randomisation import PermutedBlocks
from tests.trials.engine.milestones.samples import busy_trial, scenario

END = Milestone("end", Month(30.0))


def trial(**changes: Any) -> MilestoneTrial:
    plain = MilestoneTrial(60, Accrual([Site(10.0)]), [END], 30.0, [Hypothesis("PFS", "pfs", ["end"])])
    return replace(plain, **changes)


def with_action(action: Any) -> MilestoneTrial:
    return trial(milestones=[Milestone("look", Events("pfs", 20), [action]), END])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trial(num_subjects=0), "num_subjects must be a whole number of 1 or more"),
        (lambda: trial(num_subjects=10.5), "whole number"),
        (lambda: trial(max_months=0), "max_months must be above 0"),
        (lambda: trial(max_months=float("nan")), "max_months must be above 0"),
        (lambda: trial(alpha=0.6), "alpha must be one-sided"),
        (lambda: trial(milestones=[]), "milestones must be one or more"),
        (lambda: trial(milestones=[END, END]), "names of their own"),
        (lambda: trial(graph=Graph([0.5, 0.5], [[0, 1], [1, 0]])), "graph must have 1 hypotheses, got 2"),
        (lambda: trial(accrual=Accrual([Site(PiecewiseRate((0.0, 2.0), (5.0, 0.0)))])), "at most the 10"),
        (lambda: trial(allocation_ratio=2.0, randomisation=PermutedBlocks(4)), "multiple of 3"),
        (lambda: trial(randomisation=PermutedBlocks(4, ("sex",))), "must balance"),
        (lambda: trial(randomisation=PermutedBlocks(4, (Factor("site", (1.0,)),))), "without cuts"),
        (lambda: trial(hypotheses=[Hypothesis("PFS", "pfs", ["look"])]), "must name milestones among"),
        (lambda: trial(hypotheses=[Hypothesis("P", "pfs", ["end"], population="x")]), "must be the trial's biomarker"),
        (lambda: trial(milestones=[Milestone("a", Since("b")), END]), "waits for a milestone that is not among"),
        (lambda: trial(milestones=[Milestone("a", Events("pfs", 9, "x")), END]), "must be the trial's biomarker"),
        (lambda: with_action(Stop("it", Rejected("OS"))), "hypotheses that are not among"),
        (lambda: with_action(Enrich("marker")), "closed combination tests"),
        (lambda: with_action(Resize(90, Statistic("pfs", below=1.0))), "difference between the arms"),
        (lambda: with_action(EndBy(40, ~Rejected("PFS"))), "difference between the arms"),
        (lambda: with_action(EndBy(40, Events("pfs", 3) & ~Rejected("PFS"))), "difference between the arms"),
        (lambda: with_action(ChangeAccrual(2.0, Statistic("pfs", at_least=0.0))), "difference between the arms"),
        (
            lambda: replace(with_action(PauseAccrual(1.0)), accrual=Accrual([Site(10.0)], site_variation=0.5)),
            "rates of sites vary",
        ),
        (lambda: Hypothesis("P", "pfs", []), "list of distinct milestones"),
        (lambda: Hypothesis("P", "pfs", "end"), "list of distinct milestones"),
        (lambda: Hypothesis("P", "pfs", ["a", "b"]), "planned must be given"),
        (lambda: Hypothesis("P", "pfs", ["a"], planned=-1.0), "must be above 0"),
        (lambda: Hypothesis("P", "pfs", ["a", "b"], fractions={"a": 0.6, "b": 0.9}), "increasing to 1"),
        (lambda: Hypothesis("P", "pfs", ["a", "b"], fractions={"a": 0.6, "c": 1.0}), "increasing to 1"),
        (lambda: Milestone("a", Statistic("pfs", below=0.0)), "must come true at some month"),  # type: ignore[arg-type]
        (lambda: Milestone("a", ~Month(3.0)), "must come true at some month"),  # type: ignore[arg-type]
        (lambda: Events("pfs", 0), "1 or more"),
        (lambda: Events("pfs", 2.5), "whole number"),  # type: ignore[arg-type]
        (lambda: Month(-1.0), "0 or more"),
        (lambda: Month(float("nan")), "0 or more"),
        (lambda: Enrolled(0), "1 or more"),
        (lambda: Enrolled(5, -1.0), "0 or more"),
        (lambda: Since("a", -1.0), "0 or more"),
        (lambda: Statistic("pfs"), "one of them given"),
        (lambda: Rejected(), "one or more hypotheses"),
        (lambda: go_no_go("orr", 1.0), "between 0 and 1"),
        (lambda: EndBy(0.0), "above 0"),
        (lambda: ChangeAccrual(0.0), "PauseAccrual or Resize"),
        (lambda: PauseAccrual(0.0), "above 0"),
        (lambda: Resize(0), "1 or more"),
        (lambda: Biomarker("x", 1.0), "between 0 and 1"),
        (lambda: EndpointScenario("nothing", []), "one or more"),
    ],
)
def test_refused_with_a_reason(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_blinded_change_is_allowed() -> None:
    assert with_action(Resize(90, ~Events("os", 10) & Enrolled(30))).most_subjects == 90


def test_scenarios_must_have_what_the_trial_asks_for() -> None:
    only_response = EndpointScenario("no times", scenario().outcomes[1:])
    with pytest.raises(ValueError, match="endpoint of PFS must be among"):
        simulate_milestones(trial(), only_response, 10, seed=1)
    with pytest.raises(ValueError, match="counts events of 'orr'"):
        simulate_milestones(trial(milestones=[Milestone("a", Events("orr", 3)), END]), scenario(), 10, seed=1)
    with pytest.raises(ValueError, match="test of 'qol'"):
        simulate_milestones(with_action(go_no_go("qol", 0.1)), scenario(), 10, seed=1)
    for name in ("num_trials", "workers", "batch"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            simulate_milestones(trial(), scenario(), **{"num_trials": 10, "seed": 1, name: 0})  # type: ignore[arg-type]


def test_names_that_are_not_there() -> None:
    found = simulate_milestones(busy_trial(), scenario(), 20, seed=1)
    with pytest.raises(ValueError, match="hypothesis must be among"):
        found.power("QOL")
    with pytest.raises(ValueError, match="milestone must be among"):
        found.reached("never")
    with pytest.raises(ValueError, match="label must be among"):
        found.acted("gate", "resize")


def test_trials_of_very_few_patients_end() -> None:
    tiny = trial(num_subjects=1, milestones=[Milestone("orr", Month(5.0), [go_no_go("orr", 0.4)]), END])
    found = simulate_milestones(tiny, scenario(), 30, seed=2)
    assert found.power("PFS").value == 0.0
    assert found.stopped_at("orr").value == 1.0  # nothing to compare is no evidence


def test_estimates_that_run_off_are_none() -> None:
    """One patient of each arm: the first event alone has both at risk, so that no hazard ratio is the likeliest."""
    pair = trial(num_subjects=2, milestones=[Milestone("end", Events("os", 2))], max_months=500.0)
    found = simulate_milestones(pair, scenario(), 200, seed=2)
    assert np.isnan(found.records.estimate).all()
    assert np.isnan(found.median_effect("PFS").value)
