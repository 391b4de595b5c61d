"""Two-sided tests with an inner wedge: values of R, identities, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.inner_wedge import pampallona_tsiatis_wedge, spending_wedge, wedge_exits
from medtwin.trials.design.spending import Spending

THIRDS = [1 / 3, 2 / 3, 1.0]
OBRIEN_FLEMING = Spending("obrien_fleming")


def test_two_looks_by_the_bivariate_normal() -> None:
    """At the first look the areas under one normal curve; at the last nobody is left."""
    exits = wedge_exits([0.5, 1.0], [2.5, 2.0], [0.4, 2.0], 1.0)
    mean = np.sqrt(0.5)
    assert exits.upper[0] == pytest.approx(norm.sf(2.5 - mean))
    assert exits.lower[0] == pytest.approx(norm.cdf(-2.5 - mean))
    assert exits.wedge[0] == pytest.approx(norm.cdf(0.4 - mean) - norm.cdf(-0.4 - mean))
    assert exits.upper.sum() + exits.lower.sum() + exits.wedge.sum() == pytest.approx(1.0, abs=1e-12)


def test_without_a_wedge_it_is_a_symmetric_test() -> None:
    upper = np.array([3.4711, 2.4544, 2.0040])
    plain = exit_probabilities(THIRDS, upper, -upper, 1.5)
    exits = wedge_exits(THIRDS, upper, [np.nan, np.nan, upper[-1]], 1.5)
    np.testing.assert_allclose(exits.upper, plain.upper, atol=1e-12)
    np.testing.assert_allclose(exits.lower, plain.lower, atol=1e-12)


def test_mirrors_the_other_direction() -> None:
    one, other = (wedge_exits(THIRDS, [3.1, 2.4, 2.0], [0.1, 1.2, 2.0], drift) for drift in (2.0, -2.0))
    np.testing.assert_allclose(one.upper, other.lower, atol=1e-12)
    np.testing.assert_allclose(one.wedge, other.wedge, atol=1e-12)


@pytest.mark.parametrize(
    ("binding", "efficacy", "wedge", "shift"),
    [
        (True, [3.92857254, 2.43874238, 1.96243530], 1.10041860, 10.92440139),
        (False, [3.92857254, 2.43874238, 2.00000858], 1.12967961, 11.15776390),
    ],
)
def test_spending_agrees_with_rpact(binding: bool, efficacy: list[float], wedge: float, shift: float) -> None:
    """rpact 3.3.4, getDesignGroupSequential(sided=2, alpha=0.05, beta=0.1, "asOF", typeBetaSpending="bsOF")."""
    found = spending_wedge([0.3, 0.7, 1.0], 0.05, 0.1, (OBRIEN_FLEMING, OBRIEN_FLEMING), binding=binding)
    np.testing.assert_allclose(found.efficacy, efficacy, atol=2e-6)
    assert np.isnan(found.wedge[0])
    assert found.wedge[1] == pytest.approx(wedge, abs=1e-6)
    assert found.drift**2 == pytest.approx(shift, rel=5e-6)


def test_spending_of_pocock_from_the_first_look_agrees_with_rpact() -> None:
    pocock = Spending("pocock")
    found = spending_wedge([0.3, 0.7, 1.0], 0.05, 0.1, (pocock, pocock), binding=True, spend_all=False)
    np.testing.assert_allclose(found.wedge[:2], [0.37718795, 1.46331077], atol=1e-6)
    exits = found.exits(found.drift)
    assert exits.upper.sum() == pytest.approx(0.9, abs=1e-4)
    null = found.exits(0.0)
    assert null.upper.sum() + null.lower.sum() == pytest.approx(0.05, abs=1e-8)


def test_pampallona_and_tsiatis_agree_with_rpact() -> None:
    """getDesignGroupSequential(kMax=3, sided=2, alpha=0.05, beta=0.1, "PT", deltaPT1=0.1, deltaPT0=0.2)."""
    found = pampallona_tsiatis_wedge(THIRDS, 0.05, 0.1, (0.1, 0.2))
    np.testing.assert_allclose(found.efficacy, [3.14419104, 2.38285122, 2.02609789], atol=1e-6)
    np.testing.assert_allclose(found.wedge[:2], [0.03323092, 1.21697228], atol=2e-6)


def test_a_binding_wedge_lowers_the_bounds() -> None:
    free, binding = (pampallona_tsiatis_wedge(THIRDS, 0.05, 0.1, (0.1, 0.2), binding=each) for each in (False, True))
    assert (binding.efficacy < free.efficacy).all()
    null = binding.exits(0.0)
    assert null.upper.sum() + null.lower.sum() == pytest.approx(0.05, abs=1e-8)


@pytest.mark.parametrize("wedge", [[-0.1, 2.0], [2.6, 2.0]])
def test_refuses_a_wedge_outside_the_bounds(wedge: list[float]) -> None:
    with pytest.raises(ValueError, match="a wedge must lie between 0 and the efficacy bound"):
        wedge_exits([0.5, 1.0], [2.5, 2.0], wedge, 0.0)


def test_refuses_other_numbers_of_bounds() -> None:
    with pytest.raises(ValueError, match="bounds must be one per look, got 2 and 1 for 2 looks"):
        wedge_exits([0.5, 1.0], [2.5, 2.0], [1.0], 0.0)
