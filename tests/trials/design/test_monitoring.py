from __future__ import annotations

import math

import numpy as np
import pytest

from medtwin.trials import GroupSequential, Spending
from medtwin.trials.design.boundaries import exit_probabilities, observed_bounds
from medtwin.trials.design.monitoring import Monitoring, bounds_at_looks

LOOKS = (0.5, 0.75, 1.0)
FUTILITY = Spending("hwang_shih_decani", -4.0)


@pytest.mark.parametrize(
    "plan",
    [
        GroupSequential(looks=LOOKS),
        GroupSequential(looks=LOOKS, efficacy=Spending("pocock"), futility=FUTILITY),
        GroupSequential(looks=LOOKS, futility=FUTILITY, binding=True),
        GroupSequential(looks=(1.0,)),
    ],
)
def test_at_the_plan_the_bounds_are_those_planned(plan: GroupSequential) -> None:
    found = bounds_at_looks(plan, plan.looks)
    np.testing.assert_allclose(found.efficacy, plan.bounds.efficacy, atol=1e-7)
    np.testing.assert_allclose(found.futility, plan.bounds.futility, atol=1e-6)


@pytest.mark.parametrize("last", [0.8, 0.97, 1.3])
def test_the_last_look_spends_the_rest_whatever_its_information(last: float) -> None:
    plan = GroupSequential(looks=(0.5, 1.0))
    found = bounds_at_looks(plan, (0.43, last))
    exits = exit_probabilities(found.fractions, found.efficacy, None, 0.0)
    assert math.isclose(exits.power, 0.025, abs_tol=1e-9)
    assert math.isclose(exits.upper[0], plan.efficacy.spent(0.43, 0.025), abs_tol=1e-12)
    np.testing.assert_allclose(
        found.efficacy, observed_bounds(1.0, (0.43, last), 0.025, plan.efficacy, is_final=True), atol=1e-9
    )


def test_bounds_of_the_plan_do_not_hold_alpha_at_other_information() -> None:
    """The control: what recomputing is for."""
    plan = GroupSequential(looks=(0.5, 1.0), efficacy=Spending("pocock"))
    kept = exit_probabilities((0.15, 1.0), plan.bounds.efficacy, None, 0.0).power
    assert kept > 0.0262


def test_binding_futility_counts_in_alpha_and_beta_is_spent_as_planned() -> None:
    plan = GroupSequential(looks=LOOKS, futility=FUTILITY, binding=True)
    found = bounds_at_looks(plan, (0.45, 0.8, 1.1))
    with_stops = exit_probabilities(found.fractions, found.efficacy, found.futility, 0.0)
    assert math.isclose(with_stops.power, 0.025, abs_tol=1e-8)
    assert exit_probabilities(found.fractions, found.efficacy, None, 0.0).power > 0.0252
    drift = plan.bounds.drift * math.sqrt(1.1)
    missed = exit_probabilities(found.fractions, found.efficacy, found.futility, drift).lower[:2]
    np.testing.assert_allclose(np.cumsum(missed), FUTILITY.spent([0.45, 0.8], 0.1), atol=1e-7)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [((0.5, 0.5), "grow"), ((0.0, 1.0), "grow"), ((0.5, math.nan), "grow"), ((0.5, math.inf), "grow"), ((), "none")],
)
def test_information_that_does_not_grow_is_refused(fractions: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bounds_at_looks(GroupSequential(looks=(1.0,)), fractions)


def test_nothing_follows_the_last_look() -> None:
    last = Monitoring(GroupSequential(looks=(1.0,))).after(0.9, is_final=True)
    with pytest.raises(ValueError, match="no look may follow the last"):
        last.after(1.0)
