"""Log-rank tests of groups and of two arms, their weights, and the largest of several."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from medtwin.trials.analysis.logrank import event_table, logrank_test
from medtwin.trials.analysis.survival_batch import logrank_z, risk_sets
from medtwin.trials.analysis.weighted_logrank import max_combo_test, weighted_logrank_test
from medtwin.trials.survival_weights import AtRiskPower, EarlyZero, FlemingHarrington, MagirrBurman

TIME, EVENT, ARM = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 1, 0, 1, 1], [0, 0, 1, 1, 0, 1]


def trial(seed: int, size: int = 120, effect: float = 0.6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times rounded so that there are ties, events and arms."""
    rng = np.random.default_rng(seed)
    arm = rng.permutation(np.arange(size) % 2)
    time = np.ceil(rng.exponential(10 / np.where(arm == 1, effect, 1.0), size))
    limit = np.ceil(rng.uniform(2, 25, size))
    return np.minimum(time, limit), time <= limit, arm


def test_score_and_variance_by_hand() -> None:
    """Shares of the experimental arm at 1, 2, 4, 5: 3/6, 3/5, 1/2, 1; two events at 2 of whom one is experimental."""
    found = weighted_logrank_test(TIME, EVENT, ARM)
    assert found.score == pytest.approx(2 - (1 / 2 + 2 * 3 / 5 + 1 / 2 + 1))
    variance = 1 / 4 + 2 * (3 / 5) * (2 / 5) * (3 / 4) + 1 / 4
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.z == pytest.approx(1.2 / math.sqrt(variance))
    assert found.p_value == pytest.approx(norm.sf(found.z))


def test_groups_and_arms_and_batches_agree() -> None:
    time, event, arm = trial(1)
    groups, arms = logrank_test(time, event, arm), weighted_logrank_test(time, event, arm)
    assert groups.chi_square == pytest.approx(arms.z**2)
    assert groups.degrees_of_freedom == 1
    assert groups.p_value == pytest.approx(2 * norm.sf(abs(arms.z)))
    assert arms.z == pytest.approx(logrank_z(risk_sets(time[None], event[None], arm[None]))[0])


def test_labels_and_order_do_not_matter_and_observed_is_expected_in_total() -> None:
    time, event, _ = trial(2)
    group = np.arange(len(time)) % 3
    order = np.random.default_rng(0).permutation(len(time))
    first = logrank_test(time, event, group)
    other = logrank_test(time[order], event[order], np.array(["c", "a", "b"])[group][order])
    assert first.chi_square == pytest.approx(other.chi_square)
    assert first.degrees_of_freedom == 2
    assert first.observed.sum() == pytest.approx(first.expected.sum())


def test_strata_add_up() -> None:
    time, event, arm = trial(3)
    stratum = np.arange(len(time)) % 4 // 2
    parts = [weighted_logrank_test(time[stratum == s], event[stratum == s], arm[stratum == s]) for s in (0, 1)]
    both = weighted_logrank_test(time, event, arm, strata=stratum)
    assert both.score == pytest.approx(sum(part.score for part in parts))
    assert both.standard_error**2 == pytest.approx(sum(part.standard_error**2 for part in parts))
    assert logrank_test(time, event, arm, strata=stratum).chi_square == pytest.approx(both.z**2)
    assert both.z != pytest.approx(weighted_logrank_test(time, event, arm).z)


def test_weights_by_hand() -> None:
    """Pooled survival just before 1, 2, 4, 5 is 1, 5/6, 1/2, 1/4."""
    table = event_table(TIME, EVENT, ARM)
    np.testing.assert_allclose(table.survival, [1, 5 / 6, 1 / 2, 1 / 4])
    np.testing.assert_allclose(FlemingHarrington(1, 2)(table), [0, 5 / 6 / 36, 1 / 8, 9 / 64])
    np.testing.assert_allclose(MagirrBurman(delay=2)(table), [1, 6 / 5, 6 / 5, 6 / 5])
    np.testing.assert_allclose(MagirrBurman(max_weight=1.5)(table), [1, 6 / 5, 1.5, 1.5])
    assert EarlyZero(2)(table).tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(FlemingHarrington(0, 1, tau=4.5)(table), [0, 1 / 6, 1 / 2, 1 / 2])
    np.testing.assert_allclose(AtRiskPower(2)(table), [1, 25 / 36, 1 / 9, 1 / 36])


def test_weights_know_the_strata_apart() -> None:
    """Two strata of the same data have its weights twice."""
    both = event_table([*TIME, *TIME], [*EVENT, *EVENT], [*ARM, *ARM], strata=[0] * 6 + [1] * 6)
    one = event_table(TIME, EVENT, ARM)
    for weight in (FlemingHarrington(0, 1, tau=4.5), MagirrBurman(2), AtRiskPower(0.5)):
        np.testing.assert_allclose(weight(both), np.tile(weight(one), 2))


def test_weights_that_do_nothing_leave_the_log_rank_test() -> None:
    plain = weighted_logrank_test(*trial(4))
    for weight in (FlemingHarrington(), MagirrBurman(delay=0), EarlyZero(0), AtRiskPower(0)):
        assert weighted_logrank_test(*trial(4), weight).z == pytest.approx(plain.z)
    assert weighted_logrank_test(*trial(4), FlemingHarrington(0, 1)).z != pytest.approx(plain.z)


def test_late_weights_find_late_effects() -> None:
    """A hazard ratio of 0.3 after a delay: weights on late events see it best, on early ones worst."""
    rng = np.random.default_rng(5)
    arm = np.arange(600) % 2
    early = rng.exponential(10, 600)
    time = np.where((early > 5) & (arm == 1), 5 + (early - 5) / 0.3, early)
    event, time = time < 20, np.minimum(time, 20)
    late, middle, soon = (
        weighted_logrank_test(time, event, arm, weight).z
        for weight in (FlemingHarrington(0, 1), MagirrBurman(delay=5), FlemingHarrington(1, 0))
    )
    assert late > middle > soon > 0


def test_the_largest_of_one_is_itself() -> None:
    one = max_combo_test(*trial(6), [FlemingHarrington(0, 1)])
    alone = weighted_logrank_test(*trial(6), FlemingHarrington(0, 1))
    assert (one.z, one.p_value) == pytest.approx((alone.z, alone.p_value))


def test_the_largest_of_two_by_quadrature() -> None:
    found = max_combo_test(*trial(7), [FlemingHarrington(0, 0), FlemingHarrington(0, 1)])
    rho, z = found.correlation[0, 1], found.z
    below = quad(lambda x: norm.pdf(x) * norm.cdf((z - rho * x) / math.sqrt(1 - rho**2)), -np.inf, z)[0]
    assert found.p_value == pytest.approx(1 - below, abs=1e-8)


def test_the_largest_of_four_lies_between_the_best_test_and_bonferroni() -> None:
    found = max_combo_test(*trial(8))
    smallest = min(each.p_value for each in found.tests)
    assert smallest < found.p_value < 4 * smallest
    assert found.p_value == max_combo_test(*trial(8)).p_value
    np.testing.assert_allclose(np.diag(found.correlation), 1)


def test_the_same_test_twice_costs_nothing() -> None:
    found = max_combo_test(*trial(9), [FlemingHarrington(), FlemingHarrington()])
    assert found.p_value == pytest.approx(found.tests[0].p_value, abs=1e-6)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="group must be of two levels"):
        logrank_test([1, 2], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="event must be true of somebody"):
        logrank_test([1, 2], [0, 0], [0, 1])
    with pytest.raises(ValueError, match="arm must be 0 or 1"):
        weighted_logrank_test([1, 2], [1, 1], [1, 2])
    with pytest.raises(ValueError, match="weight must be above 0"):
        weighted_logrank_test(TIME, EVENT, ARM, EarlyZero(9))
    with pytest.raises(ValueError, match="weights must be one or more"):
        max_combo_test(TIME, EVENT, ARM, [])
    with pytest.raises(ValueError, match="rho must be 0 or more"):
        FlemingHarrington(-1)
    with pytest.raises(ValueError, match="max_weight must be 1 or more"):
        MagirrBurman(max_weight=0.5)
    with pytest.raises(ValueError, match="early_period must be 0 or more"):
        EarlyZero(-1)
