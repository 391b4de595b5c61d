from __future__ import annotations

from datetime import datetime

import pytest

from medtwin.check import Rule, rules_from
from medtwin.check.gates import exact_interval, is_broken
from medtwin.check.plausibility import RuleCounter, rule_rows
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table

BORN, DIED = datetime(1950, 5, 1), datetime(2020, 3, 4)


def person(subject: int, *events: Event, sex: str = "M", died: datetime | None = DIED) -> list[Event]:
    facts = [Event(subject, None, f"GENDER//{sex}"), Event(subject, BORN, "MEDS_BIRTH")]
    return [*facts, *events, *([Event(subject, died, "MEDS_DEATH")] if died else [])]


def counted(rule: Rule, *events: Event) -> int:
    counter = RuleCounter([rule])
    counter.look(events_to_table(events))
    return counter.count(rule)


def rule(kind: str, **more: object) -> Rule:
    return Rule("r", kind, "r", "somewhere", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time", "died", "count"),
    [
        (datetime(2020, 3, 4, 23, 0), DIED, 0),  # the day of a death known by its day
        (datetime(2020, 3, 5, 0, 0, 1), DIED, 1),
        (datetime(2020, 3, 4, 12, 0), datetime(2020, 3, 4, 11, 0), 1),
        (datetime(2020, 3, 4, 11, 0), datetime(2020, 3, 4, 11, 0), 0),
        (datetime(2030, 1, 1), None, 0),
    ],
)
def test_after_death(time: datetime, died: datetime | None, count: int) -> None:
    events = person(1, Event(1, time, "LOINC//2160-0"), died=died)
    assert counted(rule("after-death"), *events) == count
    assert counted(rule("after-death"), *person(1, Event(1, time, "FHIR//x.y"), died=died)) == 0


def test_before_birth_and_ends_before_start() -> None:
    early = Event(1, datetime(1950, 4, 30), "A")
    assert counted(rule("before-birth"), *person(1, early, early), *person(2)) == 1  # a subject counts once
    assert counted(rule("before-birth"), *person(1, Event(1, BORN, "A"))) == 0
    assert counted(rule("ends-before-start"), Event(1, DIED, "A", end_time=BORN)) == 1
    assert counted(rule("ends-before-start"), Event(1, DIED, "A", end_time=DIED), Event(1, DIED, "B")) == 0


def test_codes_of_one_sex_match_whole_or_by_their_beginning() -> None:
    men = rule("not-of-sex", sex="M", codes=("SNOMED//72892002", "ICD10CM//O*"))
    for code, count in (("SNOMED//72892002", 1), ("ICD10CM//O80", 1), ("SNOMED//728920021", 0), ("ICD10CM//N40", 0)):
        assert counted(men, *person(1, Event(1, DIED, code))) == count
        assert counted(men, *person(1, Event(1, DIED, code), sex="F")) == 0


def test_an_event_id_that_stands_twice_is_found_across_shards() -> None:
    twice = rule("duplicate-event")
    counter = RuleCounter([twice])
    for subject in (1, 2):
        counter.look(events_to_table([Event(subject, DIED, "A", event_id="e1"), Event(subject, DIED, "B")]))
    assert counter.count(twice) == 1


def test_twins_may_break_a_rule_as_often_as_real_subjects_do() -> None:
    one = rule("before-birth")
    early = datetime(1900, 1, 1)

    def side(num_broken: int) -> RuleCounter:
        counter = RuleCounter([one])
        people = [person(i, *([Event(i, early, "A")] if i < num_broken else [])) for i in range(100)]
        counter.look(events_to_table(event for events in people for event in events))
        return counter

    for num_real, num_twins, broken in ((0, 0, False), (0, 1, True), (5, 5, False), (5, 11, False), (5, 12, True)):
        row = rule_rows([one], side(num_real), side(num_twins))[0]
        assert (row.num_real, row.num_synthetic) == (num_real, num_twins)
        assert is_broken(row) is broken, (num_real, num_twins)
    assert exact_interval(5, 100)[1] == pytest.approx(0.1128, abs=1e-4)  # Clopper-Pearson, R binom.test


def test_rules_say_where_they_come_from() -> None:
    with pytest.raises(ConfigError, match="source must say"):
        Rule("r", "after-death", "r", " ")
    with pytest.raises(ConfigError, match="kind must be one of"):
        rules_from({"r": {"kind": "never", "title": "r", "source": "x"}})
    with pytest.raises(ConfigError, match="needs sex"):
        rules_from({"r": {"kind": "not-of-sex", "title": "r", "source": "x", "codes": ["A"]}})
    with pytest.raises(ConfigError, match=r"rule r: .*'scource'"):
        rules_from({"r": {"kind": "after-death", "title": "r", "scource": "x"}})
