"""Dose finding and single-arm designs against numbers of BOIN, dfcrm and lrstat, quadrature and enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm

from medtwin.trials.design.continual_reassessment import ReassessmentModel, skeleton_of_intervals
from medtwin.trials.design.dose_finding import IntervalDesign, ThreePlusThree
from medtwin.trials.design.simon_two_stage import simon_designs

SKELETON = [0.05, 0.12, 0.25, 0.4, 0.55]


def test_three_plus_three_by_enumeration() -> None:
    p = [0.1, 0.3]
    up = []
    for rate in p:
        chance = 0.0
        for first, second in product(range(4), range(4)):
            if first == 0 or (first == 1 and second == 0):
                chance += binom.pmf(first, 3, rate) * binom.pmf(second, 3, rate)
        up.append(chance)
    found = ThreePlusThree(p).chosen
    np.testing.assert_allclose(found, [1 - up[0], up[0] * (1 - up[1]), up[0] * up[1]])
    assert found.sum() == pytest.approx(1.0)


def test_boundaries_are_those_of_boin() -> None:
    """get.boundary(target = 0.25, ncohort = 10, cohortsize = 3) of BOIN 2.7.2."""
    design = IntervalDesign(0.25)
    assert design.escalate_below == pytest.approx(0.196800870555487)
    assert design.de_escalate_above == pytest.approx(0.29839215237546)
    up, down, given_up = design.boundaries(np.arange(3, 31, 3))
    assert up.tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 5, 5]
    assert down.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert given_up.tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert design.boundaries([1, 2])[2].tolist() == [2, 3]  # too few to judge


@pytest.mark.parametrize("intercept", [None, 3.0])
def test_the_posterior_is_that_of_quadrature(intercept: float | None) -> None:
    model = ReassessmentModel(SKELETON, 0.25, intercept)
    y, n = np.array([0, 1, 2, 0, 0]), np.array([3, 3, 6, 0, 0])

    def weight(a: float) -> float:
        return float(norm.pdf(a, scale=np.sqrt(1.34)) * binom.pmf(y, n, model.curve(a)).prod())

    total, mean, square = (quad(lambda a, k=k: a**k * weight(a), -8, 8, epsabs=1e-14)[0] for k in range(3))
    found = model.after(y, n)
    assert found.mean[0] == pytest.approx(mean / total, abs=1e-8)
    assert found.variance[0] == pytest.approx(square / total - (mean / total) ** 2, abs=1e-8)


def test_the_skeleton_has_its_target_and_meets_its_intervals() -> None:
    for intercept in (None, 3.0):
        found = skeleton_of_intervals(0.25, 0.05, 5, 2, intercept)
        assert found[2] == pytest.approx(0.25)
        assert (np.diff(found) > 0).all()
        model = ReassessmentModel(found.tolist(), 0.25, intercept)
        # at the curve through target + halfwidth at one dose the next higher one has that for target - halfwidth
        grid = np.linspace(-1, 1, 200_001)
        curve = model.curve(grid)
        for dose in range(4):
            low = curve[np.argmin(np.abs(curve[:, dose] - 0.20)), dose + 1]
            assert low == pytest.approx(0.30, abs=1e-4)


def test_designs_hold_their_errors_and_are_those_of_lrstat() -> None:
    """simon2stage(alpha = 0.05, beta = 0.1, piH0 = 0.2, pi = 0.4) of lrstat 0.2.15."""
    found = simon_designs(0.2, 0.4, 0.05, 0.1, most=70)
    assert [(each.r1, each.n1, each.r, each.n) for each in found] == [(5, 24, 13, 45), (4, 20, 14, 49), (4, 19, 15, 54)]
    assert [each.weights for each in found] == [
        pytest.approx((0.108348691183772, 1.0)),
        pytest.approx((0.0575436332245423, 0.108348691183772)),
        pytest.approx((0.0, 0.0575436332245423)),
    ]
    for each in found:
        x = np.arange(each.r1 + 1, each.n1 + 1)
        for rate, stated in ((0.2, each.alpha), (0.4, each.power)):
            direct = binom.pmf(x, each.n1, rate) @ binom.sf(each.r - x, each.n - each.n1, rate)
            assert stated == pytest.approx(float(direct), abs=1e-12)
        assert each.alpha <= 0.05
        assert each.power >= 0.9


def test_what_makes_no_sense_is_refused() -> None:
    for make, message in (
        (lambda: ThreePlusThree([0.1, 1.2]), "probabilities from 0 to 1"),
        (lambda: IntervalDesign(0.25, low=0.3), "low < target < high"),
        (lambda: IntervalDesign(0.25, too_toxic=1.0), "between 0 and 1"),
        (lambda: ReassessmentModel([0.2, 0.1], 0.2), "must increase"),
        (lambda: ReassessmentModel([0.1, 0.2], 1.2), "target must be between"),
        (lambda: ReassessmentModel([0.1, 0.2], 0.2).after([2, 0], [1, 0]), "at most the patients of 2 doses"),
        (lambda: ReassessmentModel([0.1, 0.2], 0.2).after([0], [1]), "of 2 doses"),
        (lambda: skeleton_of_intervals(0.25, 0.3, 5, 2), "halfwidth must be above 0"),
        (lambda: skeleton_of_intervals(0.25, 0.05, 5, 5), "at must be from 0 to 4"),
        (lambda: simon_designs(0.4, 0.2, 0.05, 0.1), "p0 < p1"),
        (lambda: simon_designs(0.2, 0.4, 0.05, 1.0), "between 0 and 1"),
        (lambda: simon_designs(0.2, 0.25, 0.05, 0.1, most=20), "more patients are needed"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
