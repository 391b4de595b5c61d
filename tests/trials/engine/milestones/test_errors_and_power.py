"""Type I errors of several hypotheses under all and some nulls, and power where theory knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.boundaries import observed_bounds
from medtwin.trials.design.graph import Graph, SequentialHypothesis, first_rejections
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.milestones.actions import Stop
from medtwin.trials.engine.milestones.bounds import SpendingBounds
from medtwin.trials.engine.milestones.conditions import Events, Month, Rejected
from medtwin.trials.engine.milestones.graph_tests import GraphTests
from medtwin.trials.engine.milestones.operating import MilestoneCharacteristics
from medtwin.trials.engine.milestones.plan import Biomarker, EndpointScenario, Hypothesis, Milestone, MilestoneTrial
from medtwin.trials.engine.milestones.simulate import simulate_milestones
from medtwin.trials.enrolment.accrual import Accrual, Site
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.outcome.joint import GumbelPfsOs
from medtwin.trials.outcome.several_endpoints import PfsAndOs, TimeToEvent
from tests.trials.engine.milestones.samples import median

LOOKS = ["interim", "final"]
MILESTONES = [Milestone("interim", Events("pfs", 90)), Milestone("final", Events("os", 90))]
RECYCLED = Graph([0.6, 0.4], [[0, 1], [1, 0]])


def two_endpoints(**changes: object) -> MilestoneTrial:
    plain = MilestoneTrial(
        200,
        Accrual([Site(20.0)]),
        MILESTONES,
        60.0,
        [Hypothesis("PFS", "pfs", LOOKS, planned=150), Hypothesis("OS", "os", LOOKS, planned=90)],
        graph=RECYCLED,
        dropout=Dropout.of_share(0.05),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def truth(pfs_ratio: float, os_ratio: float) -> EndpointScenario:
    control = GumbelPfsOs(median(6.0), median(14.0), 1.6)
    return EndpointScenario("", [PfsAndOs(control, GumbelPfsOs(median(6 / pfs_ratio), median(14 / os_ratio), 1.6))])


def below(found: MilestoneCharacteristics, alpha: float) -> bool:
    """Whether the familywise error is at most alpha, within its Monte-Carlo error."""
    error = found.familywise_error
    assert error is not None
    return error.value <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / found.num_trials)


@pytest.mark.parametrize(("pfs_ratio", "nulls"), [(1.0, ["PFS", "OS"]), (0.45, ["OS"])])
def test_familywise_error_is_at_most_alpha(pfs_ratio: float, nulls: Sequence[str]) -> None:
    found = simulate_milestones(two_endpoints(), truth(pfs_ratio, 1.0), 3000, seed=1)
    assert found.true_nulls == nulls
    assert below(found, 0.025)
    # with PFS rejected nearly always, OS has all of alpha
    assert found.familywise_error is not None
    assert found.familywise_error.value > 0.01


def test_two_tests_at_full_alpha_are_found_out() -> None:
    """The negative control: without a split of alpha the familywise error is too large, and co-primary power is not."""
    found = simulate_milestones(two_endpoints(graph=None, alpha=0.1), truth(1.0, 1.0), 3000, seed=1)
    assert found.any_rejected.value > 0.1 + 3 * np.sqrt(0.1 * 0.9 / 3000)
    assert below(found, 0.1)
    assert found.familywise_error == found.all_rejected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pfs_ratio", "os_ratio", "expected"), [(1.0, 1.0, None), (0.45, 1.0, 0.025), (1.0, 0.4, None)]
)
def test_familywise_error_of_many_trials(pfs_ratio: float, os_ratio: float, expected: float | None) -> None:
    found = simulate_milestones(two_endpoints(), truth(pfs_ratio, os_ratio), 40_000, seed=2)
    assert below(found, 0.025)
    if expected is not None:  # a single null with all of alpha is tested exactly
        assert found.familywise_error is not None
        assert found.familywise_error.value == pytest.approx(expected, abs=0.003)


@pytest.mark.slow
def test_familywise_error_with_a_nested_population() -> None:
    """The whole and a third of it share alpha by a graph; the biomarker works in nobody, or in those with it only."""
    trial = two_endpoints(
        hypotheses=[
            Hypothesis("all", "pfs", LOOKS, planned=150),
            Hypothesis("marker", "pfs", LOOKS, planned=50, population="marker"),
        ],
        biomarker=Biomarker("marker", 1 / 3),
        milestones=[Milestone("interim", Events("pfs", 90)), Milestone("final", Events("pfs", 150))],
    )
    nothing = EndpointScenario("", [TimeToEvent("pfs", median(6.0), median(6.0))])
    assert below(simulate_milestones(trial, nothing, 20_000, seed=3), 0.025)
    harmful = EndpointScenario("", [TimeToEvent("pfs", median(6.0), median(6.0), (median(6.0), median(12.0)))])
    found = simulate_milestones(trial, harmful, 20_000, seed=3)
    assert found.true_nulls == ["marker"]
    assert below(found, 0.025)
    assert found.power("all").value > 0.5


def test_a_single_hypothesis_has_the_power_that_theory_gives() -> None:
    design = SurvivalDesign(GroupSequential(power=0.8, looks=(0.6, 1.0)), 0.6)
    first, last = design.events
    trial = MilestoneTrial(
        300,
        Accrual([Site(30.0)]),
        [
            Milestone("interim", Events("pfs", first), [Stop("efficacy", Rejected("PFS"))]),
            Milestone("final", Events("pfs", last)),
        ],
        200.0,
        [Hypothesis("PFS", "pfs", LOOKS, planned=last)],
        graph=Graph([1.0], [[0]]),
    )
    scenario = EndpointScenario("", [TimeToEvent("pfs", median(6.0), median(10.0))])
    found = simulate_milestones(trial, scenario, 3000, seed=5)
    exits = design.bounds.exits(design.drift(0.6))
    # Schoenfeld's drift is itself an approximation: a point of power beside the Monte-Carlo error
    assert found.power("PFS").value == pytest.approx(exits.power, abs=0.01 + 3 * found.power("PFS").standard_error)
    early = found.power("PFS", "interim")
    assert early.value == pytest.approx(float(exits.upper[0]), abs=0.015 + 3 * early.standard_error)
    assert found.stopped_at("interim", "efficacy") == early
    assert found.median_effect("PFS", "final").value < 0.75


@pytest.mark.parametrize("seed", range(3))
def test_rejections_are_those_of_the_graph_tested_one_by_one(seed: int) -> None:
    source = np.random.default_rng(seed)
    names = ["A", "B", "C"]
    milestones = [Milestone(f"look {k}", Month(10.0 * k)) for k in (1, 2, 3)]
    at = [each.name for each in milestones]
    weights = source.dirichlet(np.ones(3))
    passing = source.uniform(size=(3, 3)) * (1 - np.eye(3))
    passing /= passing.sum(axis=1, keepdims=True)
    graph = Graph(weights, passing)
    trial = two_endpoints(
        milestones=milestones, hypotheses=[Hypothesis(name, "pfs", at, planned=120) for name in names], graph=graph
    )
    information = np.array([[40.0, 80.0, 115.0], [50.0, 70.0, 120.0], [30.0, 90.0, 130.0]])
    shared = source.standard_normal((40, 1, 3))
    z = np.cumsum(0.6 * shared + 0.8 * source.standard_normal((40, 3, 3)), axis=2) / np.sqrt([1, 2, 3]) + 2.2
    tests, found = GraphTests(trial), np.full((40, 3), -1)
    for look in range(3):
        seen = np.broadcast_to(np.where(np.arange(3) <= look, information, np.nan), z.shape)
        found = tests.after(look, [0, 1, 2], z, seen, found)
    for row in range(40):
        hypotheses = [
            SequentialHypothesis(norm.sf(z[row, j]), lambda alpha, j=j: _bounds(tuple(information[j]), alpha))
            for j in range(3)
        ]
        expected = first_rejections(graph, hypotheses, 0.025, lambda bound: float(norm.sf(bound)))
        assert (found[row] + 1).tolist() == expected
    assert 0 < (found >= 0).mean() < 1
    assert set(np.unique(found)) == {-1, 0, 1, 2}


@cache
def _bounds(information: tuple[float, ...], alpha: float) -> np.ndarray:
    looks = range(1, len(information) + 1)
    return np.array(
        [observed_bounds(120.0, information[:k], alpha, Spending(), is_final=k == looks[-1])[-1] for k in looks]
    )


def test_fixed_fractions_keep_their_order() -> None:
    """A look that comes before its time, by fractions fixed in advance, takes nothing that a later one has spent."""
    trial = two_endpoints(
        hypotheses=[
            Hypothesis("PFS", "pfs", ["a", "b", "end"], fractions={"a": 0.3, "b": 0.6, "end": 1.0}),
        ],
        milestones=[Milestone("a", Month(20.0)), Milestone("b", Month(10.0)), Milestone("end", Month(30.0))],
        graph=Graph([1.0], [[0]]),
    )
    tests = GraphTests(trial)
    only_b, then_a = np.array([[np.nan, 50.0, np.nan]]), np.array([[90.0, 50.0, np.nan]])
    assert tests.bound(0, 1, 0.025, only_b)[0] == pytest.approx(
        SpendingBounds(Spending(), 1.0).last(0.025, np.array([[0.6]]), np.array([False]))[0]
    )
    assert np.isinf(tests.bound(0, 0, 0.025, then_a)[0])


def test_what_is_spent_at_the_last_test_is_spent() -> None:
    """A hypothesis whose last test came before its first one is not tested again."""
    trial = two_endpoints(
        hypotheses=[Hypothesis("PFS", "pfs", ["late", "early"], planned=100)],
        milestones=[Milestone("late", Month(20.0)), Milestone("early", Month(10.0)), Milestone("end", Month(30.0))],
        graph=Graph([1.0], [[0]]),
    )
    information, z = np.array([[[90.0, 50.0, np.nan]]]), np.array([[[5.0, 1.0, np.nan]]])
    found = GraphTests(trial).after(0, [0], z, information, np.array([[-1]]))
    assert found.tolist() == [[-1]]
