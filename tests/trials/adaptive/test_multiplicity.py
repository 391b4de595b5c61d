from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis.multiplicity import (
    adjusted_p_values,
    closed_adjustment,
    gatekeeping_adjustment,
    intersections,
    truncated_adjustment,
)
from medtwin.trials.design.boundaries import spending_bounds
from medtwin.trials.design.dunnett import (
    critical_value,
    dunnett_p_value,
    many_to_one_correlation,
    probability_below,
    weighted_p_value,
)
from medtwin.trials.design.graph import Graph, SequentialHypothesis, first_rejections
from medtwin.trials.design.spending import Spending

P = [0.004, 0.021, 0.012, 0.045, 0.2, 0.012]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("none", P),
        ("bonferroni", [0.024, 0.126, 0.072, 0.27, 1, 0.072]),
        ("holm", [0.024, 0.063, 0.06, 0.09, 0.2, 0.06]),
        ("hochberg", [0.024, 0.063, 0.048, 0.09, 0.2, 0.048]),
        ("hommel", [0.024, 0.063, 0.042, 0.09, 0.2, 0.042]),
        ("benjamini_hochberg", [0.024, 0.0315, 0.024, 0.054, 0.2, 0.024]),
        ("benjamini_yekutieli", [0.0588, 0.077175, 0.0588, 0.1323, 0.49, 0.0588]),
    ],
)
def test_adjusted_p_values_of_r(method: Any, expected: Any) -> None:
    assert adjusted_p_values(P, method) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_hommel_is_the_closed_test_by_simes(seed: Any) -> None:
    p = np.random.default_rng(seed).beta(0.5, 3.0, size=5)
    members = intersections(5)
    simes = [np.min(np.sort(p[each]) * each.sum() / np.arange(1, each.sum() + 1)) for each in members]
    closed = closed_adjustment(members, simes)
    assert adjusted_p_values(p, "hommel") == pytest.approx(closed)
    assert truncated_adjustment(p, 1.0, "hommel") == pytest.approx(closed)
    assert (closed <= adjusted_p_values(p, "hochberg") + 1e-12).all()


def test_missing_p_values_do_not_count_and_left_out_ones_do() -> None:
    found = adjusted_p_values([0.01, np.nan, 0.03], "holm")
    np.testing.assert_allclose(found, [0.02, np.nan, 0.03])
    assert adjusted_p_values([0.004, 0.021, 0.012], "hommel", hypotheses=5) == pytest.approx([0.02, 0.063, 0.042])


def test_truncation_lies_between_bonferroni_and_the_procedure() -> None:
    p = [0.01, 0.005, 0.015, 0.022]
    assert truncated_adjustment(p, 0.0, "holm") == pytest.approx(adjusted_p_values(p, "bonferroni"))
    assert truncated_adjustment(p, 1.0, "holm") == pytest.approx(adjusted_p_values(p, "holm"))
    assert truncated_adjustment(p, 0.8, "holm") == pytest.approx([3 / 95, 0.02, 1 / 30, 1 / 30])


TWO_SEQUENCES = np.eye(8, k=-2), np.zeros((8, 8))
FAMILIES = [[0, 1], [2, 3], [4, 5], [6, 7]]
DOSES = [0.0194, 0.0068, 0.0271, 0.0088, 0.0370, 0.0018, 0.0814, 0.0066]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"exhaust": False}, [0.02425, 0.0136, 0.033875, 0.02425, 0.04625, 0.02425, 0.0814, 0.033875]),
        ({"modified": True}, [0.02425, 0.0136, 0.033, 0.02425, 0.037, 0.02425, 0.0814, 0.033]),
    ],
)
def test_gatekeeping_of_lrstat(rule: Any, expected: Any) -> None:
    found = gatekeeping_adjustment(DOSES, FAMILIES, TWO_SEQUENCES, [0.6, 0.6, 0.6, 1.0], **rule)
    assert found == pytest.approx(expected)


def test_what_is_behind_a_gate_is_not_rejected_before_it() -> None:
    found = gatekeeping_adjustment([0.2, 0.0001], [[0], [1]], ([[0, 0], [1, 0]], np.zeros((2, 2))), [1.0, 1.0])
    assert found == pytest.approx([0.2, 0.2])


EXCHANGE = Graph([0.5, 0.5, 0, 0], [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]])
PAIRS = [[0, 1], [2, 3]]


def test_a_graph_of_one_weight_passed_on_is_holms() -> None:
    graph = Graph(np.full(3, 1 / 3), (np.ones((3, 3)) - np.eye(3)) / 2)
    assert graph.adjusted_p_values([0.02, 0.01, 0.04]) == pytest.approx(adjusted_p_values([0.02, 0.01, 0.04], "holm"))
    assert graph.without(1).without(0).weights.tolist() == pytest.approx([0, 0, 1])


def test_rejecting_one_after_the_other_is_the_closed_test() -> None:
    members, weights = EXCHANGE.intersections()
    for p in np.random.default_rng(5).random((4, 4)) * 0.1:
        with np.errstate(divide="ignore"):
            local = np.where(members & (weights > 0), p / weights, np.inf).min(axis=1)
        assert EXCHANGE.adjusted_p_values(p) == pytest.approx(closed_adjustment(members, np.minimum(local, 1)))


def test_weights_of_all_intersections_of_lrstat() -> None:
    members, weights = EXCHANGE.intersections()
    assert members[:2].tolist() == [[True] * 4, [True, True, True, False]]
    assert weights[4:8].tolist() == [[0.5, 0, 0, 0.5], [1, 0, 0, 0], [0.5, 0, 0, 0.5], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("p", "bonferroni", "simes", "parametric"),
    [
        (
            [0.01, 0.005, 0.015, 0.022],
            [0.02, 0.01, 0.03, 0.03],
            [0.02, 0.01, 0.022, 0.022],
            [0.02, 0.01, 0.02772937, 0.02772937],
        ),
        (
            [0.02, 0.015, 0.010, 0.023],
            [0.04, 0.03, 0.04, 0.04],
            [0.04, 0.02, 0.04, 0.04],
            [0.04, 0.02772937, 0.04, 0.04],
        ),
    ],
)
def test_graphs_of_lrstat(p: Any, bonferroni: Any, simes: Any, parametric: Any) -> None:
    correlation = np.full((4, 4), np.nan)
    correlation[:2, :2] = correlation[2:, 2:] = [[1, 0.5], [0.5, 1]]
    assert EXCHANGE.adjusted_p_values(p) == pytest.approx(bonferroni)
    assert EXCHANGE.simes_p_values(p, PAIRS) == pytest.approx(simes)
    assert EXCHANGE.parametric_p_values(p, correlation, PAIRS) == pytest.approx(parametric, abs=1e-7)


def maurer_and_bretz(look_two: Any) -> Any:
    """The case study of Maurer & Bretz 2013."""
    graph = Graph([0.5, 0.5, 0, 0], [[0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5], [0, 1, 0, 0], [1, 0, 0, 0]])
    looks = zip([0.0062, 0.017, 0.009, 0.13], look_two, strict=True)

    def bounds(alpha: Any) -> Any:
        return spending_bounds([1, 2, 3], alpha, Spending())[:2]

    hypotheses = [SequentialHypothesis(np.array(p), bounds) for p in looks]
    return first_rejections(graph, hypotheses, 0.025, lambda z: float(norm.sf(z)))


def test_a_graph_over_looks() -> None:
    assert maurer_and_bretz([0.0002, 0.0035, 0.002, 0.06]) == [2, 2, 2, 0]
    assert maurer_and_bretz([0.2, 0.2, 0.0001, 0.0001]) == [0, 0, 0, 0]


def test_probabilities_of_several_statistics() -> None:
    assert critical_value(0.025, many_to_one_correlation([1, 1, 1])) == pytest.approx(2.34894474, abs=1e-4)
    assert critical_value(0.05, np.eye(1), two_sided=True) == pytest.approx(norm.isf(0.025))
    assert critical_value(0.05, many_to_one_correlation([1] * 3), two_sided=True, degrees_of_freedom=20) == (
        pytest.approx(2.54, abs=0.005)  # Dunnett 1964, Biometrics 20:482, table II
    )
    assert probability_below([1, 1.5, 2], [[1, 0.3, 0.1], [0.3, 1, 0.6], [0.1, 0.6, 1]]) == pytest.approx(
        0.7863338638, abs=1e-6
    )
    assert dunnett_p_value(2.0, np.eye(3)) == pytest.approx(1 - norm.cdf(2) ** 3)


def test_the_parametric_test_uses_the_correlation() -> None:
    p, w = [0.02, 0.03], [0.5, 0.5]
    independent = weighted_p_value(p, w, np.eye(2))
    assert independent == pytest.approx(1 - (1 - 0.02) ** 2)
    assert weighted_p_value(p, w, [[1, 0.9], [0.9, 1]]) < independent < 0.04
    assert weighted_p_value([0.02, 0.001], [1.0, 0.0], np.eye(2)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adjusted_p_values([0.1, 1.2]), "p_values must be between 0 and 1"),
        (lambda: adjusted_p_values([0.1], "sidak"), "method must be one of"),
        (lambda: adjusted_p_values([0.1, 0.2], "holm", hypotheses=1), "hypotheses must be at least"),
        (lambda: truncated_adjustment([0.1], 1.5), "truncation must be from 0 to 1"),
        (lambda: Graph([0.7, 0.7], np.zeros((2, 2))), "weights must be"),
        (lambda: Graph([0.5, 0.5], [[0, 1.5], [0, 0]]), "transitions must be"),
        (lambda: Graph([1.0, 0], np.eye(2)), "transitions must be"),
        (lambda: EXCHANGE.without(4), "hypothesis must be from 0 to 3"),
        (lambda: EXCHANGE.adjusted_p_values([0.1]), "p_values must be 4"),
        (lambda: EXCHANGE.simes_p_values([0.1] * 4, [[0, 1]]), "families must hold each"),
        (lambda: critical_value(1.5, np.eye(2)), "alpha must be between 0 and 1"),
        (lambda: probability_below([0, 0], [[1, 2], [3, 1]]), "correlation must be a correlation matrix"),
        (lambda: many_to_one_correlation([0.0]), "allocation_ratios must be above 0"),
    ],
)
def test_refusals(call: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call()
