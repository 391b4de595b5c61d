"""Competing risks: by hand, what they are without competition, and numbers of R's cmprsk on a sample written out."""

import numpy as np
import pytest

from medtwin.trials.analysis.competing import cumulative_incidence, fine_gray_model, gray_test
from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.kaplan_meier import kaplan_meier

TIME = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]
CAUSE = [1, 2, 1, 0, 1, 2]


def cohort(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.arange(size) % 2, rng.normal(size=size)])
    one = rng.exponential(10 * np.exp(0.4 * x[:, 0] - 0.5 * x[:, 1]))
    other, limit = rng.exponential(15, size), rng.uniform(2, 30, size)
    time = np.ceil(np.minimum(np.minimum(one, other), limit))
    return time, np.where(limit < np.minimum(one, other), 0, np.where(one < other, 1, 2)), x


def test_incidence_by_hand() -> None:
    """1/6, then 5/6 1/5, then 1/2 1/2: survival before 4 is 5/6 3/5 = 1/2."""
    found = cumulative_incidence(TIME, CAUSE)
    assert found.time.tolist() == [1.0, 2.0, 4.0]
    np.testing.assert_allclose(found.estimate, np.cumsum([1 / 6, 1 / 6, 1 / 4]))
    assert found.variance[0] == pytest.approx(5 / 6**3 * 6 / 5)
    assert found.at([0.5, 2.5, 9.0]) == pytest.approx([0, 1 / 3, 7 / 12])


def test_incidences_and_survival_make_one() -> None:
    time, cause, _ = cohort(1)
    at = np.arange(1.0, 25.0)
    parts = [cumulative_incidence(time, cause, of_interest=k).at(at) for k in (1, 2)]
    np.testing.assert_allclose(sum(parts) + kaplan_meier(time, cause > 0).at(at), 1)
    wrong = 1 - kaplan_meier(time, cause == 1).at(at)
    assert (wrong[5:] > parts[0][5:]).all(), "competing events taken for censoring exaggerate"


def test_without_competition_it_is_kaplan_meier() -> None:
    time, cause, _ = cohort(2)
    found, curve = cumulative_incidence(time, cause == 1), kaplan_meier(time, cause == 1)
    np.testing.assert_allclose(found.estimate, 1 - curve.survival)
    np.testing.assert_allclose(np.sqrt(found.variance[:8]), curve.standard_error[:8], rtol=0.01)


def test_fine_gray_without_competition_is_cox_with_robust_errors() -> None:
    time, cause, x = cohort(3)
    event = (cause == 1).astype(np.int64)
    found = fine_gray_model(time, event, x)
    cox = cox_model(time, event, x, ties="breslow", cluster=np.arange(len(time)))
    np.testing.assert_allclose(found.coefficients, cox.coefficients, atol=1e-9)
    np.testing.assert_allclose(found.covariance, cox.covariance, rtol=1e-8)
    assert found.log_likelihood == pytest.approx(cox.log_likelihood)
    assert found.null_log_likelihood == pytest.approx(cox.null_log_likelihood)


def test_fine_gray_without_censoring_keeps_competing_subjects_at_risk() -> None:
    """Then a subject with another event is simply never off the risk set: Cox with its time moved to the end."""
    time, cause, x = cohort(4)
    cause = np.where(cause == 0, 2, cause)
    found = fine_gray_model(time, cause, x)
    cox = cox_model(np.where(cause == 2, 100.0, time), cause == 1, x, ties="breslow")
    np.testing.assert_allclose(found.coefficients, cox.coefficients, atol=1e-9)
    hazard = cox_model(time, cause == 1, x, ties="breslow").coefficients
    assert np.abs(found.coefficients - hazard).max() > 0.02, "the cause-specific hazard is another quantity"


def test_one_censoring_group_is_none() -> None:
    time, cause, x = cohort(5)
    alone, grouped = (fine_gray_model(time, cause, x, censoring_group=g) for g in (None, np.ones(len(time))))
    np.testing.assert_allclose(alone.covariance, grouped.covariance)
    apart = fine_gray_model(time, cause, x, censoring_group=x[:, 0])
    assert np.abs(apart.coefficients - alone.coefficients).max() > 1e-6


def test_gray_agrees_with_r_on_a_sample_written_out() -> None:
    """cmprsk 2.2-11: cuminc(t, e, g)$Tests; with ties within and between causes."""
    time = np.repeat([0.5, 1.0, 1.5, 2.0, 2.5, 3.0], 6)
    cause = np.array(
        [1, 2, 0, 1, 1, 2, 0, 1, 2, 2, 1, 0, 1, 1, 0, 2, 0, 1, 2, 0, 1, 0, 2, 1, 1, 0, 0, 2, 1, 1, 0, 2, 0, 1, 0, 2]
    )
    group = np.array(list("aabbcc") * 3 + list("abcabc") * 3)
    for rho, statistics in ((0, (3.2989335827439, 2.5424561734975)), (1, (3.0003190013938, 2.3604879587678))):
        found = [gray_test(time, cause, group, of_interest=k, rho=rho).chi_square for k in (1, 2)]
        np.testing.assert_allclose(found, statistics, rtol=1e-9)


def test_gray_holds_its_level_and_finds_a_difference() -> None:
    rng, rejected = np.random.default_rng(6), 0
    for _ in range(200):
        time, cause, _ = cohort(int(rng.integers(10**6)), 100)
        rejected += gray_test(time, cause, rng.permutation(np.arange(100) % 2)).p_value < 0.05
    assert rejected / 200 == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 200) ** 0.5)
    time, cause, _ = cohort(7)
    assert gray_test(time, cause, time * (cause == 1) > 5).p_value < 1e-3


def test_strata_that_repeat_the_data_double_the_score() -> None:
    time, cause, x = cohort(8)
    one = gray_test(time, cause, x[:, 0])
    twice = [np.concatenate([each, each]) for each in (time, cause, x[:, 0])]
    both = gray_test(*twice, strata=np.repeat([0, 1], len(time)))
    np.testing.assert_allclose(both.score, 2 * one.score)
    assert both.chi_square == pytest.approx(2 * one.chi_square)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="of_interest must be the cause of some event"):
        cumulative_incidence(TIME, CAUSE, of_interest=3)
    with pytest.raises(ValueError, match="of_interest must be a cause"):
        cumulative_incidence(TIME, CAUSE, of_interest=0)
    with pytest.raises(ValueError, match="cause must be one value for each"):
        cumulative_incidence(TIME, [1, 2])
    with pytest.raises(ValueError, match="group must be of two levels"):
        gray_test(TIME, CAUSE, [0] * 6)
    with pytest.raises(ValueError, match="rho must be 0 or more"):
        gray_test(TIME, CAUSE, [0, 1] * 3, rho=-1)
