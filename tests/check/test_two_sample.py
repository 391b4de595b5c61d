from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from threadpoolctl import threadpool_limits

from medtwin.check import two_sample
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.two_sample import (
    EqualValues,
    Sample,
    bootstrap_weights,
    c2st_draws,
    c2st_measure,
    draw_equal,
    linear_c2st_measure,
    one_per_subject,
    split_in_two,
    weighted_auc,
)


@pytest.fixture(autouse=True)
def few_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "NUM_HALVES", 4)


def normal(num_rows: int, num_columns: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(num_rows, num_columns))
    features[:, 0] += shift
    return features


def measured(
    real: np.ndarray | Sample,
    synthetic: np.ndarray | Sample,
    control: np.ndarray | None = None,
    num_resamples: int = 50,
) -> Measure:
    sides = [side if isinstance(side, Sample) else one_per_subject(side) for side in (real, synthetic)]
    third = None if control is None else one_per_subject(control)
    return c2st_measure(*sides, third, family="rows", title="Rows", seed=3, num_resamples=num_resamples)


def estimate_of(measure: Measure) -> Estimate:
    assert measure.estimate is not None
    return measure.estimate


def test_the_area_counts_pairs_in_order() -> None:
    low, high = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0])
    # Of 2.0: above 1, ties with 2. Of 3.0: above 1 and 2. 1 + 0.5 + 2 of 6 pairs.
    assert weighted_auc(low, high, np.ones((1, 3)), np.ones((1, 2)))[0] == pytest.approx(3.5 / 6)
    # The 4.0 left out: 3.5 of 4. The 2.0 of `high` counts three times: (3 * 1.5 + 2) of 12.
    assert weighted_auc(low, high, np.array([[1.0, 1, 0]]), np.ones((1, 2)))[0] == pytest.approx(3.5 / 4)
    assert weighted_auc(low, high, np.ones((1, 3)), np.array([[3.0, 1]]))[0] == pytest.approx(6.5 / 12)


def test_the_weighted_area_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 20, 80).astype(float), rng.integers(3, 25, 50).astype(float)
    weights = rng.integers(0, 4, (5, 80)).astype(float), rng.integers(0, 4, (5, 50)).astype(float)
    mine = weighted_auc(low, high, *weights)
    for number in range(5):
        theirs = roc_auc_score(
            np.repeat([0, 1], [80, 50]),
            np.concatenate([low, high]),
            sample_weight=np.concatenate([weights[0][number], weights[1][number]]),
        )
        assert mine[number] == pytest.approx(theirs, abs=1e-12)


def test_all_comparisons_have_the_same_number_of_rows_and_no_subject_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    real = Sample(np.zeros((300, 1)), np.sort(rng.integers(0, 90, 300)))
    synthetic, control = Sample(np.zeros((110, 1)), np.arange(110) // 2), one_per_subject(np.zeros((60, 1)))
    draws = draw_equal(real, synthetic, control, max_rows=1000, num_halves=6, seed=0, purpose="test")
    assert draws is not None
    assert draws.size == 110  # the twins are fewer than half of the real rows
    assert len(draws.real) == len(draws.synthetic) == 110
    for first, second in draws.halves:
        assert len(np.unique(first)) == len(np.unique(second)) == 110
        assert not set(real.subject[first]) & set(real.subject[second])
    assert draws.control is not None
    assert [len(rows) for rows in draws.control] == [60, 60]
    assert {len(rows) for pair in draws.control_halves for rows in pair} == {60}
    small = draw_equal(real, synthetic, control, max_rows=50, num_halves=2, seed=0, purpose="test")
    assert small is not None
    assert small.size == 50
    assert small.control_halves is small.halves  # the control is as large


def test_too_few_rows_or_subjects_say_so() -> None:
    few = measured(normal(79, 2, 0), normal(500, 2, 1))
    assert few.estimate is None
    assert few.reason == "a classifier needs 80 real and 40 synthetic rows"
    assert few.applicable
    nothing = measured(np.zeros((0, 2)), np.zeros((0, 2)))
    assert nothing.estimate is None
    assert not nothing.applicable
    assert measured(normal(100, 2, 0), np.zeros((0, 2))).estimate is None
    one = Sample(normal(200, 2, 0), np.zeros(200, np.int64))
    assert measured(one, normal(100, 2, 1)).estimate is None
    assert measured(normal(200, 2, 1), one).reason == "one subject has most of the rows"


def test_folds_keep_subjects_whole() -> None:
    subject = np.array([5, 5, 5, 2, 2, 9, 9, 9])
    assert split_in_two(subject).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    weights = bootstrap_weights(subject, 20, np.random.default_rng(0))
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 5] == weights[:, 7]).all()
    assert set((weights[:, 0] + weights[:, 3] + weights[:, 5]).tolist()) == {3.0}


def test_the_bound_of_the_baseline_and_a_small_control() -> None:
    halves = np.array([0.48, 0.50, 0.50, 0.52])
    resampled = np.array([0.6, 0.7, 0.8])
    values = EqualValues(np.append(0.7, resampled), halves, np.full(4, 0.5), 0.58, np.array([0.47, 0.49]))
    estimate = values.estimate(most=1.0)
    # Standard deviation 0.016330; Student's t of 3 degrees 2.353363; the square root of 1 + 1/4.
    assert estimate.baseline == pytest.approx(0.5)
    assert estimate.baseline_worst == pytest.approx(0.5 + 2.353363 * 0.0163299 * 1.1180340, abs=1e-6)
    assert values.estimate(is_higher_better=True).baseline_worst == pytest.approx(0.457034, abs=1e-5)
    assert estimate.control == pytest.approx(0.6)  # 0.1 above real-with-real of its size
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, 0.605, 0.795))
    # The halves scatter by 0.016330, 1.5 times what resampling says of the first: the interval is so much wider.
    half = np.append(0.48, np.array([-1.0, 1.0]) * 0.0108866 + 0.48)
    wider = EqualValues(np.append(0.7, resampled), halves, half, None, halves).estimate(most=1.0)
    assert (wider.low, wider.high) == pytest.approx((0.5575, 0.8425), abs=1e-5)
    assert wider.control is None
    scaled = EqualValues(np.append(0.7, resampled), halves, half, None, halves, 2.0).estimate(most=1.0)
    assert scaled.baseline_worst - 0.5 == pytest.approx(2 * (wider.baseline_worst - 0.5))


def compared_rows(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray, PredefinedSplit]:
    draws = c2st_draws(one_per_subject(real), one_per_subject(synthetic), None, name="c2st.rows", seed=3)
    assert draws is not None
    label = np.repeat([0, 1], draws.size)
    half = draws.size // 2
    fold = np.tile(np.repeat([0, 1], [half, draws.size - half]), 2)
    stacked = sparse.vstack if sparse.issparse(real) else np.concatenate
    return stacked([real[draws.real], synthetic[draws.synthetic]]), label, PredefinedSplit(fold)


def plain_area(model: object, rows: np.ndarray, label: np.ndarray, split: PredefinedSplit) -> float:
    scores = cross_val_predict(model, rows, label, cv=split, method="decision_function")
    return float(np.mean([roc_auc_score(label[held], scores[held]) for _, held in split.split()]))


def test_agrees_with_plain_scikit_learn() -> None:
    real, synthetic = normal(400, 6, 0), normal(180, 6, 1, shift=0.8)
    real[::7, 2] = np.nan
    model = HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=8,
        min_samples_leaf=10,
        l2_regularization=1.0,
        max_bins=64,
        early_stopping=False,
        random_state=0,
    )
    mine = estimate_of(measured(real, synthetic)).value
    assert mine == pytest.approx(plain_area(model, *compared_rows(real, synthetic)), abs=1e-9)


def test_the_linear_test_agrees_with_plain_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    real, synthetic = (sparse.csr_array(rng.poisson(rate, (200, 60)).astype(float)) for rate in (0.3, 0.33))
    mine = linear_c2st_measure(
        one_per_subject(real), one_per_subject(synthetic), None, family="rows", title="Rows", seed=3, num_resamples=5
    )
    plain = plain_area(LogisticRegression(C=10.0, max_iter=100), *compared_rows(real, synthetic))
    assert estimate_of(mine).value == pytest.approx(plain, abs=1e-9)


def test_an_independent_draw_stays_within_the_baseline_and_a_shift_does_not() -> None:
    real, control = normal(600, 5, 0), normal(80, 5, 2)
    same = measured(real, normal(300, 5, 1), control)
    assert same.num_compared == 600
    estimate = estimate_of(same)
    assert estimate.value < estimate.baseline_worst < 0.65
    assert estimate.low < 0.5 < estimate.high
    assert estimate.baseline == pytest.approx(0.5, abs=0.02)
    assert estimate.control == pytest.approx(0.5, abs=0.15)
    # Two normal laws a standard deviation apart: no classifier has more than Phi(1 / sqrt 2) = 0.760.
    moved = estimate_of(measured(real, normal(300, 5, 1, shift=1.0)))
    assert moved.low > moved.baseline_worst
    assert norm.cdf(1 / np.sqrt(2)) - 0.08 < moved.value < norm.cdf(1 / np.sqrt(2)) + 0.03
    # Hanley and McNeil 1982 have 0.0195 for its standard error, given the classifiers.
    assert 0.9 * 2 * 1.96 * 0.0195 < moved.high - moved.low < 2 * 2 * 1.96 * 0.0195


def test_shuffled_columns_are_told_apart_though_every_column_is_right() -> None:
    def correlated(num_rows: int, seed: int) -> np.ndarray:
        common = normal(num_rows, 1, seed)
        return common + 0.3 * normal(num_rows, 4, seed + 100)

    real, fresh = correlated(600, 0), correlated(300, 1)
    shuffled = np.column_stack([np.random.default_rng(i).permutation(column) for i, column in enumerate(fresh.T)])
    apart, same = estimate_of(measured(real, shuffled)), estimate_of(measured(real, fresh))
    assert same.value < same.baseline_worst
    assert apart.low > 0.8


def test_copies_of_real_rows_are_not_told_apart() -> None:
    real = normal(600, 5, 0)
    copies = estimate_of(measured(real, real[:300]))
    assert copies.value < copies.baseline_worst


def test_folds_by_subject_do_not_take_recognising_a_subject_for_telling_sides_apart() -> None:
    def visits(seed: int, num_subjects: int) -> Sample:
        faces = np.repeat(normal(num_subjects, 6, seed), 6, axis=0)
        return Sample(faces + 0.05 * normal(len(faces), 6, seed + 50), np.repeat(np.arange(num_subjects), 6))

    real, synthetic = visits(4, 100), visits(5, 50)
    by_subject = estimate_of(measured(real, synthetic))
    assert by_subject.value < by_subject.baseline_worst
    by_row = estimate_of(measured(real.features, synthetic.features))
    assert by_row.value > 0.85
    # Six rows of one subject say no more than one: the interval is that much wider.
    assert by_subject.high - by_subject.low > 2 * (by_row.high - by_row.low)


def test_the_number_of_threads_changes_nothing() -> None:
    real, synthetic = normal(400, 12, 0), normal(200, 12, 1, shift=0.3)
    found = []
    for number in (1, 2, 4):
        with threadpool_limits(number):
            found.append(measured(real, synthetic, num_resamples=3))
    assert found[0] == found[1] == found[2]


def test_columns_without_a_number_do_no_harm() -> None:
    real, synthetic = normal(200, 3, 0), normal(100, 3, 1)
    real[:, 1] = synthetic[:, 1] = np.nan
    assert estimate_of(measured(real, synthetic)).value < 0.65
