from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtwin.core.errors import ConfigError
from medtwin.core.events import Event
from medtwin.trials.population import evaluation
from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import Candidates, IndexDay
from medtwin.trials.population.evaluation import FALSE, NOT_EVALUABLE, TRUE, evaluate, statement
from medtwin.trials.population.language import parse
from medtwin.trials.population.propositions import And, Not, Or, Proposition, codes_of
from tests.trials.population.expressions import propositions
from tests.trials.population.slow_evaluation import EPOCH, Record
from tests.trials.samples import DAY_0, DIABETES, FAILURE, cohort, day, death, has, lab, subject, visit

START = (DAY_0 - EPOCH).days
SHOWN = {TRUE: "T", FALSE: "F", NOT_EVALUABLE: "?"}


def says(text: str, *events: Event, on: float = 0.0, **person: object) -> str:
    """What an expression says of one subject on a day: T, F or ?."""
    proposition = parse(text)
    who = cohort([subject(1, visit(1, -1000), *events, **person)], codes_of(proposition))  # type: ignore[arg-type]
    return ask(proposition, who, on)[0]


def ask(proposition: Proposition, who: Cohort, on: float) -> str:
    everybody = np.arange(len(who.subject_id))
    at = Candidates(everybody, np.full(len(everybody), START + int(on)))
    return "".join(SHOWN[truth] for truth in evaluate(proposition, who, at).tolist())


T, F, U = "age >= 0", "age > 200", "hba1c > 5"  # of a subject without a value that counts


def truth_of(text: str) -> str:
    return says(text, lab(1, -5, 7.0, "mg"))


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (T, T, "T", "T"),
        (T, F, "F", "T"),
        (T, U, "?", "T"),
        (F, F, "F", "F"),
        (F, U, "F", "?"),
        (U, U, "?", "?"),
    ],
)
def test_kleene_tables(left: str, right: str, both: str, either: str) -> None:
    for one, two in ((left, right), (right, left)):
        assert truth_of(f"{one} & {two}") == both
        assert truth_of(f"{one} | {two}") == either


def test_the_mirror_of_not_evaluable_is_itself() -> None:
    assert [truth_of(f"not {text}") for text in (T, F, U)] == ["F", "T", "?"]
    assert truth_of(f"{U} | not {U}") == "?"  # the record does not tell, though one of them must hold
    assert truth_of("hba1c != 5") == "?"


@pytest.mark.parametrize(
    ("on", "text", "expected"),
    [
        (30, "condition(SNOMED//44054006)[-30d:]", "T"),
        (31, "condition(SNOMED//44054006)[-30d:]", "F"),
        (31, "condition(SNOMED//44054006)[:]", "T"),
        (0, "condition(SNOMED//44054006)", "T"),  # what is known of a day includes all of it
        (-1, "condition(SNOMED//44054006)", "F"),  # the future is not known
        (0, "condition(SNOMED//44054006)[:-1d]", "F"),
        (1, "condition(SNOMED//44054006)[:-1d]", "T"),
        (730, "condition(SNOMED//44054006)[-2y:-30d]", "T"),
        (731, "condition(SNOMED//44054006)[-2y:-30d]", "F"),
        (30, "condition(SNOMED//44054006)[-2y:-30d]", "T"),
        (29, "condition(SNOMED//44054006)[-2y:-30d]", "F"),
        (30, "no condition(SNOMED//44054006)[-30d:]", "F"),
        (30, "no condition(SNOMED//44054006)[0d:]", "T"),
    ],
)
def test_both_ends_of_a_window_are_in_it(on: int, text: str, expected: str) -> None:
    assert says(text, has(1, 0), on=on) == expected


VALUES = [lab(1, -40, 9.0), lab(1, -20, 6.0), lab(1, -20, 8.0), lab(1, -10, None), lab(1, -5, 7.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hba1c = 7", "T"),
        ("last(hba1c) = 7", "T"),
        ("first(hba1c) = 9", "T"),
        ("min(hba1c) = 6", "T"),
        ("max(hba1c) = 9", "T"),
        ("max(hba1c[-39d:]) = 8", "T"),
        ("mean(hba1c) = 7.5", "T"),
        ("count(hba1c) = 4", "T"),  # a row without a number is no measurement
        ("days(hba1c) = 3", "T"),
        ("hba1c[:-6d] = 8", "T"),  # of two on one day the later in the record
        ("first(hba1c[-20d:]) = 6", "T"),
        ("hba1c[-4d:] > 5", "?"),
        ("min(hba1c[-4d:]) > 5", "?"),
        ("count(hba1c[-4d:]) = 0", "T"),
        ("days(hba1c[-4d:]) < 1", "T"),
        ("hba1c in {6, 7}", "T"),
        ("hba1c in {6, 8}", "F"),
        ("6.5 <= hba1c < 7", "F"),
        ("6.5 <= hba1c <= 7", "T"),
        ("count(event(LOINC//4548-4)) = 5", "T"),
    ],
)
def test_aggregates(text: str, expected: str) -> None:
    assert says(text, *VALUES) == expected


def test_units() -> None:
    fraction = lab(1, -1, 0.07, "1")
    assert says("hba1c = 7", fraction) == "T"
    assert says("hba1c <= 7 & hba1c >= 7", fraction) == "T"
    assert says("hba1c = 7", lab(1, -1, 7.0, None)) == "T"
    assert says("hba1c > 1", lab(1, -1, 53.0, "mg")) == "?"
    assert says("hba1c > 1", lab(1, -2, 8.0), lab(1, -1, 53.0, "mg")) == "?"  # the latest is not known in %
    assert says("max(hba1c) > 1", lab(1, -2, 8.0), lab(1, -1, 53.0, "mg")) == "?"
    assert says("count(hba1c) = 2", lab(1, -2, 8.0), lab(1, -1, 53.0, "mg")) == "T"
    assert says("value(LOINC//4548-4, 1) <= 0.07", lab(1, -1, 7.0)) == "T"


@pytest.mark.parametrize("number", [7.1, 1.1, 0.1, 8.4, 123.456, 33.3])
def test_a_number_at_the_bound_is_at_the_bound_though_kept_in_single_precision(number: float) -> None:
    assert says(f"hba1c >= {number} & hba1c <= {number}", lab(1, -1, number)) == "T"
    assert says(f"hba1c > {number}", lab(1, -1, number)) == "F"


def test_age_counts_completed_years() -> None:
    assert says("age = 50", born_years_ago=50.9) == "T"
    assert says("age <= 50", born_years_ago=50.9) == "T"
    assert says("age > 50", born_years_ago=50.9) == "F"
    assert says("age >= 51", born_years_ago=51.0) == "T"
    assert says("age > 3", born_years_ago=None) == "?"


def test_sex_and_race() -> None:
    white, black = (Event(1, None, f"RACE//{code}", resource="Patient") for code in ("2106-3", "2054-5"))
    unknown = Event(1, None, "RACE//UNK", resource="Patient")
    assert (says("sex = F"), says("sex = M"), says("sex in {F, M}")) == ("T", "F", "T")
    assert says("sex = F", sex="U") == "?"
    assert says("race = white") == says("race = white", unknown) == "?"
    assert says("race = white", white) == says("race = 2106-3", white) == "T"
    assert says("race in {black, asian}", white) == "F"
    assert says("race = white & race = black", white, black) == "T"  # of each that is recorded
    assert says("race != asian", white, black) == "T"


def test_follow_up_and_observation() -> None:
    assert says("followed >= 100d", visit(1, 100)) == "T"
    assert says("followed >= 101d", visit(1, 100)) == "F"
    assert says("followed >= 101d", death(1, 100)) == "T"  # death ends the record, nothing is missing
    assert says("followed >= 1d", visit(1, 50), death(1, 0)) == "F"
    assert (says("observed >= 1000d"), says("observed > 1000d")) == ("T", "F")


def test_kinds_are_those_of_rows() -> None:
    done = Event(1, day(-1), DIABETES, event_id="p", resource="Procedure")
    given_ = Event(1, day(-1), DIABETES, event_id="d", resource="MedicationStatement")
    for event, kind in ((has(1, -1), "condition"), (done, "procedure"), (given_, "drug")):
        for each in ("condition", "procedure", "drug"):
            assert says(f"not no {each}({DIABETES}) | count({each}({DIABETES})) < 0 | sex = M", event, has(1, 5),
                        Event(1, day(5), DIABETES, resource="Procedure", event_id="q"),
                        Event(1, day(5), DIABETES, resource="MedicationRequest", event_id="r"),
                        ) == ("T" if each == kind else "F")  # fmt: skip
        assert says(f"event({DIABETES})", event) == "T"


def test_bare_meds_rows_are_of_the_kind_that_their_system_says() -> None:
    assert says("condition(I50)", Event(1, day(-1), "ICD10CM//I5021")) == "T"
    assert says("drug(C09)", Event(1, day(-1), "ATC//C09AA02")) == "T"
    rows = Event(1, day(-2), "ATC//C09AA02"), Event(1, day(-1), "LAB//1", 3.0)
    assert says("event(C09*) & value(LAB//1) = 3", *rows) == "T"


def test_negated_events_are_no_events() -> None:
    assert says(f"no condition({DIABETES})", has(1, -1, f"NEGATED//{DIABETES}")) == "T"


def test_a_parent_stands_for_those_below_it() -> None:
    assert says("condition(E11)", has(1, -1)) == "T"
    assert says("count(condition(E11 | SNOMED//44054006)) = 1", has(1, -1)) == "T"  # a row counts once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "condition(SNOMED//44054007)",
            r"the cohort has no SNOMED//44054007; did you mean SNOMED//44054006 \(Diabetes",
        ),
        ("condition(SNOMED//84114007) | condition(X//1)", "no X//1"),
        ("not no condition(X//1)", "no X//1"),
        ("count(drug(X//1)) >= 1", "no X//1"),
        ("not value(X//1) > 3", "no X//1"),
        ("procedure(SNOMED//84114007)", "the cohort has SNOMED//84114007 as Condition only"),
    ],
)
def test_codes_that_the_cohort_lacks_are_refused_where_nothing_could_hold(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        says(text, has(1, -1), has(1, -1, FAILURE))


@pytest.mark.parametrize("text", ["no condition(X//1)", "count(drug(X//1)) < 1", "not count(drug(X//1)) > 0"])
def test_codes_that_the_cohort_lacks_exclude_nobody(text: str) -> None:
    assert says(text) == "T"


def test_errors_tell_no_value() -> None:
    with pytest.raises(ConfigError) as caught:
        says("value(X//1) > 3 & hba1c > 5", lab(1, -1, 6.54321))
    assert "6.54" not in str(caught.value)


@st.composite
def records(draw: st.DrawFn) -> list[Event]:
    number = draw(st.integers(1, 10**6))
    events: list[Event] = [visit(number, draw(st.integers(-60, 60)))]
    for _ in range(draw(st.integers(0, 8))):
        on = draw(st.integers(-60, 60))
        match draw(st.integers(0, 3)):
            case 0:
                events.append(has(number, on, draw(st.sampled_from([DIABETES, FAILURE, f"NEGATED//{DIABETES}"]))))
            case 1:
                kind = draw(st.sampled_from(["Procedure", "Observation"]))
                events.append(Event(number, day(on), DIABETES, event_id=f"o{on}", resource=kind))
            case _:
                value = draw(st.sampled_from([None, 0.07, 2.0, 5.0, 7.0, 7.1, 12.0]))
                events.append(lab(number, on, value, draw(st.sampled_from(["%", "%", "1", "mg", None]))))
    if draw(st.booleans()):
        events.append(death(number, draw(st.integers(-10, 60))))
    born = draw(st.sampled_from([None, 17.99, 30.0, 50.0, 50.5]))
    rows = subject(number, *events, born_years_ago=born, sex=draw(st.sampled_from(["F", "M", "U"])))
    races = draw(st.sets(st.sampled_from(["2106-3", "2054-5", "UNK"])))
    return [Event(number, None, f"RACE//{race}", resource="Patient") for race in sorted(races)] + rows


@settings(max_examples=80, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda rows: rows[0].subject_id), propositions())
def test_the_same_as_by_hand(people: list[list[Event]], text: str) -> None:
    """Evaluation equals a slow one, subject by subject and day by day; splitting the candidates changes nothing."""
    proposition = parse(text)
    other = [Event(0, day(90), code, event_id=code, resource="Procedure") for code in (DIABETES, FAILURE)]
    anchor = subject(0, has(0, 90), has(0, 90, FAILURE), lab(0, 90, 7.0), *other)  # so that every code is known
    who = cohort([anchor, *people], codes_of(proposition))
    by_id = {rows[0].subject_id: rows for rows in people}
    at = IndexDay(visits="any").candidates(who)
    at = at.where(who.subject_id[at.subject] != 0)
    expected = [
        {True: TRUE, False: FALSE, None: NOT_EVALUABLE}[Record(by_id[number], today).says(proposition)]
        for number, today in zip(who.subject_id[at.subject].tolist(), at.day.tolist(), strict=True)
    ]
    found = evaluate(proposition, who, at)
    assert found.tolist() == expected
    shuffled = np.random.default_rng(0).permutation(len(at.day))
    assert evaluate(proposition, who, at.where(shuffled)).tolist() == found[shuffled].tolist()


def test_a_wrong_logic_is_told_from_the_right_one() -> None:
    """The negative control: with `not evaluable` as false, `not (hba1c > 5)` would admit whoever lacks the value."""
    who = cohort([subject(1, visit(1, -1)), subject(2, lab(2, -1, 4.0)), subject(3, lab(3, -1, 6.0))])
    at = Candidates(np.arange(3), np.full(3, START))
    proposition = parse("hba1c > 5")
    right = evaluate(Not(proposition), who, at) == TRUE
    wrong = ~(evaluate(proposition, who, at) == TRUE)
    assert right.tolist() == [False, True, False]
    assert wrong.tolist() == [True, True, False]


def test_blocks_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    who = cohort([subject(n, lab(n, -n, float(n)), visit(n, 0), visit(n, 3)) for n in range(1, 8)])
    at = IndexDay(visits="any").candidates(who)
    proposition = parse("mean(hba1c[-5d:]) > 3 | no condition(SNOMED//84114007) & count(hba1c[-1d:]) = 1")
    whole = evaluate(proposition, who, at)
    monkeypatch.setattr(evaluation, "_BLOCK", 4)
    assert evaluate(proposition, who, at).tolist() == whole.tolist()
    assert set(whole.tolist()) == {FALSE, NOT_EVALUABLE, TRUE}


def test_a_part_is_asked_only_where_it_matters() -> None:
    """De Morgan, on parts that decide for some and not for others."""
    who = cohort(
        [subject(n, *([lab(n, -1, float(n))] if n % 3 else []), visit(n, 0), sex="FM"[n % 2]) for n in range(1, 13)]
    )
    at = IndexDay().candidates(who)
    a, b = parse("sex = F"), parse("hba1c > 5")
    left = evaluate(Not(And((a, b))), who, at)
    right = evaluate(Or((Not(a), Not(b))), who, at)
    assert left.tolist() == right.tolist()
    assert statement("sex = F & hba1c > 5", "women with diabetes").label == "women with diabetes"
    assert statement("sex = F").ask(who, at).holds.sum() == 6
