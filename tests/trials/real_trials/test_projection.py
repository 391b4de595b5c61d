"""Numbers of events to come in ACTG 175: within their limits as often as these say, and only then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trials.real_trials.projection import CUTS, after, arm_of, other_half, simulated


@pytest.mark.real
def test_half_of_the_control_arm_projects_the_other_half(public_data: Path) -> None:
    inside = [other_half(public_data, seed).is_inside for seed in range(40)]
    assert inside[0]
    assert sum(inside) >= 35  # 95 % but for chance: in 96 of 100 such series of independent trials


@pytest.mark.real
def test_half_of_the_control_arm_does_not_project_a_treated_arm(public_data: Path) -> None:
    """The negative control: their hazard ratio is about one half."""
    for seed in range(10):
        found = other_half(public_data, seed, arm=1)
        assert found.events < found.projection.interval()[0]


@pytest.mark.real
def test_the_first_part_of_follow_up_projects_the_rest_at_every_cut(public_data: Path) -> None:
    """At all 6 cuts of the control arm; of all arms, each by its own model, at 21 of 24 (they share patients)."""
    inside = []
    for arm in range(4):
        days, event = arm_of(public_data, arm)
        here = [after(days, event, cut, np.random.default_rng(3)).is_inside for cut in CUTS[::2]]
        assert arm > 0 or all(here)
        inside += here
    assert sum(inside) >= 21


@pytest.mark.slow
def test_limits_hold_of_trials_whose_law_goes_on_and_not_of_those_whose_law_changes() -> None:
    """Those of a mixture of families were too narrow (docs/results/trials_real.md)."""
    found = [simulated(seed) for seed in range(60)]
    assert sum(one.is_inside for one, _ in found) >= 53  # of a share of 0.95 but for 1 chance in 100
    assert sum(other.is_inside for _, other in found) <= 15
