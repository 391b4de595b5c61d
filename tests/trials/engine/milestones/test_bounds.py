"""Bounds of many trials at once are those of the design room, solved one by one."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.design.boundaries import observed_bounds
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.engine.milestones.bounds import SpendingBounds

SPENDING = [Spending("obrien_fleming"), Spending("pocock"), Spending("hwang_shih_decani", -2.0)]


@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("looks", [1, 2, 3, 4])
def test_bounds_are_those_solved_one_by_one(spending: SpendingFunction, looks: int) -> None:
    source = np.random.default_rng(looks)
    information = np.sort(source.integers(60, 460, (looks, 8)), axis=0).astype(float) + 2.0 * np.arange(looks)[:, None]
    is_final = np.arange(8) % 2 == 0
    found = SpendingBounds(spending, 400.0).last(0.015, information, is_final)
    expected = [
        observed_bounds(400.0, column.tolist(), 0.015, spending, is_final=bool(final))[-1]
        for column, final in zip(information.T, is_final, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_looks_that_a_trial_did_not_have_or_that_add_nothing_do_not_count() -> None:
    bounds = SpendingBounds(Spending(), 200.0)
    final = np.array([True])
    alone = bounds.last(0.02, np.array([[200.0]]), final)
    assert alone == pytest.approx(2.0537489, abs=1e-6)
    np.testing.assert_allclose(bounds.last(0.02, np.array([[np.nan], [200.0]]), final), alone)
    np.testing.assert_allclose(bounds.last(0.02, np.array([[200.0], [200.0]]), final), alone)
    assert bounds.last(0.02, np.array([[100.0], [200.0]]), final)[0] > alone[0]


def test_a_look_beyond_the_plan_that_is_not_the_last_spends_nothing_twice() -> None:
    bounds = SpendingBounds(Spending(), 200.0)
    assert np.isinf(bounds.last(0.02, np.array([[210.0], [230.0]]), np.array([False])))[0]


def test_information_must_be_there_and_grow() -> None:
    bounds = SpendingBounds(Spending(), 200.0)
    with pytest.raises(ValueError, match="must not decrease"):
        bounds.last(0.02, np.array([[120.0], [100.0]]), np.array([True]))
    for nothing in (0.0, np.nan):
        with pytest.raises(ValueError, match="above 0 at the latest look"):
            bounds.last(0.02, np.array([[100.0], [nothing]]), np.array([True]))
