"""Spending functions: their ends, their points, and what they refuse."""

import numpy as np
import pytest

from medtwin.trials.design.spending import (
    BetaSpending,
    ExponentialSpending,
    GappedSpending,
    PointSpending,
    Spending,
    SpendingFunction,
    TrimmedSpending,
    TruncatedSpending,
    TwoParameterSpending,
)

FUNCTIONS: list[SpendingFunction] = [
    Spending("pocock"),
    TwoParameterSpending("logistic", -1.0, 1.2),
    TwoParameterSpending("normal", -0.5, 1.0),
    TwoParameterSpending("cauchy", -0.5, 1.0),
    TwoParameterSpending("extreme_value", -0.5, 1.0),
    TwoParameterSpending("extreme_value_2", -0.5, 1.0),
    TwoParameterSpending("student", -0.5, 1.0, 4.0),
    BetaSpending(2.0, 3.0),
    ExponentialSpending(0.8),
    PointSpending((0.2, 0.7), (0.05, 0.4)),
    PointSpending((0.2, 0.7), (0.05, 0.4), steps=True),
    TrimmedSpending(Spending("hwang_shih_decani", -2.0), 0.3, 0.9),
    TruncatedSpending(Spending("obrien_fleming"), 0.2, 0.8),
    GappedSpending(Spending("pocock"), 0.2, 0.9),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: f"{type(one).__name__}-{getattr(one, 'law', '')}")
def test_all_is_spent_at_the_end_and_nothing_at_the_start(function: SpendingFunction) -> None:
    spent = function.spent(np.linspace(0, 1.5, 61), 0.025)
    assert spent[0] == 0
    assert spent[40:] == pytest.approx(0.025)
    assert (np.diff(spent) >= -1e-15).all()


@pytest.mark.parametrize("law", ["logistic", "normal", "cauchy", "extreme_value", "extreme_value_2"])
def test_a_function_goes_through_its_points(law: str) -> None:
    through = TwoParameterSpending.through(law, (0.3, 0.6), (0.05, 0.3))  # type: ignore[arg-type]
    assert through.spent([0.3, 0.6], 0.05) == pytest.approx([0.0025, 0.015])


def test_known_values() -> None:
    assert ExponentialSpending(0.5).spent([0.25], 0.04) == pytest.approx([0.04**2])
    assert BetaSpending(1.0, 2.0).spent([0.5], 0.04) == pytest.approx([0.04 * 0.75])
    points = (0.2, 0.7), (0.05, 0.4)
    assert PointSpending(*points).spent([0.1, 0.45, 0.85], 1.0) == pytest.approx([0.025, 0.225, 0.7])
    assert PointSpending(*points, steps=True).spent([0.1, 0.2, 0.69], 1.0) == pytest.approx([0.0, 0.05, 0.05])
    normal = TwoParameterSpending("normal", 0.0, 1.0)
    assert normal.spent([0.1, 0.4], 0.02) == pytest.approx([0.002, 0.008])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TwoParameterSpending("gumbel", 0.0, 1.0), "law must be one of"),  # type: ignore[arg-type]
        (lambda: TwoParameterSpending("normal", 0.0, -1.0), "slope must be above 0"),
        (lambda: TwoParameterSpending("student", 0.0, 1.0), "degrees_of_freedom"),
        (lambda: TwoParameterSpending.through("normal", (0.6, 0.3), (0.1, 0.2)), "must increase"),
        (lambda: BetaSpending(0.0, 1.0), "above 0"),
        (lambda: ExponentialSpending(0.0), "nu must be above 0"),
        (lambda: PointSpending((0.7, 0.2), (0.1, 0.2)), "must increase"),
        (lambda: PointSpending((0.2,), (0.1, 0.2)), "must increase"),
        (lambda: TrimmedSpending(Spending(), 0.9, 0.3), "must increase between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
