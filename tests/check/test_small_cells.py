"""Twins that stand where few training patients do are counted against other patients, who stand there by chance."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.fairness.groups import Division
from medtwin.check.gates import exact_interval
from medtwin.check.small_cells import small_cells
from tests.check.fairness.outcomes import Shipped, outcome


def people(number: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    share = np.arange(1, 16) ** -1.0
    site = rng.choice([f"S{one}" for one in range(15)], number, p=share / share.sum())
    return {"sex": rng.choice(["F", "M"], number).astype(object), "site": site.astype(object)}


def divisions(*sides: dict[str, np.ndarray]) -> list[Division]:
    return [Division(name, tuple(side[name] for side in sides)) for name in ("sex", "site")]


def rare_copied(twins: dict[str, np.ndarray], train: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """A share of the twins in the place of training patients whose sex and site 10 or fewer have."""
    pairs = np.char.add(train["sex"].astype(str), train["site"].astype(str))
    _, place, count = np.unique(pairs, return_inverse=True, return_counts=True)
    rare = np.flatnonzero(count[place] < 11)
    number = round(share * len(twins["sex"]))
    return {name: np.r_[train[name][np.resize(rare, number)], twins[name][number:]] for name in twins}


def test_cells_of_one_to_ten_training_patients_are_counted() -> None:
    train = np.repeat(["A", "B", "C"], [11, 10, 179]).astype(object)
    twins = np.repeat(["A", "B", "C", "D"], [20, 30, 45, 5]).astype(object)
    control = np.repeat(["A", "B", "C"], [10, 5, 85]).astype(object)
    measure, (row,) = small_cells([Division("site", (train, twins, control))], seed=0, num_resamples=40)
    assert (row.keys, row.num_cells, row.num_small) == ("site", 4, 1)  # five twins stand in D
    assert (row.twins, row.control, row.excess) == (
        0.3,
        0.05,
        pytest.approx(0.25),
    )  # B is rare; A is not, D is nobody's
    assert row.low < 0.25 < row.high
    assert measure.estimate is not None
    assert (measure.estimate.value, measure.estimate.baseline) == (pytest.approx(0.25), 0.0)
    assert 0 < row.usual < 0.2


def test_combinations_are_crossed_and_a_missing_control_leaves_it_unmeasured() -> None:
    sides = [people(200, seed) for seed in range(3)]
    _, rows = small_cells(divisions(*sides), seed=0, num_resamples=20)
    assert [row.keys for row in rows] == ["sex", "site", "sex x site"]
    assert (
        "patients whom training did not see" in small_cells(divisions(*sides[:2]), seed=0, num_resamples=20)[0].reason
    )
    assert small_cells([], seed=0, num_resamples=20)[0].applicable is False


@pytest.mark.slow  # 240 comparisons
def test_independent_draws_raise_no_alarm_and_copied_rare_cells_do(shipped: Shipped) -> None:
    alarms, found, num_draws = 0, 0, 200
    for seed in range(num_draws):
        train, twins, control = (people(size, 3 * seed + side) for side, size in enumerate((400, 400, 200)))
        measure, _ = small_cells(divisions(train, twins, control), seed=seed, num_resamples=20)
        alarms += outcome(measure, "small-cells", shipped) == "failed"
        if seed < 40:
            copied = rare_copied(twins, train, 0.3)
            measure, _ = small_cells(divisions(train, copied, control), seed=seed, num_resamples=20)
            found += outcome(measure, "small-cells", shipped) == "failed"
    assert exact_interval(alarms, num_draws)[1] <= 0.08, alarms
    assert exact_interval(found, 40)[0] >= 0.8, found
