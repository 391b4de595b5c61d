"""A group that alone leaks is found and named; twins that leak of nobody, or of everybody alike, are not unfair."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.attacks.suite import ByPerson
from medtwin.check.fairness.attacks import attacks_by_group, gained_by_hits, gained_by_score
from medtwin.check.fairness.settings import Fairness
from medtwin.check.gates import exact_interval
from tests.check.fairness.outcomes import Shipped, outcome

SIZES = 300, 150


def found_by(seed: int, *, leak_of_women: float = 0.0, leak_of_men: float = 0.0) -> ByPerson:
    """A guess that is right of every tenth person, a score, and a leak of training patients of either sex."""
    rng = np.random.default_rng(seed)
    sexes = [rng.choice(["F", "M"], size).astype(object) for size in SIZES]
    leak = {"F": leak_of_women, "M": leak_of_men}
    leaks = rng.random(SIZES[0]) < np.array([leak[sex] for sex in sexes[0]])
    hits = [(rng.random(size) < 0.1).astype(float) for size in SIZES]
    scores = [rng.normal(size=size) for size in SIZES]
    hits[0][leaks], scores[0][leaks] = 1.0, 5.0
    given = {"linkability": (hits[0], hits[1]), "score": (scores[0], scores[1]), "nearest twin": (hits[0], hits[1])}
    return ByPerson(given, ("linkability",), {"sex": (sexes[0], sexes[1])})


def measured(one: ByPerson, seed: int = 0):
    return attacks_by_group(one, Fairness(), seed=seed, num_resamples=60)


def test_what_is_gained_is_what_training_adds() -> None:
    found, is_train = np.array([1.0, 1, 0, 0, 1, 0]), np.array([True, True, True, False, False, False])
    ones = np.ones((1, 6))
    assert gained_by_hits(found, is_train, ones)[0] == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))
    assert gained_by_hits(np.ones(6), is_train, ones)[0] == 0
    # two of training beat two others and tie with one each, the third ties with two and loses to one
    assert gained_by_score(found, is_train, ones)[0] == pytest.approx(2 * (2 * 2.5 + 2 * 0.5) / 9 - 1)
    twice = np.array([[2.0, 0, 1, 1, 1, 1]])  # the first is drawn twice, the second never
    assert gained_by_hits(found, is_train, twice)[0] == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))


def test_the_group_that_leaks_is_named_and_distances_are_not_looked_at() -> None:
    measure, rows = measured(found_by(1, leak_of_women=0.6))
    assert measure.title.endswith("sex: F)")
    assert measure.estimate is not None
    assert measure.estimate.low > 0.2
    assert {row.metric for row in rows} == {"linkability", "score"}
    row = next(row for row in rows if (row.metric, row.group) == ("linkability", "F"))
    assert row.value == pytest.approx(0.6, abs=0.12)
    assert row.reference == pytest.approx(0.0, abs=0.12)
    small = measured(ByPerson({"score": (np.zeros(60), np.zeros(60))}, (), {"sex": (np.repeat(["F", "M"], 30),) * 2}))
    assert small[0].estimate is None
    assert {row.reason for row in small[1]} == {"not judged: fewer than 50 training patients"}


@pytest.mark.slow  # many comparisons
def test_only_an_uneven_leak_is_unfair(shipped: Shipped) -> None:
    alarms, even, found, num_draws = 0, 0, 0, 100
    for seed in range(num_draws):
        alarms += outcome(measured(found_by(seed), seed)[0], "attacks-by-group", shipped) == "failed"
        if seed < 30:
            both = found_by(seed, leak_of_women=0.5, leak_of_men=0.5)
            even += outcome(measured(both, seed)[0], "attacks-by-group", shipped) == "failed"
            one = found_by(seed, leak_of_men=0.5)
            found += outcome(measured(one, seed)[0], "attacks-by-group", shipped) == "failed"
    assert exact_interval(alarms, num_draws)[1] <= 0.08, alarms
    assert even <= 2
    assert exact_interval(found, 30)[0] >= 0.8, found
