from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from medtwin.check import neighbours
from medtwin.check.estimates import Measure
from medtwin.check.neighbours import Prdc, _entropy_influence, neighbour_measures, prdc, vendi
from medtwin.check.two_sample import Sample, one_per_subject

NAMES = ("precision", "recall", "density", "coverage", "vendi")


@pytest.fixture(autouse=True)
def few_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "NUM_HALVES", 6)


def on_a_line(*places: float) -> np.ndarray:
    return np.array(places)[:, None]


def clusters(num_rows: int, seed: int, *, share: float = 0.25, width: float = 1.0) -> np.ndarray:
    """Two clusters in six dimensions with correlated columns, so far apart that they do not meet."""
    rng = np.random.default_rng(seed)
    rows = width * (rng.normal(size=(num_rows, 1)) + 0.5 * rng.normal(size=(num_rows, 6)))
    rows[: round(share * num_rows)] += 12 * np.array([1, -1, 1, -1, 1, -1])
    return rng.permutation(rows)


def measured(real: np.ndarray, synthetic: np.ndarray, control: np.ndarray | None = None) -> dict[str, Measure]:
    third = None if control is None else one_per_subject(control)
    found = neighbour_measures(
        one_per_subject(real), one_per_subject(synthetic), third, family="rows", title="Rows", seed=0, num_resamples=50
    )
    assert [one.name for one in found] == [f"rows.{name}" for name in NAMES]
    assert all(one.better == "higher" for one in found)
    return {one.name.removeprefix("rows."): one for one in found}


def worse(found: dict[str, Measure]) -> set[str]:
    """The names of the numbers that lie below what 95 % of real-versus-real comparisons stay within."""
    estimates = {name: one.estimate for name, one in found.items()}
    return {name for name, one in estimates.items() if one is not None and one.value < one.baseline_worst}


def test_points_on_a_line_by_hand() -> None:
    real = on_a_line(0, 1, 2, 3, 30, 31)  # the nearest other real point is 1 away, of each
    synthetic = on_a_line(0.5, 2.4, 10, 11)  # 1.9, 1.9, 1 and 1 away
    # 0.5 lies within 1 of 0 and 1, and 2.4 of 2 and 3; 10 and 11 lie within 1 of none.
    # 0, 1, 2 and 3 lie within 1.9 of 0.5 or 2.4; 30 and 31 near no twin.
    assert prdc(real, synthetic, 1) == Prdc(precision=2 / 4, recall=4 / 6, density=4 / 4, coverage=4 / 6)
    # Two neighbours: real radii 2, 1, 1, 2, 27 and 28, synthetic ones 9.5, 7.6, 7.6 and 8.6.
    # 0.5 is in the balls of 0 and 1, 2.4 in those of 2 and 3, 10 and 11 in those of 30 and 31: 8 of 2 * 4.
    assert prdc(real, synthetic, 2) == Prdc(precision=1.0, recall=4 / 6, density=8 / 8, coverage=1.0)


def test_the_surface_of_a_neighbourhood_belongs_to_it() -> None:
    real, synthetic = on_a_line(0, 2, 4, 6), on_a_line(8, 10, 12, 14)
    assert prdc(real, synthetic, 1) == Prdc(precision=1 / 4, recall=1 / 4, density=1 / 4, coverage=1 / 4)


def test_equal_samples_are_perfect() -> None:
    rows = clusters(30, 0)
    found = prdc(rows, rows, 3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density > 1  # every row is in its own neighbourhood and, on average, in three others


@pytest.mark.parametrize("k", [1, 5, 8])
def test_agrees_with_plain_scikit_learn(k: int) -> None:
    real, synthetic = clusters(180, 1), clusters(140, 2, share=0.1, width=1.2)
    sides = [NearestNeighbors(algorithm="ball_tree").fit(side) for side in (real, synthetic)]
    radii = [near.kneighbors(side, k + 1)[0][:, k] for near, side in zip(sides, (real, synthetic), strict=True)]
    balls = NearestNeighbors(algorithm="ball_tree").fit(synthetic)
    within = [set(balls.radius_neighbors([point], radius)[1][0]) for point, radius in zip(real, radii[0], strict=True)]
    reached = sides[0]
    covered = {
        row
        for point, radius in zip(synthetic, radii[1], strict=True)
        for row in reached.radius_neighbors([point], radius)[1][0]
    }
    found = prdc(real, synthetic, k)
    assert found.precision == pytest.approx(len(set().union(*within)) / 140, abs=1e-12)
    assert found.density == pytest.approx(sum(map(len, within)) / (k * 140), abs=1e-12)
    assert found.coverage == pytest.approx(np.mean([bool(one) for one in within]), abs=1e-12)
    assert found.recall == pytest.approx(len(covered) / 180, abs=1e-12)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="more rows than k, got 5, 5 and 9"):
        prdc(np.zeros((5, 1)), np.zeros((9, 1)), 5)
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        vendi(np.zeros((2, 1)), bandwidth=0.0)


def test_the_vendi_score_by_hand() -> None:
    # Eigenvalues of two points a bandwidth apart: (1 +- exp(-1/2)) / 2 = 0.803265 and 0.196735.
    # Entropy 0.175971 + 0.319871 = 0.495842.
    assert vendi(on_a_line(0, 3), bandwidth=3.0) == pytest.approx(np.exp(0.495842), abs=5e-6)
    assert vendi(on_a_line(4, 4, 4, 4), bandwidth=1.0) == pytest.approx(1)
    assert vendi(on_a_line(0, 100, 200, 300), bandwidth=1.0) == pytest.approx(4)
    # Three quarters alike: exp(0.75 log(4/3) + 0.25 log 4).
    assert vendi(on_a_line(0, 0, 0, 100), bandwidth=1.0) == pytest.approx(1.754765, abs=1e-6)


def test_the_influence_of_a_row_is_the_derivative_by_its_weight() -> None:
    rows = clusters(12, 3)
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    entropy, influence = _entropy_influence(distance, 2.0)
    assert np.exp(entropy) == pytest.approx(vendi(rows, bandwidth=2.0))
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    # 481 rows of which one stands 41 times and the others 40 times: 480/481 of the old weights, and 1/481 on one row.
    often = np.repeat(np.arange(12), [41 if i == 4 else 40 for i in range(12)])
    moved = np.log(vendi(rows[often], bandwidth=2.0))
    assert 481 * (moved - entropy) == pytest.approx(influence[4], rel=0.05)


def test_an_independent_draw_stays_within_the_baseline() -> None:
    found = measured(clusters(800, 10), clusters(400, 11), clusters(200, 12))
    assert worse(found) == set()
    for name, one in found.items():
        assert one.estimate is not None
        assert one.num_compared == 800
        assert one.estimate.low < one.estimate.value < one.estimate.high
        assert one.estimate.control == pytest.approx(one.estimate.baseline, abs=0.12), name
    assert found["density"].estimate is not None
    assert found["density"].estimate.baseline == pytest.approx(1, abs=0.05)
    assert found["vendi"].estimate is not None
    assert found["vendi"].estimate.baseline == pytest.approx(1, abs=0.02)


def test_noise_lowers_precision_and_not_diversity() -> None:
    noisy = clusters(400, 11) + 3 * np.random.default_rng(0).normal(size=(400, 6))
    found = measured(clusters(800, 10), noisy)
    assert {"precision", "density", "coverage"} <= worse(found)
    assert "vendi" not in worse(found)
    assert found["precision"].estimate is not None
    assert found["precision"].estimate.high < 0.5


def test_columns_dealt_anew_lower_precision_though_every_column_is_right() -> None:
    rng = np.random.default_rng(0)
    shuffled = np.column_stack([rng.permutation(column) for column in clusters(400, 11).T])
    assert {"precision", "density", "coverage"} <= worse(measured(clusters(800, 10), shuffled))


def test_one_twin_many_times_has_neither_recall_nor_coverage_nor_diversity() -> None:
    collapsed = np.repeat(clusters(400, 11)[:1], 400, axis=0)
    found = measured(clusters(800, 10), collapsed)
    assert {"recall", "coverage", "vendi"} <= worse(found)
    for name, most in (("recall", 0.01), ("coverage", 0.05), ("vendi", 0.5)):
        estimate = found[name].estimate
        assert estimate is not None
        assert estimate.value < most


def test_a_subgroup_left_out_lowers_recall_and_not_precision() -> None:
    found = measured(clusters(800, 10), clusters(400, 11, share=0.0))
    assert {"recall", "coverage", "vendi"} <= worse(found)
    assert "precision" not in worse(found)
    assert found["recall"].estimate is not None
    assert found["recall"].estimate.value == pytest.approx(0.75 * found["recall"].estimate.baseline, abs=0.08)


def test_copies_of_real_rows_are_nowhere_worse() -> None:
    real = clusters(800, 10)
    found = measured(real, real[:400])
    assert worse(found) == set()
    assert found["coverage"].estimate is not None
    assert found["coverage"].estimate.value > found["coverage"].estimate.baseline


def test_few_rows_say_so() -> None:
    for sides in ((79, 100), (100, 39), (0, 0)):
        found = measured(*(np.zeros((number, 2)) for number in sides))
        assert all(one.estimate is None and one.reason for one in found.values())
        assert found["recall"].applicable == (sides[0] > 0)


def test_the_intervals_are_of_subjects() -> None:
    def repeated(seed: int, num_subjects: int) -> Sample:
        rows = np.repeat(clusters(num_subjects, seed, share=0), 16, axis=0)
        return Sample(rows + np.random.default_rng(seed).normal(size=rows.shape), np.arange(len(rows)) // 16)

    real, synthetic = repeated(0, 60), repeated(1, 30)
    synthetic.features[synthetic.subject % 2 == 0] += 100.0  # every other subject is in no real neighbourhood
    widths = []
    for one in (synthetic, one_per_subject(synthetic.features)):
        found = neighbour_measures(real, one, None, family="rows", title="Rows", seed=0)[0].estimate
        assert found is not None
        widths.append(found.high - found.low)
    # Sixteen rows of a subject say as much as one: 4 times as wide, and neither is widened by more than 2.
    assert widths[0] > 1.9 * widths[1]


def test_the_number_of_threads_changes_nothing() -> None:
    found = []
    for number in (1, 2):
        with threadpool_limits(number):
            found.append(measured(clusters(200, 10), clusters(100, 11)))
    assert found[0] == found[1]
