"""The shape of Wang & Tsiatis' bounds of least expected information: published values of R, a minimum, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.design.optimal_shape import Criterion, expected_information, optimal_shape

THIRDS = [1 / 3, 2 / 3, 1.0]


@pytest.mark.parametrize(
    ("criterion", "shape"),
    [("alternative", 0.481), ("alternative_and_maximum", 0.223), ("null_half_alternative", 0.199)],
)
def test_agrees_with_rpact(criterion: Criterion, shape: float) -> None:
    """rpact 3.3.4, getDesignGroupSequential(kMax=3, alpha=0.025, beta=0.1, typeOfDesign="WToptimum"), three digits."""
    assert round(optimal_shape(THIRDS, 0.025, 0.9, criterion), 3) == shape


def test_neighbours_expect_more() -> None:
    best = optimal_shape([0.5, 1.0], 0.05, 0.8)
    cost = [expected_information([0.5, 1.0], 0.05, 0.8, best + step)[1][0] for step in (-0.1, 0.0, 0.1)]
    assert cost[1] < min(cost[0], cost[2])


def test_two_sides_of_twice_alpha_are_nearly_one_side() -> None:
    """The other side is all but never crossed under the alternative."""
    one = expected_information(THIRDS, 0.025, 0.9, 0.25)
    two = expected_information(THIRDS, 0.05, 0.9, 0.25, two_sided=True)
    assert two[0] == pytest.approx(one[0], abs=1e-4)
    np.testing.assert_allclose(two[1][:2], one[1][:2], atol=2e-3)
    assert two[1][2] < one[1][2]  # under the null either side stops it


@pytest.mark.parametrize("power", [0.02, 1.0])
def test_refuses_a_power_that_no_drift_has(power: float) -> None:
    with pytest.raises(ValueError, match="power must be between alpha and 1"):
        expected_information(THIRDS, 0.025, power, 0.0)


def test_refuses_one_look() -> None:
    with pytest.raises(ValueError, match="information must be of two looks or more"):
        optimal_shape([1.0], 0.025, 0.9)
