"""A group whose records are badly drawn is found and named, and a small group is not blamed for being small."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.controls import collapsed
from medtwin.check.estimates import Measure
from medtwin.check.fairness.fidelity import Parts, fidelity_by_group
from medtwin.check.fairness.settings import Fairness
from medtwin.check.gates import exact_interval
from medtwin.check.group_rows import FairnessRow
from medtwin.check.records import Records, Vocabulary
from medtwin.check.resample import make_plan, weighted_sums
from tests.check.fairness.laws import divisions, moved_group, people, without
from tests.check.fairness.outcomes import Shipped, outcome

DEFAULT = Fairness()


def measured(
    real: Records, twins: Records, *, seed: int = 0, settings: Fairness = DEFAULT
) -> tuple[Measure, dict[tuple[str, str], FairnessRow]]:
    plan = make_plan(real.num_subjects, twins.num_subjects, 0, seed=seed, num_resamples=40)
    measure, rows = fidelity_by_group([real, twins], divisions(real, twins), plan, settings)
    return measure, {(row.division, row.group): row for row in rows}


def test_the_difference_is_that_of_shares_in_standard_deviations_less_noise() -> None:
    words = Vocabulary()
    parts = Parts.of(people(200, 1, words))
    count = len(parts.weight)
    assert parts.weight.sum() == pytest.approx(1)
    sums = np.column_stack([[100.0], np.full((1, count), 50.0)])
    other = np.column_stack([[100.0], np.full((1, count), 80.0)])
    noise = 0.25 / 99 + 0.16 / 99
    expected = np.sqrt((((0.5 - 0.8) ** 2 - noise) / parts.variance) @ parts.weight)
    assert parts.difference(sums, other)[0] == pytest.approx(expected)
    assert parts.difference(sums, sums)[0] == 0


def test_a_moved_group_is_named_and_its_row_is_that_of_its_people_alone() -> None:
    words = Vocabulary()
    real, fresh = (people(400, seed, words) for seed in (1, 2))
    measure, rows = measured(real, moved_group(fresh, "WARD//B"))
    assert measure.title.endswith("(ward: B)")
    row = rows["ward", "B"]
    assert row.gap is not None
    assert row.gap_low is not None
    assert row.gap_low > 0.1
    parts = Parts.of(real)
    broken = moved_group(fresh, "WARD//B")
    alone = [
        np.column_stack([np.ones(side.num_subjects), parts.table(side)])[side.has("WARD//B")] for side in (real, broken)
    ]
    sums = [weighted_sums(np.ones((1, len(one)), np.float32), one) for one in alone]
    assert row.value == pytest.approx(float(parts.difference(sums[0], sums[1])[0]), abs=1e-6)


def test_groups_below_the_floor_are_told_and_not_judged() -> None:
    words = Vocabulary()
    real, twins = people(120, 1, words), people(120, 2, words)
    _, rows = measured(real, twins)
    assert set(rows) == {("sex", "F"), ("sex", "M"), ("ward", "A"), ("ward", "B"), ("ward", "C")}
    assert rows["ward", "C"].reason == "not judged: fewer than 50 patients"
    assert rows["ward", "C"].value is None
    few = without(twins, "GENDER//F", 1.0, 0)
    assert "fewer than 50 twins" in measured(real, few)[1]["sex", "F"].reason
    assert measured(people(60, 1, words), people(60, 2, words))[0].estimate is None


def test_twins_that_are_wrong_for_everybody_are_not_unfair() -> None:
    words = Vocabulary()
    real, fresh = (people(300, seed, words) for seed in (1, 2))
    moved = moved_group(moved_group(fresh, "GENDER//F"), "GENDER//M")
    measure, rows = measured(real, moved)
    assert measure.estimate is not None
    assert rows["sex", "F"].value is not None
    assert rows["sex", "F"].value > 0.1
    assert measure.estimate.value < 0.15
    assert (
        measured(real, collapsed(fresh, real, np.random.default_rng(0)))[0].estimate is None
    )  # one group alone is left


@pytest.mark.slow  # 250 comparisons
def test_independent_draws_raise_no_alarm_and_a_moved_group_does(shipped: Shipped) -> None:
    words = Vocabulary()
    alarms, found, num_draws, num_broken = 0, 0, 200, 40
    for seed in range(num_draws):
        real, fresh = (people(400, 2 * seed + side, words) for side in (0, 1))
        alarms += outcome(measured(real, fresh, seed=seed)[0], "fidelity-by-group", shipped) == "failed"
        if seed < num_broken:
            broken = moved_group(fresh, "WARD//B")
            found += outcome(measured(real, broken, seed=seed)[0], "fidelity-by-group", shipped) == "failed"
    assert exact_interval(alarms, num_draws)[1] <= 0.08, alarms
    assert exact_interval(found, num_broken)[0] >= 0.8, found
