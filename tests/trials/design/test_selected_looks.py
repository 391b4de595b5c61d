"""Bounds at some looks and bounds for harm: alpha kept, power met, published values of gsDesign."""

import numpy as np
import pytest

from medtwin.trials.design.boundaries import exit_probabilities, spending_both
from medtwin.trials.design.selected_looks import (
    TestedLooks,
    exits_with_harm,
    harm_bounds,
    selected_spending_both,
    spent_where_tested,
)
from medtwin.trials.design.spending import Spending

T = (0.4, 0.7, 1.0)
SPENDING = Spending("obrien_fleming"), Spending("hwang_shih_decani", 1.0)


def test_all_looks_are_the_usual_bounds() -> None:
    every = TestedLooks([True] * 3, [True] * 3)
    for binding in (False, True):
        found = selected_spending_both(T, 0.025, 0.1, SPENDING, every, binding=binding)
        usual = spending_both(T, 0.025, 0.1, SPENDING, binding=binding)
        assert found.drift == pytest.approx(usual.drift, abs=1e-7)
        assert found.efficacy == pytest.approx(usual.efficacy, abs=1e-7)
        assert found.futility == pytest.approx(usual.futility, abs=1e-7)


def test_a_futility_look_only() -> None:
    """The first example of gsDesign's article on selective bounds."""
    tested = TestedLooks([False, True, True], [True, False, False])
    found = selected_spending_both(T, 0.025, 0.1, SPENDING, tested)
    assert found.efficacy == pytest.approx([np.inf, 2.4380, 1.9999], abs=1e-4)
    assert found.futility == pytest.approx([0.5659, -np.inf, -np.inf], abs=1e-4)
    exits = found.exits(found.drift)
    assert exits.power == pytest.approx(0.9)
    assert exits.upper[:2].sum() == pytest.approx(0.6738, abs=1e-4)


@pytest.mark.parametrize("binding", [False, True])
@pytest.mark.parametrize("futility", [[True, False, True], [False, True, False], [True, True, True]])
def test_alpha_is_kept_whatever_is_left_out(binding: bool, futility: list[bool]) -> None:
    tested = TestedLooks([True, False, True], futility)
    found = selected_spending_both(T, 0.025, 0.1, SPENDING, tested, binding=binding)
    obeyed = found.futility if binding else None
    assert exit_probabilities(T, found.efficacy, obeyed, 0.0).power == pytest.approx(0.025, abs=1e-9)
    assert found.exits(found.drift).power == pytest.approx(0.9, abs=1e-9)


def test_bounds_for_harm() -> None:
    """Values of gsDesign's article: harm at the first two looks, no efficacy at the first."""
    tested = TestedLooks([False, True, True], [True] * 3)
    found = selected_spending_both(T, 0.025, 0.1, SPENDING, tested)
    spends = spent_where_tested(SPENDING[1].spent(T, 0.15), [True, True, False])
    harm = harm_bounds(T, found.efficacy, found.futility, spends)
    assert harm == pytest.approx([-1.4171, -1.4036, -np.inf], abs=1e-4)
    null = exits_with_harm(T, found.efficacy, found.futility, harm, 0.0)
    assert null.harm.cumsum() == pytest.approx([0.0782, 0.0784, 0.0784], abs=6e-5)
    assert null.futility.cumsum() == pytest.approx([0.6652, 0.8500, 0.9021], abs=6e-5)
    assert null.upper.cumsum() == pytest.approx([0.0, 0.0073, 0.0195], abs=6e-5)
    other = exits_with_harm(T, found.efficacy, found.futility, harm, found.drift)
    assert other.futility.cumsum() == pytest.approx([0.0520, 0.0795, 0.0999], abs=6e-5)


def test_harm_and_futility_together_are_what_stops_below() -> None:
    upper, lower, harm = [3.0, 2.5, 2.0], [-0.5, 0.5, 2.0], [-2.0, -1.5, -1.0]
    both, plain = exits_with_harm(T, upper, lower, harm, 1.0), exit_probabilities(T, upper, lower, 1.0)
    assert both.harm + both.futility == pytest.approx(plain.lower)
    assert both.upper == pytest.approx(plain.upper)
    assert harm_bounds(T, upper, [-3.0, -3.0, -3.0], [0.1, 0.2, 0.3]).tolist() == [-3.0, -3.0, -3.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TestedLooks([True, True], [True]), "one per look"),
        (lambda: TestedLooks([True, False], [True, True]), "at the last look"),
        (lambda: spent_where_tested([0.1, 0.2], [True]), "one per look"),
        (
            lambda: selected_spending_both(T, 0.5, 0.9, SPENDING, TestedLooks([True] * 3, [True] * 3)),
            "power must be above alpha",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
