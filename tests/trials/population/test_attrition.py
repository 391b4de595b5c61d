from __future__ import annotations

import numpy as np
import pytest

from medtwin.core.events import Event
from medtwin.trials.population.attrition import (
    Consort,
    Division,
    GroupRow,
    attrition_by_group,
    consort,
    days_of_reference,
    demographics,
)
from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import AttritionRow, IndexDay, follow_flow
from medtwin.trials.population.evaluation import statements
from tests.trials.samples import cohort, has, lab, subject, visit


def race(number: int, code: str) -> Event:
    return Event(number, None, f"RACE//{code}", resource="Patient")


def people() -> Cohort:
    return cohort(
        [
            [race(1, "2106-3"), *subject(1, visit(1, 0), lab(1, 0, 7.0))],
            subject(2, visit(2, 0), born_years_ago=12.0, sex="M"),
            [race(3, "2106-3"), race(3, "2054-5"), *subject(3, visit(3, 0), visit(3, 400))],
            subject(4, visit(4, 0), lab(4, 0, 12.0), sex="M"),
            subject(5, visit(5, 0), lab(5, 0, 12.0), visit(5, 9), lab(5, 8, 50.0, "mg"), born_years_ago=80.0),
            [race(6, "UNK"), *subject(6, has(6, 0), born_years_ago=None, sex="U")],
        ]
    )


CRITERIA = statements("age >= 18 & hba1c[-30d:] <= 10")


def test_each_subject_is_assessed_until_it_is_excluded() -> None:
    """Subject 5 fails on its first day and is not evaluable on its second: it may be eligible for all that is known."""
    found = follow_flow(people(), IndexDay(), CRITERIA)
    assert list(found.attrition) == [
        AttritionRow("subjects in the cohort", 6, 0, 0),
        AttritionRow("has a day with an encounter after birth", 5, 1, 0),
        AttritionRow("age >= 18", 4, 1, 0),
        AttritionRow("hba1c[-30d:] <= 10 %", 1, 3, 2),
    ]
    assert [(row.assessed, row.fails) for row in found.attrition] == [(6, 0), (6, 1), (5, 1), (4, 1)]
    assert found.left_at.tolist() == [0, 2, 3, 3, 3, 1]
    assert found.is_unknown.tolist() == [False, False, True, False, True, False]


def test_the_flow_goes_on_without_subjects() -> None:
    found = follow_flow(people(), IndexDay(), statements("age > 100 & hba1c > 0"))
    assert [row.remaining for row in found.attrition] == [6, 5, 0, 0]
    assert len(found.entry.day) == 0


def test_consort() -> None:
    flow = consort(follow_flow(people(), IndexDay(), CRITERIA).attrition)
    assert flow == Consort(
        6,
        1,
        5,
        3,
        2,
        [("has a day with an encounter after birth", 1, 0), ("age >= 18", 1, 0), ("hba1c[-30d:] <= 10 %", 1, 2)],
    )
    assert str(flow).splitlines() == [
        "Assessed for eligibility (n = 6)",
        "Excluded (n = 5)",
        "  has a day with an encounter after birth: not met 1",
        "  age >= 18: not met 1",
        "  hba1c[-30d:] <= 10 %: not met 1, not evaluable 2",
        "Eligible (n = 1)",
    ]
    with pytest.raises(ValueError, match="attrition must have a row"):
        consort([])


def test_demographics() -> None:
    who = people()
    day = days_of_reference(who, IndexDay(), follow_flow(who, IndexDay(), CRITERIA).entry)
    groups = demographics(who, day)
    everybody = np.ones(6, dtype=np.bool_)
    assert groups["sex"].counts(everybody) == {"F": 3, "M": 2, "unknown": 1}
    bands = {"below 18": 1, "18 to 39": 0, "40 to 64": 3, "65 to 74": 0, "75 and over": 1, "unknown": 1}
    assert groups["age"].counts(everybody) == bands
    assert groups["race"].counts(everybody) == {"several": 1, "white": 1, "unknown": 4}
    assert demographics(who, day, [50])["age"].counts(everybody) == {
        "below 50": 1,
        "50 and over": 4,
        "unknown": 1,
    }
    with pytest.raises(ValueError, match="age_bands must increase"):
        demographics(who, day, [65, 18])
    with pytest.raises(ValueError, match="number must be that of a label"):
        Division(["a"], np.array([1]))


def test_age_is_that_at_entry_or_on_the_last_day_that_was_possible() -> None:
    """Subject 1 enters at 18, 2 never has the value and is last seen at 20, 3 has no visit."""
    years = 365.25
    who = cohort(
        [
            subject(1, visit(1, 0), lab(1, years, 7.0), visit(1, years), visit(1, 9 * years), born_years_ago=17.0),
            subject(2, visit(2, 0), visit(2, 3 * years), lab(2, 5 * years, 7.0), born_years_ago=17.0),
            subject(3, has(3, -years), has(3, 0), born_years_ago=17.5),
        ]
    )
    found = follow_flow(who, IndexDay(), CRITERIA)
    day = days_of_reference(who, IndexDay(), found.entry)
    assert ((day - who.birth) / years).round(1).tolist() == [18.0, 20.0, 17.5]
    assert demographics(who, day)["age"].number.tolist() == [1, 1, 0]


def test_groups_add_up_to_all() -> None:
    who = people()
    found = follow_flow(who, IndexDay(), CRITERIA)
    rows = attrition_by_group(found, demographics(who, days_of_reference(who, IndexDay(), found.entry)))
    assert [row for row in rows if (row.division, row.group) == ("sex", "F")] == [
        GroupRow("sex", "F", "subjects in the cohort", 3, 0, 0, 3),
        GroupRow("sex", "F", "has a day with an encounter after birth", 3, 0, 0, 3),
        GroupRow("sex", "F", "age >= 18", 3, 0, 0, 3),
        GroupRow("sex", "F", "hba1c[-30d:] <= 10 %", 3, 0, 2, 1),
    ]
    for division in ("sex", "age", "race"):
        for line in found.attrition:
            here = [row for row in rows if row.division == division and row.criterion == line.criterion]
            assert sum(row.assessed for row in here) == line.assessed
            assert sum(row.fails for row in here) == line.fails
            assert sum(row.not_evaluable for row in here) == line.not_evaluable
            assert sum(row.remaining for row in here) == line.remaining
