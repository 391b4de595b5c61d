from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import fisher_exact

from medtwin.check import Rule
from medtwin.check.findings import RuleRow
from medtwin.check.plausibility import RuleCounter, Tally, event_share_high, rule_rows, share_high
from medtwin.check.rules import Range
from medtwin.core.events import EVENT_SCHEMA, Event, events_to_table

BORN, DIED = datetime(1950, 5, 1), datetime(2020, 3, 4)
NOON = datetime(2010, 6, 1, 12)


def person(subject: int, *events: Event, sex: str = "M", died: datetime | None = DIED) -> list[Event]:
    facts = [Event(subject, None, f"GENDER//{sex}"), Event(subject, BORN, "MEDS_BIRTH")]
    return [*facts, *events, *([Event(subject, died, "MEDS_DEATH")] if died else [])]


def tally(one: Rule, *events: Event) -> Tally:
    counter = RuleCounter([one])
    counter.look(events_to_table(events))
    return counter.tally(one)


def counted(one: Rule, *events: Event) -> int:
    return tally(one, *events).broken_subjects


def items(one: Rule, *events: Event) -> tuple[int, int]:
    """Items that break a rule, and items that it applies to."""
    found = tally(one, *events)
    return found.broken_events, found.events


def rule(kind: str, **more: object) -> Rule:
    return Rule("r", kind, "r", "somewhere", **more)  # type: ignore[arg-type]


def at(code: str, *, days: float = 0, hours: float = 0, subject: int = 1, **more: object) -> Event:
    return Event(subject, NOON + timedelta(days=days, hours=hours), code, **more)  # type: ignore[arg-type]


# Each kind by hand: a record that breaks it and one that does not.


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
    assert items(rule("after-death"), *events)[1] == (died is not None)
    assert counted(rule("after-death"), *person(1, Event(1, time, "FHIR//x.y"), died=died)) == 0
    assert counted(rule("after-death", tolerance_hours=2), *events) == 0
    assert counted(rule("after-death", codes=("SNOMED//*",)), *events) == 0
    assert counted(rule("after-death", except_codes=("LOINC//2160-0",)), *events) == 0


def test_a_date_of_death_ends_by_the_clock_of_the_place() -> None:
    """MIMIC's dates of death have no offset, its instants do: 23:30 in New York is 03:30 UTC of the next day."""
    last = Event(1, datetime(2020, 3, 5, 3, 30), "A", time_precision="second-04:00")
    assert counted(rule("after-death"), *person(1, last)) == 0
    assert counted(rule("after-death"), *person(1, Event(1, last.time, "A", time_precision="second+00:00"))) == 1
    instant = Event(1, datetime(2020, 3, 5, 3), "MEDS_DEATH", time_precision="second-04:00")
    assert counted(rule("after-death"), last, instant) == 1


def test_before_birth_and_ends_before_start() -> None:
    early = Event(1, datetime(1950, 4, 30), "A")
    assert counted(rule("before-birth"), *person(1, early, early), *person(2)) == 1  # a subject counts once
    assert items(rule("before-birth"), *person(1, early, early)) == (2, 2)
    assert counted(rule("before-birth"), *person(1, Event(1, BORN, "A"))) == 0
    assert counted(rule("before-birth"), *person(1, Event(1, datetime(1950, 1, 1), "A", time_precision="year"))) == 0
    assert counted(rule("before-birth"), *person(1, Event(1, datetime(1949, 1, 1), "A", time_precision="year"))) == 1
    assert counted(rule("ends-before-start"), Event(1, DIED, "A", end_time=BORN)) == 1
    assert items(rule("ends-before-start"), Event(1, DIED, "A", end_time=DIED), Event(1, DIED, "B")) == (0, 1)


def test_codes_of_one_sex_match_whole_or_by_their_beginning() -> None:
    men = rule("not-of-sex", sex="M", codes=("SNOMED//72892002", "ICD10CM//O*"))
    for code, count in (("SNOMED//72892002", 1), ("ICD10CM//O80", 1), ("SNOMED//728920021", 0), ("ICD10CM//N40", 0)):
        assert counted(men, *person(1, Event(1, DIED, code))) == count
        assert counted(men, *person(1, Event(1, DIED, code), sex="F")) == 0
        assert counted(men, *person(1, Event(1, DIED, f"NEGATED//{code}"))) == 0
        assert items(men, *person(1, Event(1, DIED, code), sex="U")) == (0, 0)


def test_age_at_onset() -> None:
    birth = Event(1, NOON - timedelta(days=365.25 * 30), "MEDS_BIRTH")
    onset = rule("age-at-onset", codes=("A",), ages=(20, 40))
    for days, broken in ((0, 0), (365.25 * 9.9, 0), (365.25 * 10.1, 1), (-365.25 * 9.9, 0), (-365.25 * 10.1, 1)):
        assert items(onset, birth, at("A", days=days)) == (broken, 1), days
    late = [birth, at("A"), at("A", days=365.25 * 30)]
    assert items(onset, *late) == (0, 1)  # the onset counts
    assert items(rule("age-at-onset", codes=("A",), ages=(20, 40), events="every"), *late) == (1, 2)
    assert items(rule("age-at-onset", codes=("A",), ages=(None, 40)), birth, at("A", days=-9000)) == (0, 1)
    assert items(onset, at("A")) == (0, 0)  # birth unknown


def test_outside_encounter() -> None:
    stay = at("E", encounter_id="e", event_id="e", resource="Encounter", end_time=NOON + timedelta(hours=8))
    inside = rule("outside-encounter")

    def lab(hours: float, **more: object) -> Event:
        return at("L", hours=hours, encounter_id="e", resource="Observation", **more)

    for hours, broken in ((0, 0), (8, 0), (8.1, 1), (-0.1, 1)):
        assert items(inside, stay, lab(hours)) == (broken, 1), hours
        assert items(rule("outside-encounter", tolerance_hours=1), stay, lab(hours)) == (0, 1)
        assert items(rule("outside-encounter", resources=("Procedure",)), stay, lab(hours)) == (0, 0)
    assert items(inside, lab(9)) == (0, 0)  # the encounter is not there
    assert items(inside, at("E", encounter_id="e", event_id="e", resource="Encounter"), lab(999)) == (0, 1)  # open
    date = Event(1, datetime(2010, 6, 1), "L", encounter_id="e", time_precision="day", resource="Procedure")
    assert items(inside, stay, date) == (0, 1)  # some time that day
    yesterday = Event(1, datetime(2010, 5, 31), "L", encounter_id="e", time_precision="day", resource="Procedure")
    assert items(inside, stay, yesterday) == (1, 1)


def test_value_range_knows_units() -> None:
    one = rule(
        "value-range",
        ranges=(
            Range(("LOINC//8310-5", "T*"), ("Cel",), 13, 46.5),
            Range(("LOINC//8310-5",), ("[degF]",), 55, 116),
            Range(("P",), ("",), 6.3, 7.8),
        ),
    )
    for code, number, unit, broken in (
        ("LOINC//8310-5", 37, "Cel", 0),
        ("LOINC//8310-5", 98.6, "Cel", 1),
        ("LOINC//8310-5", 98.6, "[degF]", 0),
        ("LOINC//8310-5", 37, "[degF]", 1),
        ("T1", 46.5, "Cel", 0),
        ("P", 7.8, None, 0),  # the end itself, in float32
        ("P", 6.3, None, 0),
        ("P", 7.81, None, 1),
    ):
        assert items(one, at(code, numeric_value=number, unit=unit)) == (broken, 1), (code, number, unit)
    for code, unit in (("LOINC//8310-5", "K"), ("LOINC//8310-5", None), ("P", "[pH]"), ("T1", "[degF]")):
        found = tally(one, at(code, numeric_value=310, unit=unit))
        assert (found.broken_events, found.events, found.unknown) == (0, 0, 1)
    assert items(one, at("LOINC//8310-5", unit="Cel"), at("Q", numeric_value=9, unit="Cel")) == (0, 0)


def test_dose_range_reads_the_details_of_an_event_or_its_own_number() -> None:
    one = rule("dose-range", ranges=(Range(("RXNORM//1",), ("mg",), 1, 80),))

    def order(number: float, unit: str = "mg", drug: str = "RXNORM//1") -> list[Event]:
        event = at(drug, event_id="o", resource="MedicationRequest")
        path = "dosageInstruction.doseAndRate.doseQuantity"
        return [event, event.child(path, numeric_value=number, unit=unit)]

    assert items(one, *order(80)) == (0, 1)
    assert items(one, *order(81)) == (1, 1)
    assert items(one, *order(0)) == (1, 1)
    assert items(one, *order(800, drug="RXNORM//2")) == (0, 0)
    assert tally(one, *order(0.08, "g")).unknown == 1
    assert items(one, at("RXNORM//1", numeric_value=90, unit="mg")) == (1, 1)
    other = at("RXNORM//1", event_id="o", resource="MedicationRequest")
    assert items(one, other, other.child("dosageInstruction.timing.repeat.period", numeric_value=900)) == (0, 0)


def test_needs_before() -> None:
    one = rule("needs-before", codes=("C*",), needs=("D", "E"))
    assert items(one, at("D"), at("C1")) == (0, 1)
    assert items(one, at("D", days=-1), at("C1"), at("C2", days=-2)) == (1, 2)
    assert items(one, at("D", days=1), at("C1")) == (1, 1)
    assert items(rule("needs-before", codes=("C1",), needs=("D",), slack_days=1), at("D", days=1), at("C1")) == (0, 1)
    assert items(one, at("D", subject=2), at("C1")) == (1, 1)
    assert items(one, at("NEGATED//D"), at("C1")) == (1, 1)
    assert items(one, Event(1, None, "E"), at("C1")) == (0, 1)  # known since ever
    assert items(one, Event(1, None, "C1"), at("E")) == (0, 1)


def test_a_rule_on_two_sets_of_codes_does_not_apply_where_one_is_never_used() -> None:
    one = rule("needs-before", codes=("C",), needs=("D",))
    assert not tally(one, at("C")).applies
    assert tally(one, at("C"), at("D", subject=2)).applies
    assert not tally(rule("contraindicated", codes=("drug",), against=("reason",)), at("reason")).applies
    assert not tally(rule("order", codes=("B",), after=("A",)), at("B")).applies


def test_contraindicated() -> None:
    one = rule("contraindicated", codes=("drug",), against=("reason",), within_days=2)
    for days, broken in ((0, 1), (2, 1), (2.1, 0), (-2, 1), (-2.1, 0)):
        assert items(one, at("reason"), at("drug", days=days)) == (broken, 1), days
    long = at("reason", end_time=NOON + timedelta(days=10))
    assert items(one, long, at("drug", days=12)) == (1, 1)
    assert items(one, long, at("drug", days=13)) == (0, 1)
    assert items(one, at("reason"), at("drug", days=-30, end_time=NOON - timedelta(days=1))) == (1, 1)
    assert items(one, at("reason"), at("drug", days=1, subject=2)) == (0, 1)
    assert items(one, at("reason"), at("NEGATED//drug")) == (0, 1)
    assert items(one, Event(1, None, "reason"), at("drug", days=999)) == (1, 1)
    # An earlier drug that lasts does not hide behind a later one that does not.
    drugs = [at("drug", days=-30, end_time=NOON), at("drug", days=-9)]
    assert items(one, at("reason"), *drugs) == (1, 1)


def test_contraindicated_only_by_what_was_known_before() -> None:
    one = rule("contraindicated", codes=("drug",), against=("allergy",), within_days=36525, against_first=True)
    assert items(one, at("allergy"), at("drug", days=-1)) == (0, 1)  # the drug that showed it
    assert items(one, at("allergy"), at("drug", days=-1), at("drug", days=400)) == (1, 1)
    assert items(one, Event(1, None, "allergy"), at("drug", days=-1)) == (1, 1)


def test_contraindicated_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)

    def interval(code: str, subject: int) -> Event:
        start = NOON + timedelta(days=int(rng.integers(300)))
        end = start + timedelta(days=int(rng.integers(1, 20))) if rng.random() < 0.5 else None
        return Event(subject, start, code, end_time=end)

    events = [interval(code, subject) for subject in range(40) for code in ("drug", "drug", "reason", "reason")]
    num_broken = 0
    for reason in (one for one in events if one.code == "reason"):
        drugs = [one for one in events if one.code == "drug" and one.subject_id == reason.subject_id]
        spans = [((one.time, one.end_time or one.time), (reason.time, reason.end_time or reason.time)) for one in drugs]
        slack = timedelta(days=5)
        num_broken += any(a[0] <= b[1] + slack and a[1] >= b[0] - slack for a, b in spans)  # type: ignore[operator]
    found = items(rule("contraindicated", codes=("drug",), against=("reason",), within_days=5), *events)
    assert found == (num_broken, 80)
    assert 5 < num_broken < 75


def test_order_and_once() -> None:
    order = rule("order", codes=("out*",), after=("in",))
    assert items(order, at("in"), at("out1", days=1), at("in", days=2), at("out2", days=3)) == (0, 2)
    assert items(order, at("in"), at("out1")) == (0, 1)
    assert items(order, at("in", days=1), at("out1")) == (1, 1)
    assert items(order, at("in"), at("out1", days=1), at("out2", days=2)) == (1, 2)
    assert items(order, at("in"), at("in"), at("out1", subject=2)) == (1, 1)
    once = rule("once", codes=("GENDER//*",))
    assert items(once, Event(1, None, "GENDER//M"), Event(2, None, "GENDER//F")) == (0, 2)
    assert items(once, Event(1, None, "GENDER//M"), Event(1, None, "GENDER//F")) == (1, 2)


def test_an_event_id_that_stands_twice_is_found_across_shards() -> None:
    twice = rule("duplicate-event")
    counter = RuleCounter([twice])
    for subject in (1, 2):
        counter.look(events_to_table([Event(subject, DIED, "A", event_id="e1"), Event(subject, DIED, "B")]))
    assert (counter.count(twice), counter.tally(twice).events, counter.tally(twice).broken_events) == (1, 2, 1)


def test_shards_add_up_and_their_order_of_rows_does_not_matter() -> None:
    rules = [rule("before-birth"), Rule("once", "once", "o", "s", codes=("A",))]
    early = datetime(1900, 1, 1)
    people = [person(i, Event(i, early, "A"), *([at("A", subject=i)] if i % 2 else [])) for i in range(6)]
    whole, parts = RuleCounter(rules), RuleCounter(rules)
    table = events_to_table(event for one in people for event in one)
    whole.look(table.take(pa.array(np.random.default_rng(0).permutation(len(table)))))
    for one in people:
        parts.look(events_to_table(one))
    for one, counts in zip(rules, ((6, 6, 9), (3, 3, 9)), strict=True):
        for counter in (whole, parts):
            found = counter.tally(one)
            assert (found.broken_subjects, found.broken_events, found.events) == counts
    ids = np.array([0, 1, 5])
    assert [side.tolist() for side in parts.counts(ids)] == [side.tolist() for side in whole.counts(ids)]
    assert parts.counts(ids)[1].tolist() == [[1, 0], [1, 1], [1, 1]]


def test_nothing_at_all_breaks_nothing() -> None:
    empty = EVENT_SCHEMA.empty_table()
    counter = RuleCounter([rule("after-death"), rule("duplicate-event")])
    counter.look(empty)
    assert [row.outcome for row in rule_rows(counter.rules, counter, counter)] == ["not_applicable"] * 2


# How often twins may break a rule.


@pytest.mark.parametrize(
    ("hits", "num_real", "num_twins", "tail"), [(5, 100, 100, 0.025), (0, 50, 80, 0.01), (7, 9, 30, 0.05)]
)
def test_the_limit_of_subjects_is_fishers_exact_test(hits: int, num_real: int, num_twins: int, tail: float) -> None:
    most = round(share_high(hits, num_real, num_twins, tail) * num_twins)
    p_values = [
        float(fisher_exact([[b, num_twins - b], [hits, num_real - hits]], alternative="greater")[1])
        for b in range(num_twins + 1)
    ]
    assert p_values[most] >= tail
    assert most == num_twins or p_values[most + 1] < tail


def test_the_variance_of_a_share_of_events_is_that_of_subjects() -> None:
    rng = np.random.default_rng(0)
    events = rng.integers(1, 30, 400)
    broken = rng.binomial(events, rng.beta(0.3, 3, 400))
    found = Tally(has_both=True)
    found.add_counts(events[:200], broken[:200])
    found.add_counts(events[200:], broken[200:])
    draws = rng.integers(400, size=(4000, 400))
    shares = broken[draws].sum(axis=1) / events[draws].sum(axis=1)
    assert found.event_share == pytest.approx(broken.sum() / events.sum())
    assert np.sqrt(found.event_variance) == pytest.approx(shares.std(), rel=0.08)
    few = Tally(has_both=True)
    few.add_counts(events[:9], broken[:9])
    assert event_share_high(found, few, 0.01) == 1


def side(one: Rule, num_broken: int, num: int = 100, events_each: int = 1) -> RuleCounter:
    """So many subjects, of whom some break the rule that nothing comes before birth, once each."""
    counter = RuleCounter([one])
    early = datetime(1900, 1, 1)
    people = [
        person(i, *([Event(i, early if i < num_broken and k == 0 else NOON, "A") for k in range(events_each)]))
        for i in range(num)
    ]
    counter.look(events_to_table(event for events in people for event in events))
    return counter


def row(one: Rule, real: RuleCounter, twins: RuleCounter) -> RuleRow:
    return rule_rows([one], real, twins)[0]


def test_no_twin_breaks_a_hard_rule_that_no_real_subject_breaks() -> None:
    hard, soft = rule("before-birth"), rule("before-birth", soft="1 of 100 somewhere")
    for num_twins, outcome in ((0, "kept"), (1, "broken")):
        found = row(hard, side(hard, 0), side(hard, num_twins))
        assert (found.outcome, found.num_real, found.num_synthetic) == (outcome, 0, num_twins)
        assert (found.real_share_high, found.applicable, found.events) == (0, (100, 100), (100, 100))
        assert row(soft, side(soft, 0), side(soft, num_twins)).outcome == "kept"
    assert row(soft, side(soft, 0), side(soft, 9)).outcome == "broken"


def test_twins_may_break_a_rule_as_often_as_real_subjects_do() -> None:
    one = rule("before-birth")
    for num_real, num_twins, outcome in ((5, 5, "kept"), (5, 12, "kept"), (5, 15, "broken"), (50, 60, "kept")):
        found = row(one, side(one, num_real), side(one, num_twins))
        assert found.outcome == outcome, (num_real, num_twins)
        assert (found.share_real, found.share_synthetic) == (num_real / 100, num_twins / 100)
    assert row(one, side(one, 5), side(one, 5)).real_share_high == 0.14  # R: fisher.test, one-sided, 0.025


def test_events_are_compared_too() -> None:
    """Everybody breaks the rule on both sides, real subjects once in 20 events, twins in all of them."""
    one = rule("before-birth", soft="everybody")
    real, twins = side(one, 40, 40, events_each=20), side(one, 40, 40, events_each=1)
    found = row(one, real, twins)
    assert (found.share_real, found.share_synthetic, found.real_share_high) == (1, 1, 1)
    assert found.event_shares == (0.05, 1)
    assert found.event_share_high == pytest.approx(0.05)
    assert found.outcome == "broken"
    assert row(one, real, real).outcome == "kept"


def test_a_rule_that_applies_to_nobody_never_passes() -> None:
    one = rule("not-of-sex", sex="M", codes=("P",))
    pregnant = RuleCounter([one])
    pregnant.look(events_to_table(person(1, Event(1, DIED, "P"), sex="F")))
    nobody = RuleCounter([one])
    nobody.look(events_to_table(person(1)))
    outcomes = [row(one, a, b).outcome for a, b in product((pregnant, nobody), repeat=2)]
    assert outcomes == ["kept", "untested", "kept", "not_applicable"]
    soft = rule("not-of-sex", sex="M", codes=("P",), soft="some")
    assert row(soft, nobody, pregnant).outcome == "untested"  # nothing to compare with


def test_the_codes_that_break_a_rule_are_named() -> None:
    one = rule("before-birth")
    early = [Event(1, datetime(1900, 1, 1), code) for code in "ABBCCCDDDD"]
    counter = RuleCounter([one])
    counter.look(events_to_table(person(1, *early)))
    assert row(one, counter, counter).detail == "D (4), C (3), B (2)"
