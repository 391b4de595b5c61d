from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.population.attrition import Division, demographics
from medtwin.trials.population.criteria import IndexDay, find_eligible
from medtwin.trials.population.evaluation import statements
from medtwin.trials.population.failing import Failures, failures, near_entries, patterns_of
from medtwin.trials.population.pool_effects import difference_in_means, event_rate, log_hazard_ratio, mean_outcome
from medtwin.trials.population.shapley import sampled_shares, shapley
from medtwin.trials.population.what_if import what_if
from tests.trials.samples import cohort, has, lab, subject, visit

LABELS = ["a", "b", "c"]


def masks(*subjects: list[int], labels: list[str] | None = None) -> Failures:
    """Failures of subjects, each a list of masks, one for each of its days."""
    rows = [(number, mask) for number, each in enumerate(subjects) for mask in sorted(set(each))]
    columns = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return Failures(columns[0], columns[1], np.zeros(len(rows), dtype=np.int64), labels or LABELS)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


def by_permutations(failing: Failures) -> list[float]:
    """Shapley's values from their definition."""
    number = len(failing.labels)
    lost = np.zeros(number)
    orders = list(permutations(range(number)))
    for order in orders:
        applied = 0
        for bit in order:
            before = len(failing.admitted(~applied))
            applied |= 1 << bit
            lost[bit] += before - len(failing.admitted(~applied))
    return (lost / len(orders)).tolist()


def test_two_criteria_that_exclude_the_same_subjects_share_them() -> None:
    failing = masks([0b011], [0b011], [0b001], [0b000], [0b100])
    np.testing.assert_allclose(shapley(failing), [2.0, 1.0, 1.0])
    found = what_if(failing, {}, generator=generator())
    assert [(row.gained, row.alone) for row in found.left_out] == [(1, 2), (0, 3), (1, 4)]
    assert (found.pool.size, found.num_candidates, found.is_exact) == (1, 5, True)
    assert found.pool.subjects.tolist() == [3]


def test_a_subject_is_admitted_if_one_of_its_days_is() -> None:
    """On one day a fails, on another b: only together do they exclude."""
    failing = masks([0b01, 0b10], labels=["a", "b"])
    np.testing.assert_allclose(shapley(failing), [0.5, 0.5])
    assert [row.alone for row in what_if(failing, {}, generator=generator()).left_out] == [1, 1]


SUBJECTS = st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=3), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(SUBJECTS)
def test_exact_values_are_those_of_the_definition(subjects: list[list[int]]) -> None:
    failing = masks(*subjects, labels=list("abcd"))
    values = shapley(failing)
    np.testing.assert_allclose(values, by_permutations(failing), atol=1e-12)
    excluded = len(subjects) - len(failing.admitted())
    assert values.sum() == pytest.approx(excluded)  # they share all of the loss
    assert (values >= 0).all()


def test_a_criterion_that_excludes_nobody_has_the_value_0_and_equal_ones_have_equal_values() -> None:
    values = shapley(masks([0b011], [0b011, 0b111], [0b000]))
    assert values[2] == 0
    assert values[0] == values[1] == 1.0


def test_sampled_values_cover_the_exact_ones_and_add_up() -> None:
    rng = np.random.default_rng(3)
    drawn = (rng.integers(0, 1 << 12, (200, 2)) & rng.integers(0, 1 << 12, (200, 2))).tolist()
    failing = masks(*drawn, labels=[str(number) for number in range(12)])
    exact = shapley(failing)
    patterns = patterns_of(failing)
    sampled = sampled_shares(patterns, 12, generator(), num_orders=300)
    value = patterns.counts @ sampled.of_pattern
    assert (abs(value - exact) <= 3.29 * sampled.monte_carlo_error).all()
    assert value.sum() == pytest.approx(exact.sum())
    assert sampled.monte_carlo_error.max() < 0.03 * exact.max()


def test_more_than_12_criteria_are_sampled() -> None:
    labels = [str(n) for n in range(40)]
    failing = masks([1 << 39], [(1 << 39) | 1], [0], labels=labels)
    found = what_if(failing, {}, generator=generator(), num_orders=200)
    assert not found.is_exact
    last = found.left_out[39]
    assert (last.gained, last.alone) == (1, 1)
    assert last.contribution.value == 1.5  # an order and its reverse tell of a pair of criteria exactly
    assert found.left_out[5].contribution.value == 0
    with pytest.raises(ValueError, match="at most 12"):
        shapley(failing)


def test_the_naive_share_is_no_shapley_value() -> None:
    """The negative control: what leaving out gains does not add up where criteria overlap."""
    failing = masks([0b011], [0b011], [0b000])
    gains = [row.gained for row in what_if(failing, {}, generator=generator()).left_out]
    assert sum(gains) == 0 != shapley(failing).sum() == 2


def test_on_a_cohort() -> None:
    """Subject 1 is eligible, 2 lacks the value, 3 is too young, 4 too young and without the value, 5 has the event."""
    who = cohort(
        [
            subject(1, visit(1, 0), lab(1, 0, 7.0)),
            subject(2, visit(2, 0), sex="M"),
            subject(3, visit(3, 0), lab(3, 0, 7.0), born_years_ago=12.0),
            subject(4, visit(4, 0), born_years_ago=12.0),
            subject(5, has(5, 0), visit(5, 0), lab(5, 0, 8.0)),
        ]
    )
    criteria = statements("age >= 18 & hba1c > 6 & no condition(SNOMED//44054006)")
    failing = failures(who, IndexDay(), criteria)
    assert failing.mask.tolist() == [0b000, 0b010, 0b001, 0b011, 0b100]
    found = what_if(failing, demographics(who, who.last), generator=generator())
    assert [(row.criterion, row.gained, row.gained_not_evaluable, row.alone) for row in found.left_out] == [
        ("age >= 18", 1, 0, 3),
        ("hba1c > 6 %", 1, 1, 3),
        ("no condition(SNOMED//44054006)", 1, 0, 4),
    ]
    assert [row.contribution.value for row in found.left_out] == pytest.approx([1.5, 1.5, 1.0])
    assert found.left_out[1].pool.composition["sex"] == {"F": 1, "M": 1}
    assert found.left_out[1].pool.share("sex", "M") == 0.5
    assert found.pool.subjects.tolist() == find_eligible(who, IndexDay(), criteria).entry.subject.tolist()
    with pytest.raises(ValueError, match="criteria must be 1 to 62"):
        failures(who, IndexDay(), [])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        what_if(failing, {}, generator=generator(), level=1.0)
    with pytest.raises(ValueError, match="num_orders must be 2 or more"):
        sampled_shares(patterns_of(failing), 3, generator(), num_orders=1)


def test_effects_and_what_leaving_out_changes() -> None:
    """Without b, the pool is everybody: means and their change by hand."""
    failing = masks(*[[0]] * 4, *[[0b10]] * 2, labels=["a", "b"])
    outcome = np.array([1.0, 2.0, 3.0, 6.0, 9.0, math.nan])
    found = what_if(failing, {}, mean_outcome(outcome), generator=generator())
    assert found.pool.effect is not None
    assert found.pool.effect.value == 3.0
    half = 1.959964 * math.sqrt((4 + 1 + 0 + 9) / 16)
    assert found.pool.effect.high - 3.0 == pytest.approx(half, rel=1e-6)
    same, wider = found.left_out[0].effect_change, found.left_out[1].effect_change
    assert same is not None
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert wider is not None
    assert wider.value == pytest.approx(4.2 - 3.0)
    own, other = (outcome[:4] - 3.0) / 4, (outcome[:5] - 4.2) / 5
    influence = other - np.append(own, 0.0)
    assert wider.high - wider.value == pytest.approx(1.959964 * math.sqrt((influence**2).sum()), rel=1e-6)


def test_the_interval_of_a_change_covers_as_often_as_it_says() -> None:
    """Those whom b excludes have an effect of 2, the others of 1: leaving out b moves 1 to 1.5."""
    rng = np.random.default_rng(5)
    failing = masks(*[[0]] * 200, *[[0b1]] * 200, labels=["b"])
    covered, naive, trials = 0, 0, 300
    for _ in range(trials):
        arm = rng.random(400) < 0.5
        outcome = rng.normal(size=400) + arm * np.repeat([1.0, 2.0], 200)
        found = what_if(failing, {}, difference_in_means(outcome, arm), generator=generator(), num_resamples=100)
        change, before, after = found.left_out[0].effect_change, found.pool.effect, found.left_out[0].pool.effect
        assert change is not None
        assert before is not None
        assert after is not None
        covered += change.low <= 0.5 <= change.high
        half = math.hypot(before.high - before.value, after.high - after.value)  # as if the pools were apart
        naive += abs(change.value - 0.5) <= half
    assert 0.92 < covered / trials < 0.98
    assert naive / trials > 0.98


def test_hazard_ratios() -> None:
    rng = np.random.default_rng(2)
    arm, months, event = rng.random(120) < 0.5, rng.exponential(10, 120), rng.random(120) < 0.7
    failing = masks(*[[0]] * 100, *[[0b1]] * 20, labels=["b"])
    found = what_if(failing, {}, log_hazard_ratio(months, event, arm), generator=generator())
    model = cox_model(months[:100], event[:100], arm[:100].astype(float), cluster=np.arange(100))
    assert found.pool.effect is not None
    assert found.pool.effect.value == pytest.approx(model.coefficients[0])
    assert found.pool.effect.high - found.pool.effect.value == pytest.approx(1.959964 * model.standard_errors[0])
    none = what_if(failing, {}, log_hazard_ratio(months, np.zeros(120, dtype=bool), arm), generator=generator())
    assert none.pool.effect is None
    assert none.left_out[0].effect_change is None


def test_nobody_is_eligible() -> None:
    failing = masks([0b001], [0b010])
    division = {"x": Division(["all"], np.zeros(2, dtype=np.int64))}
    found = what_if(failing, division, mean_outcome(np.ones(2)), generator=generator())
    assert (found.pool.size, found.pool.effect) == (0, None)
    assert math.isnan(found.pool.share("x", "all"))
    assert [row.gained for row in found.left_out] == [1, 1, 0]


def test_an_event_rate_by_hand() -> None:
    """3 events in 20 months; the jackknife's variance is that of the ratio estimator."""
    time, event = np.array([2.0, 4.0, 6.0, 8.0]), np.array([True, False, True, True])
    found = event_rate(time, event)(np.arange(4))
    assert found.value == pytest.approx(0.15)
    assert found.influence.tolist() == pytest.approx([0.035, -0.03, 0.005, -0.01])
    assert math.isnan(event_rate(time, event)(np.array([1])).value)


def test_shares_have_exact_intervals() -> None:
    """5 of 10 subjects are eligible, 1 of them a woman: Clopper and Pearson's limits."""
    failing = masks(*[[0]] * 5, *[[0b1]] * 5, labels=["a"])
    division = {"sex": Division(["F", "M"], np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=np.int64))}
    found = what_if(failing, division, generator=generator())
    pool, women = found.pool.of_candidates, found.pool.shares["sex"]["F"]
    assert (pool.value, women.value, women.method) == (0.5, 0.2, "exact")
    assert [pool.low, pool.high] == pytest.approx([0.1871, 0.8129], abs=1e-4)
    assert [women.low, women.high] == pytest.approx([0.0051, 0.7164], abs=1e-4)
    gained = found.left_out[0].gained_share
    assert (gained.value, gained.low) == (0.5, pool.low)
    change = found.left_out[0].share_changes["sex"]["F"]
    assert change.value == pytest.approx(0.4)
    assert change.low < 0.4 < change.high
    with pytest.raises(ValueError, match="num_resamples must be 100 or more"):
        what_if(failing, division, generator=generator(), num_resamples=99)


def test_intervals_of_changes_and_of_shapleys_values_cover_as_often_as_they_say() -> None:
    """Cohorts of 150 patients; of both, the truth is that of the population they come from.

    Negative control: that the value of the very cohort is known exactly, as counting says, covers the truth rarely.
    """
    chance, masks_of, woman = [0.4, 0.2, 0.15, 0.25], [[0], [0b01], [0b10], [0b11]], [0.3, 0.6, 0.5, 0.4]
    value = 150 * (0.2 + 0.25 / 2)
    change = (0.4 * 0.3 + 0.2 * 0.6) / 0.6 - 0.3
    rng, trials, covered, apart = np.random.default_rng(7), 120, np.zeros(2), 0
    for _ in range(trials):
        kind = rng.choice(4, 150, p=chance)
        sex = (rng.random(150) > np.array(woman)[kind]).astype(np.int64)
        failing = masks(*(masks_of[k] for k in kind), labels=["a", "b"])
        one = what_if(failing, {"sex": Division(["F", "M"], sex)}, generator=rng, num_resamples=200).left_out[0]
        own, women = one.contribution, one.share_changes["sex"]["F"]
        covered += [own.low <= value <= own.high, women.low <= change <= women.high]
        apart += abs(own.value - value) < 0.5
    assert ((covered / trials > 0.90) & (covered / trials < 0.985)).all()
    assert apart / trials < 0.2


def test_who_enters_when_a_criterion_is_left_out() -> None:
    """Subject 1 is eligible at the second visit, 2 lacks the value at both, 3 is also too young."""
    who = cohort(
        [
            subject(1, visit(1, 0), visit(1, 30), lab(1, 20, 7.0)),
            subject(2, visit(2, 10), visit(2, 40), sex="M"),
            subject(3, visit(3, 0), born_years_ago=12.0),
        ]
    )
    found = near_entries(who, IndexDay(), statements("age >= 18 & hba1c > 6"))
    days = who.encounters.day[np.searchsorted(who.encounters.subject, [0, 1])] + [30, 0]
    assert found.subject.tolist() == [0, 1]
    assert found.day.tolist() == days.tolist()
