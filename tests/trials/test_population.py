from __future__ import annotations

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials.outcome.endpoint import Endpoint, follow_up
from medtwin.trials.population.cohort import NEVER
from medtwin.trials.population.criteria import (
    Age,
    AttritionRow,
    FollowUp,
    Has,
    HasNot,
    IndexDay,
    Lab,
    LatestValue,
    Sex,
    baseline,
    find_eligible,
)
from tests.trials.samples import DIABETES, E11, FAILURE, HBA1C, cohort, death, has, lab, subject, visit

DAY_0 = 18262  # 2020-01-01
DAYS_PER_MONTH = 365.25 / 12


def entry_days(*args: object) -> dict[int, int]:
    who, index, criteria = args
    found = find_eligible(who, index, criteria)  # type: ignore[arg-type]
    ids = who.subject_id[found.entry.subject]  # type: ignore[attr-defined]
    return {int(number): int(day) - DAY_0 for number, day in zip(ids, found.entry.day, strict=True)}


def test_attrition_is_counted_criterion_by_criterion() -> None:
    who = cohort(
        [
            subject(1, visit(1, 0), has(1, 0), lab(1, 0, 7.0), visit(1, 400)),
            subject(2, visit(2, 0), born_years_ago=12.0),
            subject(3, visit(3, 0), visit(3, 400)),
            subject(4, visit(4, 0), has(4, 0), lab(4, 0, 12.0), visit(4, 100)),
            subject(5, visit(5, 0), has(5, 0), visit(5, 100)),
            subject(6, visit(6, 0), has(6, 0), lab(6, 0, 7.0)),
            subject(7, has(7, 0)),
        ]
    )
    criteria = [Age(18), Has([DIABETES], name="diabetes"), LatestValue([HBA1C], maximum=10, unit="%"), FollowUp(30)]
    found = find_eligible(who, IndexDay(), criteria)
    assert list(found.attrition) == [
        AttritionRow("subjects in the cohort", 7, 0, 0),
        AttritionRow("has a day with an encounter after birth", 6, 1, 0),
        AttritionRow("age 18 or more years", 5, 1, 0),
        AttritionRow("has diabetes", 4, 1, 0),
        AttritionRow(f"{HBA1C} <= 10 % within 365 days", 2, 2, 1),
        AttritionRow("alive, and followed up for 30 days or until death", 1, 1, 0),
    ]
    assert who.subject_id[found.entry.subject].tolist() == [1]


def test_a_subject_enters_on_the_first_day_on_which_all_hold() -> None:
    who = cohort([subject(1, visit(1, 0), has(1, 10), visit(1, 20), lab(1, 30, 7.0), visit(1, 40), visit(1, 50))])
    criteria = [Has([DIABETES]), LatestValue([HBA1C], unit="%")]
    assert entry_days(who, IndexDay(), criteria) == {1: 40}
    assert entry_days(who, IndexDay(visits="any"), criteria) == {1: 30}
    assert entry_days(who, IndexDay(codes=[DIABETES]), [Age()]) == {1: 10}
    with pytest.raises(ConfigError, match="nobody is eligible: 'has SNOMED//44054006' left 0 of 1; 1 after"):
        find_eligible(who, IndexDay(first_only=True), criteria)


def test_what_is_known_of_a_day_includes_all_of_it() -> None:
    who = cohort([subject(1, visit(1, 0), lab(1, 0.9, 7.0), visit(1, 5))])
    assert entry_days(who, IndexDay(), [LatestValue([HBA1C], minimum=6.5, unit="%")]) == {1: 0}


def test_the_window_counts_days_back() -> None:
    who = cohort([subject(1, lab(1, 0, 7.0), visit(1, 30), visit(1, 31))])
    at = [LatestValue([HBA1C], unit="%", window_days=30)]
    assert entry_days(who, IndexDay(), at) == {1: 30}
    with pytest.raises(ConfigError, match=r"1 lacked the data"):
        find_eligible(who, IndexDay(), [LatestValue([HBA1C], unit="%", window_days=29)])


def test_the_latest_value_counts_not_the_best() -> None:
    who = cohort([subject(1, lab(1, 0, 7.0), lab(1, 10, 12.0), lab(1, 20, None), visit(1, 30))])
    with pytest.raises(ConfigError, match="nobody is eligible"):
        find_eligible(who, IndexDay(), [LatestValue([HBA1C], maximum=10, unit="%")])


def test_units_are_converted_or_the_value_is_unknown() -> None:
    """0.07 (a fraction, UCUM 1) is 7 %; 53 mmol/mol is no percentage of mass; no unit is taken as the criterion's."""
    who = cohort(
        [
            subject(1, lab(1, 0, 0.07, "1"), visit(1, 1)),
            subject(2, lab(2, 0, 53.0, "mg"), visit(2, 1)),
            subject(3, lab(3, 0, 7.0, None), visit(3, 1)),
        ]
    )
    found = find_eligible(who, IndexDay(), [LatestValue([HBA1C], minimum=6.9, maximum=7.1, unit="%")])
    assert who.subject_id[found.entry.subject].tolist() == [1, 3]
    assert found.attrition[-1].not_evaluable == 1


def test_a_parent_code_stands_for_those_below_it() -> None:
    who = cohort([subject(1, has(1, 0), visit(1, 1)), subject(2, visit(2, 1))])
    assert entry_days(who, IndexDay(), [Has([E11])]) == {1: 1}
    assert entry_days(who, IndexDay(), [HasNot([E11])]) == {2: 1}


def test_negated_events_are_not_events() -> None:
    who = cohort([subject(1, has(1, 0, f"NEGATED//{DIABETES}"), visit(1, 1))])
    assert entry_days(who, IndexDay(), [HasNot([DIABETES])]) == {1: 1}


def test_sex_age_and_births_that_are_unknown() -> None:
    who = cohort(
        [subject(1, visit(1, 0), sex="M"), subject(2, visit(2, 0), born_years_ago=None), subject(3, visit(3, 0))]
    )
    assert entry_days(who, IndexDay(), [Sex("F")]) == {2: 0, 3: 0}
    found = find_eligible(who, IndexDay(), [Age(50, 50)])
    assert who.subject_id[found.entry.subject].tolist() == [1, 3]
    assert found.attrition[-1] == AttritionRow("age 50 to 50 years", 2, 1, 1)
    with pytest.raises(ConfigError, match="'age 51 or more years' left 0 of 3"):
        find_eligible(who, IndexDay(), [Age(51)])


def test_the_dead_do_not_enter_and_death_is_follow_up() -> None:
    who = cohort([subject(1, visit(1, 0), death(1, 0)), subject(2, visit(2, 0), death(2, 3)), subject(3, visit(3, 0))])
    assert entry_days(who, IndexDay(), [FollowUp(30)]) == {2: 0}


def test_an_unknown_code_names_the_nearest() -> None:
    who = cohort([subject(1, has(1, 0), visit(1, 1))])
    with pytest.raises(ConfigError, match=r"no SNOMED//44054007; did you mean SNOMED//44054006 \(Diabetes mellitus"):
        find_eligible(who, IndexDay(), [Has(["SNOMED//44054007"])])
    with pytest.raises(ConfigError, match=r"did you mean SNOMED//84114007 \(Heart failure"):
        find_eligible(who, IndexDay(), [LatestValue(["LOCAL//heart failure"])])
    with pytest.raises(ConfigError, match="index: the cohort has no"):
        find_eligible(who, IndexDay(codes=["X//1"]), [])


def test_events_after_death_and_before_birth_are_no_days_of_entry() -> None:
    who = cohort([subject(1, visit(1, -20000), visit(1, 5), death(1, 4), visit(1, 2))])
    assert entry_days(who, IndexDay(), []) == {1: 2}


def test_baseline_covariates() -> None:
    who = cohort([subject(1, lab(1, 0, 7.0), visit(1, 1)), subject(2, visit(2, 1), sex="M", born_years_ago=40.0)])
    found = find_eligible(who, IndexDay(), [])
    table = baseline(who, found.entry, [Lab("hba1c", [HBA1C], "%")])
    assert table.names == ("age_years", "is_female", "hba1c")
    np.testing.assert_allclose(table.values, [[50.003, 1, 7.0], [40.003, 0, np.nan]], atol=3e-3)
    np.testing.assert_allclose(table.imputed()[:, 2], [7.0, 7.0])


def test_follow_up_ends_with_the_endpoint_death_or_the_record() -> None:
    who = cohort(
        [
            subject(1, visit(1, 0), has(1, 100, FAILURE), has(1, 200, FAILURE)),
            subject(2, visit(2, 0), death(2, 300)),
            subject(3, visit(3, 0), visit(3, 50)),
            subject(4, has(4, -10, FAILURE), visit(4, 0), visit(4, 50)),
        ]
    )
    entry = find_eligible(who, IndexDay(), []).entry
    both = follow_up(who, entry, Endpoint("death or failure", [FAILURE]))
    np.testing.assert_allclose(both.months * DAYS_PER_MONTH, [100, 300, 50, 50])
    assert both.event.tolist() == [True, True, False, False]
    alone = follow_up(who, entry, Endpoint("failure", [FAILURE], death=False))
    assert alone.event.tolist() == [True, False, False, False]
    assert alone.months[1] * DAYS_PER_MONTH == pytest.approx(300)
    assert follow_up(who, entry, Endpoint()).event.tolist() == [False, True, False, False]


def test_a_horizon_takes_those_who_left_alive_as_free_of_the_event_until_then() -> None:
    who = cohort(
        [subject(1, visit(1, 0)), subject(2, visit(2, 0), death(2, 20)), subject(3, visit(3, 0), death(3, 99))]
    )
    entry = find_eligible(who, IndexDay(), []).entry
    found = follow_up(who, entry, Endpoint(horizon_months=1.0))
    np.testing.assert_allclose(found.months, [1.0, 20 / DAYS_PER_MONTH, 1.0])
    assert found.event.tolist() == [False, True, False]


def test_what_makes_no_criterion_is_refused() -> None:
    for call, message in (
        (lambda: Has("SNOMED//1"), "must be a list"),
        (lambda: Has([]), "must be a list"),
        (lambda: LatestValue(["a"], minimum=2, maximum=1), "at most maximum"),
        (lambda: LatestValue(["a"], window_days=-1), "0 or more"),
        (lambda: Age(-1), "0 or more"),
        (lambda: Sex("x"), "must be F or M"),
        (lambda: FollowUp(0), "1 or more"),
        (lambda: Endpoint(codes=[], death=False), "needs codes"),
        (lambda: Endpoint(horizon_months=0), "above 0"),
        (lambda: IndexDay(visits="never"), "must be encounter or any"),
    ):
        with pytest.raises(ValueError, match=message):
            call()  # type: ignore[no-untyped-call]


def test_a_cohort_in_shards_is_the_same_as_in_one() -> None:
    people = [subject(n, visit(n, n), has(n, n), lab(n, n, 6.0 + n, "%"), death(n, 100 + n)) for n in range(1, 6)]
    split, whole = cohort(people), cohort([[event for rows in people for event in rows]])
    assert split.death.tolist() == whole.death.tolist()
    assert (split.last != NEVER).all()
    for name in (DIABETES, HBA1C):
        np.testing.assert_array_equal(split.rows_of([name]).value, whole.rows_of([name]).value)
        np.testing.assert_array_equal(split.rows_of([name]).subject, whole.rows_of([name]).subject)
