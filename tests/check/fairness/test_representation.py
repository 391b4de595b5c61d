"""Groups that are short of their share are found and named; another draw of the same people is not blamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from medtwin.check import Measure
from medtwin.check.fairness.groups import Division
from medtwin.check.fairness.representation import source_representation, target_representation
from medtwin.check.fairness.settings import Fairness, fairness_from
from medtwin.check.gates import exact_interval
from medtwin.check.resample import make_plan
from medtwin.core.errors import ConfigError
from tests.check.fairness.outcomes import Shipped, outcome

DEFAULT = Fairness()
WARDS, SHARES = ["A", "B", "C", "D"], [0.6, 0.25, 0.12, 0.03]


def wards(*counts: dict[str, int]) -> Division:
    """A side for each of the counts."""
    return Division("ward", tuple(np.repeat(list(one), list(one.values())).astype(object) for one in counts))


def drawn(number: int, seed: int) -> dict[str, int]:
    counts = np.random.default_rng(seed).multinomial(number, SHARES)
    return dict(zip(WARDS, counts.tolist(), strict=True))


def measured(division: Division, settings: Fairness = DEFAULT, seed: int = 0) -> tuple[Measure, Measure, dict]:
    plan = make_plan(len(division.levels[0]), len(division.levels[1]), 0, seed=seed, num_resamples=30)
    source, rows = source_representation([division], plan, settings, seed=seed)
    target, others = target_representation([division], plan, settings, seed=seed)
    return source, target, {(row.metric, row.group): row for row in [*rows, *others]}


def test_a_share_of_half_of_what_it_was_lacks_half_and_the_small_group_is_told() -> None:
    source, target, rows = measured(wards({"A": 100, "B": 100, "C": 10}, {"A": 300, "B": 100, "C": 20}))
    assert source.estimate is not None
    assert source.estimate.value == pytest.approx(1 - (100 / 420) / (100 / 210))
    assert source.title.endswith("(ward: B)")
    row = rows["share of the source", "B"]
    assert (row.num_patients, row.num_others, row.reason) == (100, 100, "")
    assert row.value == pytest.approx(100 / 420)
    assert row.reference == pytest.approx(100 / 210)
    assert row.gap == pytest.approx(0.5)
    assert row.gap_low is not None
    assert row.gap_high is not None
    assert row.gap_low < 0.5 < row.gap_high
    small = rows["share of the source", "C"]
    assert (small.num_patients, small.num_others, small.value) == (10, 20, None)
    assert small.reason == "not judged: fewer than 50 patients"
    assert (target.estimate, target.applicable) == (None, False)


def test_a_group_of_which_there_is_no_twin_is_judged_all_the_same() -> None:
    source, _, rows = measured(wards({"A": 100, "B": 60}, {"A": 160}))
    assert source.estimate is not None
    assert source.estimate.value == 1
    assert rows["share of the source", "B"].gap == 1


def test_many_small_groups_do_not_hide_a_large_one_that_is_short(shipped: Shipped) -> None:
    sites = {f"site {number}": 55 for number in range(20)}
    real, twins = {"F": 1000, "M": 1000, **sites}, {"F": 640, "M": 1360, **sites}
    found, _, _ = measured(wards(real, twins))
    assert found.title.endswith("(ward: F)")
    assert outcome(found, "representation", shipped, number=3100) == "failed"
    assert outcome(measured(wards(real, real))[0], "representation", shipped, number=3100) == "passed"


@pytest.mark.parametrize("sizes", [(200, 200), (300, 100)])
@pytest.mark.slow  # 300 comparisons
def test_groups_that_just_reach_the_floor_exceed_what_chance_explains_as_often_as_is_said(
    sizes: tuple[int, int],
) -> None:
    # judged against halves of the reference they did in 15.5 % of pairs: what just reaches the floor has luck there
    shares, floor, beyond, num_draws = [0.26, 0.25, 0.24, 0.15, 0.1], int(0.25 * sizes[0]), 0, 300
    for seed in range(num_draws):
        rng = np.random.default_rng([8, seed])
        sides = (dict(zip("ABCDE", rng.multinomial(size, shares).tolist(), strict=True)) for size in sizes)
        found, _, _ = measured(wards(*sides), Fairness(floor), seed)
        if found.estimate is not None:
            beyond += found.estimate.value > found.estimate.baseline_worst
    assert beyond <= binom.ppf(0.999, num_draws, 0.05), beyond


def test_everybody_of_one_group_is_not_applicable_and_small_groups_are_unchecked() -> None:
    plan = make_plan(60, 60, 0, seed=0, num_resamples=20)
    assert source_representation([], plan, Fairness(), seed=0)[0].applicable is False
    found, _, rows = measured(wards({"A": 20, "B": 20}, {"A": 20, "B": 20}))
    assert (found.estimate, found.applicable) == (None, True)
    assert len(rows) == 2


def test_a_target_takes_the_place_of_the_source() -> None:
    settings = Fairness(50, {"ward": {"A": 0.5, "B": 0.5, "X": 0.0}})
    source, target, rows = measured(wards({"A": 300, "B": 100}, {"A": 200, "B": 200}), settings)
    assert source.estimate is None
    assert target.estimate is not None
    assert target.estimate.value == pytest.approx(0)
    assert target.estimate.baseline_worst > 0
    assert rows["share of the target", "X"].reason == "not judged: the stated population has nobody of it"
    skewed = measured(wards({"A": 300, "B": 100}, {"A": 300, "B": 100}), settings)[1]
    assert skewed.estimate is not None
    assert skewed.estimate.value == pytest.approx(0.5)
    missing = Fairness(50, {"ward": {"A": 0.5, "B": 0.25, "X": 0.25}})
    absent = measured(wards({"A": 300, "B": 100}, {"A": 300, "B": 100}), missing)[1]
    assert absent.estimate is not None
    assert absent.estimate.value == 1  # a group that nobody is of is as short as can be


@pytest.mark.slow  # 440 comparisons
def test_independent_draws_raise_no_alarm_and_a_group_that_is_short_does(shipped: Shipped) -> None:
    target = Fairness(50, {"ward": dict(zip(WARDS, SHARES, strict=True))})
    alarms, found, num_draws = np.zeros(2, int), 0, 200
    for seed in range(num_draws):
        division = wards(drawn(500, 2 * seed), drawn(500, 2 * seed + 1))
        source, _, _ = measured(division, seed=seed)
        _, stated, _ = measured(division, target, seed=seed)
        alarms += [
            outcome(source, "representation", shipped) == "failed",
            outcome(stated, "representation-target", shipped) == "failed",
        ]
        if seed < 40:  # two of three twins of ward B are missing
            short = drawn(500, 2 * seed + 1)
            short["B"] //= 3
            broken, _, _ = measured(wards(drawn(500, 2 * seed), short), seed=seed)
            found += outcome(broken, "representation", shipped) == "failed"
    assert exact_interval(int(alarms[0]), num_draws)[1] <= 0.08, alarms
    assert exact_interval(int(alarms[1]), num_draws)[1] <= 0.08, alarms
    assert exact_interval(found, 40)[0] >= 0.8, found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"floor": 5}, "fairness.floor must be 11 patients or more, got 5"),
        ({"floor": 50.0}, "fairness.floor must be 11 patients or more, got 50.0"),
        ({"flor": 5}, "fairness has no setting 'flor', only floor and target"),
        ({"target": {"x": {"F": 1.0}}}, "fairness.target.x must be a division of strata: sex, age"),
        ({"target": {"sex": {"F": 0.5, "M": 0.4}}}, "fairness.target.sex must have shares that sum to 1, got 0.9"),
        ({"target": {"sex": {"F": 1.5, "M": -0.5}}}, "fairness.target.sex.F must be a share between 0 and 1, got 1.5"),
        ({"target": {"sex": {"F": float("nan"), "M": 1}}}, "fairness.target.sex.F must be a share between 0 and 1"),
        ({"target": {"sex": {"F": "half"}}}, "fairness.target.sex.F must be a share between 0 and 1, got 'half'"),
        ({"target": {"sex": 0.5}}, "fairness.target.sex must give shares of groups"),
        ({"target": [1]}, "fairness.target must name divisions"),
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        fairness_from(config, ["sex", "age"])


def test_settings_are_read() -> None:
    assert fairness_from(None, []) == Fairness()
    assert fairness_from({"floor": 30, "target": {"sex": {"F": 1}}}, ["sex"]) == Fairness(30, {"sex": {"F": 1}})
