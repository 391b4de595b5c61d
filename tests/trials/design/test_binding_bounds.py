"""Binding futility with bounds of a shape, and bounds of Pampallona and Tsiatis: errors kept, published constants."""

import numpy as np
import pytest

from medtwin.trials.design.boundaries import (
    exit_probabilities,
    haybittle_peto_bounds,
    pampallona_tsiatis_bounds,
    shaped_bounds,
)

T = np.array([1, 2, 3]) / 3
LOWER = [0.0, 0.5, -np.inf]


@pytest.mark.parametrize("delta", [0.0, 0.25, 0.5])
def test_binding_bounds_of_a_shape_keep_alpha_and_their_shape(delta: float) -> None:
    free, bound = shaped_bounds(T, 0.025, delta), shaped_bounds(T, 0.025, delta, lower=LOWER)
    assert (bound < free).all()
    assert bound / free == pytest.approx(bound[0] / free[0])
    assert exit_probabilities(T, bound, LOWER, 0.0).power == pytest.approx(0.025, abs=1e-9)
    assert exit_probabilities(T, bound, None, 0.0).power > 0.025 + 1e-4


def test_binding_bounds_of_haybittle_and_peto_keep_alpha() -> None:
    for early in (3.0, np.inf):
        bound = haybittle_peto_bounds(T, 0.025, early, lower=LOWER)
        assert exit_probabilities(T, bound, LOWER, 0.0).power == pytest.approx(0.025, abs=1e-9)
    assert haybittle_peto_bounds(T, 0.025, np.inf)[-1] == pytest.approx(1.959964, abs=1e-6)


def test_a_bound_that_would_spend_next_to_nothing_is_none() -> None:
    from medtwin.trials.design.boundaries import spending_bounds
    from medtwin.trials.design.spending import Spending

    assert spending_bounds([0.05, 1.0], 0.025, Spending("obrien_fleming"))[0] == np.inf


@pytest.mark.parametrize("binding", [False, True])
@pytest.mark.parametrize("shapes", [(0.0, 0.0), (0.25, 0.1), (0.5, 0.5)])
def test_bounds_of_pampallona_and_tsiatis_keep_both_errors_and_meet(shapes: tuple[float, float], binding: bool) -> None:
    bounds = pampallona_tsiatis_bounds(T, 0.025, 0.1, shapes, binding=binding)
    assert bounds.exits(bounds.drift).power == pytest.approx(0.9, abs=1e-8)
    lower = bounds.futility if binding else None
    assert exit_probabilities(T, bounds.efficacy, lower, 0.0).power == pytest.approx(0.025, abs=1e-8)
    assert bounds.futility[-1] == bounds.efficacy[-1]
    assert (bounds.futility[:-1] < bounds.efficacy[:-1]).all()


def test_bounds_agree_with_rpact() -> None:
    """getDesignGroupSequential(typeOfDesign="PT", beta=0.1, deltaPT1=0, deltaPT0=0), rpact 3.3.4."""
    bounds = pampallona_tsiatis_bounds(T, 0.025, 0.1, (0.0, 0.0), binding=True)
    assert bounds.efficacy == pytest.approx([3.40935484, 2.41077793, 1.96839194], abs=1e-6)
    assert bounds.futility[:-1] == pytest.approx([-0.44065132, 1.04959520], abs=1e-6)
    free = pampallona_tsiatis_bounds(T, 0.025, 0.1, (0.0, 0.0))
    assert free.efficacy == pytest.approx([3.47109144, 2.45443230, 2.00403558], abs=1e-6)
    assert free.futility[:-1] == pytest.approx([-0.42098107, 1.07837686], abs=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="one-sided"):
        shaped_bounds(T, 0.025, 0.0, lower=LOWER, two_sided=True)
    with pytest.raises(ValueError, match="one bound per look"):
        shaped_bounds(T, 0.025, 0.0, lower=[0.0])
    with pytest.raises(ValueError, match="no bounds have the errors"):
        pampallona_tsiatis_bounds(T, 0.025, 0.99, (0.0, 0.0))
