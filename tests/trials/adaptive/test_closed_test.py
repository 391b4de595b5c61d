"""Closed tests of several arms with one control: against rpact, and by what must hold."""

from typing import Any

import numpy as np
import pytest

from medtwin.trials.adaptive.closed_test import ArmsOfEvents, ArmsOfMeans, ArmsOfRates, ClosedTest
from medtwin.trials.adaptive.combined_tests import InverseNormalTest
from medtwin.trials.adaptive.trial_analysis import TrialAnalysis
from medtwin.trials.analysis.stage_data import LogRankData, MeansData, RatesData, Sample
from medtwin.trials.design.boundaries import spending_bounds
from medtwin.trials.design.spending import Spending


def lan_demets(alpha: Any) -> Any:
    return spending_bounds([1, 2], alpha, Spending())


TEST = InverseNormalTest(np.array([0.5, 1.0]), lan_demets)
CONTROL = Sample([22, 29], [0.6, 0.5], [1.3, 1.1])
ARMS = [
    Sample([23, 25], [1.63, 1.51], [1.2, 1.4]),
    Sample([25], [1.4], [1.3]),
    Sample([24, 27], [0.91, 0.95], [1.1, 1.2]),
]
MEANS = ArmsOfMeans(ARMS, CONTROL)


@pytest.mark.parametrize(
    ("intersection", "of_all", "of_pair"),
    [
        ("dunnett", [0.00818593, 0.00345745229], [0.00570565290, 0.00178902348]),
        ("bonferroni", [0.00900692158, 0.00357804696], [0.00600461439, 0.00178902348]),
        ("simes", [0.00900692158, 0.00357804696], [0.00600461439, 0.00178902348]),
        ("sidak", [0.00897990710, 0.00357484636], [0.00599560054, 0.00178902348]),
        ("hierarchical", [0.00300230719, 0.00178902348], [0.00300230719, 0.00178902348]),
    ],
)
def test_stage_p_values_of_intersections_of_rpact(intersection: Any, of_all: Any, of_pair: Any) -> None:
    found = ClosedTest(TEST, MEANS, intersection=intersection)
    assert found.stage_p_values[0] == pytest.approx(of_all, abs=1e-6)
    assert found.stage_p_values[1] == pytest.approx(of_pair, abs=1e-6)
    assert found.statistics[3] == pytest.approx([2.7475292982, 4.0027034766], abs=1e-7)


@pytest.mark.parametrize(
    ("variance", "least"),
    [("pairwise_pooled", 0.0041925037), ("not_pooled", 0.0042702258), ("overall_pooled", 0.0030023072)],
)
def test_variances_of_rpact(variance: Any, least: Any) -> None:
    assert ArmsOfMeans(ARMS, CONTROL, variance).compare(0, 0.0).p_values[0] == pytest.approx(least, abs=1e-9)


def test_repeated_inference_of_rpact() -> None:
    found = ClosedTest(TEST, MEANS, intersection="bonferroni")
    np.testing.assert_allclose(
        found.repeated_p_values,
        [[0.0647744300, 0.000176475723], [0.1208293869, np.nan], [0.3618405244, 0.062037390209]],
        atol=1e-6,
    )
    assert found.conditional_errors[:, 0] == pytest.approx([0.337724568, 0.190306540, 0.026658229], abs=1e-7)
    lower, upper = found.repeated_interval(0)
    assert lower == pytest.approx([-0.213199254, 0.367186119], abs=1e-5)
    assert upper == pytest.approx([2.273199408, 1.673298530], abs=1e-5)
    assert found.rejected.tolist() == [[False, True], [False, False], [False, False]]


def test_rates_of_rpact() -> None:
    arms = ArmsOfRates([RatesData([25, 32], [42, 50]), RatesData([18], [40])], RatesData([10, 12], [41, 48]))
    found = ClosedTest(TEST, arms, intersection="simes")
    np.testing.assert_allclose(
        found.repeated_p_values, [[0.0219383264, 1.9536724e-06], [0.1144493185, np.nan]], atol=3e-6
    )
    assert found.repeated_interval(1)[0][0] == pytest.approx(-0.128495117, abs=1e-6)
    assert found.repeated_interval(1)[1][0] == pytest.approx(0.501928157, abs=1e-6)


def test_one_arm_is_the_test_of_two_arms() -> None:
    several = ClosedTest(TEST, ArmsOfMeans(ARMS[:1], CONTROL))
    two = TrialAnalysis(TEST, MeansData(ARMS[0], CONTROL))
    assert several.statistics[0] == pytest.approx(two.statistics)
    np.testing.assert_allclose(several.repeated_interval(0), two.repeated_interval, atol=1e-6)


def test_an_arm_needs_every_intersection_that_holds_it() -> None:
    """The second arm alone would be rejected; together with the first it is not."""
    arms = ArmsOfEvents([LogRankData([50, 50], [0.2, 0.1], [1, 1]), LogRankData([50, 50], [1.45, 1.5], [1, 1])])
    found = ClosedTest(TEST, arms)
    assert found.statistics[-1][1] > TEST.critical[1] > found.arm_statistics[1][1]
    assert not found.rejected.any()


def test_dunnetts_test_is_stronger_than_bonferronis() -> None:
    p = {name: ClosedTest(TEST, MEANS, intersection=name).stage_p_values[0, 0] for name in ("dunnett", "bonferroni")}
    assert p["dunnett"] < p["bonferroni"]


def test_an_unknown_test_is_refused() -> None:
    with pytest.raises(ValueError, match="test must be dunnett"):
        assert ClosedTest(TEST, MEANS, intersection="fisher").stage_p_values.size
