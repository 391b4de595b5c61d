from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from medtwin.check.facts import Facts
from medtwin.check.identities import judge_identity
from medtwin.check.rules import Input, Rule, rules_from
from medtwin.config import compose
from medtwin.core.events import Event, events_to_table

NOON = datetime(2020, 6, 1, 12)
MIMIC = "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-labitems//"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Rule]:
    return {one.name: one for one in rules_from(compose("check", ["synthetic=x", "real=x"])["rules"])}


def value(code: str, number: float, unit: str, hours: float = 0, subject: int = 1) -> Event:
    return Event(subject, NOON + timedelta(hours=hours), code, numeric_value=number, unit=unit)


def born(years: float, sex: str = "F", subject: int = 1) -> list[Event]:
    birth = NOON - timedelta(days=365.25 * years)
    return [Event(subject, None, f"GENDER//{sex}"), Event(subject, birth, "MEDS_BIRTH")]


def judged(rule: Rule, *events: Event) -> tuple[list[bool], int]:
    """Which instants break a rule, and how many cannot be judged."""
    found = judge_identity(rule, Facts(events_to_table(events)))
    return found.is_broken.tolist(), found.num_unknown


@pytest.mark.parametrize(
    ("bmi", "broken"),
    [
        # 81 kg at 180 cm are 25.0 kg/m2; 0.6 and 2 % of 25 are 1.1.
        (25.0, [False]),
        (26.05, [False]),
        (26.2, [True]),
        (23.95, [False]),
        (23.8, [True]),
        (55.1, [True]),  # the weight in pounds
    ],
)
def test_body_mass_index_by_hand(shipped: dict[str, Rule], bmi: float, broken: list[bool]) -> None:
    events = [*born(40), value("LOINC//8302-2", 180, "cm", -24 * 365), value("LOINC//29463-7", 81, "kg")]
    assert judged(shipped["body-mass-index"], *events, value("LOINC//39156-5", bmi, "kg/m2")) == (broken, 0)
    # A child has grown since then: its own rule asks for the height of the same visit.
    child = [*born(10), *events[2:], value("LOINC//39156-5", bmi, "kg/m2")]
    assert judged(shipped["body-mass-index"], *child) == ([], 0)
    assert judged(shipped["body-mass-index-of-children"], *child) == ([], 0)


@pytest.mark.parametrize(
    ("sex", "creatinine", "right"),
    [
        # CKD-EPI 2021: 142 x 1.1429^-1.2 x 0.9938^50 x 1.012, and 142 x 1.1111^-1.2 x 0.9938^50; the exact numbers
        # of the National Kidney Foundation's calculator are 90 and 92.
        ("F", 0.8, 89.7),
        ("M", 1.0, 91.7),
        # Below kappa: 142 x (0.5 / 0.7)^-0.241 x 0.9938^50 x 1.012, and 142 x (0.6 / 0.9)^-0.302 x 0.9938^50.
        ("F", 0.5, 114.2),
        ("M", 0.6, 117.6),
    ],
)
def test_filtration_rate_by_hand(shipped: dict[str, Rule], sex: str, creatinine: float, right: float) -> None:
    rule = shipped["filtration-rate-of-creatinine"]

    def found(rate: float) -> list[bool]:
        numbers = value("LOINC//2160-0", creatinine, "mg/dL"), value("LOINC//98979-8", rate, "mL/min/{1.73_m2}")
        return judged(rule, *born(50.5, sex), *numbers)[0]

    allowed = 1.5 + 0.08 * right
    assert found(right) == found(right + allowed - 0.2) == found(right - allowed + 0.2) == [False]
    assert found(right + allowed + 0.2) == found(right - allowed - 0.2) == [True]


def test_a_subject_without_sex_or_age_is_not_judged(shipped: dict[str, Rule]) -> None:
    numbers = value("LOINC//2160-0", 0.8, "mg/dL"), value("LOINC//98979-8", 10, "mL/min/{1.73_m2}")
    rule = shipped["filtration-rate-of-creatinine"]
    assert judged(rule, *born(50), *numbers)[0] == [True]
    assert judged(rule, born(50)[1], *numbers) == ([], 0)
    assert judged(rule, born(50)[0], *numbers) == ([], 0)


def test_anion_gap_by_hand(shipped: dict[str, Rule]) -> None:
    rule = shipped["anion-gap"]
    ions = [
        value(MIMIC + code, number, "meq/L")
        for code, number in (("50983", 140), ("50971", 4), ("50902", 104), ("50882", 24))
    ]
    for gap, broken in ((12, False), (16, False), (20, False), (20.5, True), (8, False), (7.5, True), (-12, True)):
        assert judged(rule, *ions, value(MIMIC + "50868", gap, "meq/L"))[0] == [broken], gap
    assert judged(rule, *ions[:3], value(MIMIC + "50868", 90, "meq/L")) == ([], 0)  # no bicarbonate, nothing to say


@pytest.mark.parametrize(
    ("name", "numbers", "broken"),
    [
        ("systolic-above-diastolic", [("LOINC//8480-6", 120, "mm[Hg]"), ("LOINC//8462-4", 80, "mm[Hg]")], False),
        ("systolic-above-diastolic", [("LOINC//8480-6", 80, "mm[Hg]"), ("LOINC//8462-4", 80, "mm[Hg]")], True),
        ("systolic-above-diastolic", [("LOINC//8480-6", 80, "mm[Hg]"), ("LOINC//8462-4", 120, "mm[Hg]")], True),
        ("mean-below-systolic", [("LOINC//8478-0", 122, "mm[Hg]"), ("LOINC//8480-6", 120, "mm[Hg]")], False),
        ("mean-below-systolic", [("LOINC//8478-0", 123, "mm[Hg]"), ("LOINC//8480-6", 120, "mm[Hg]")], True),
        ("mean-above-diastolic", [("LOINC//8478-0", 77, "mm[Hg]"), ("LOINC//8462-4", 80, "mm[Hg]")], True),
        ("cholesterol-above-hdl", [("LOINC//2093-3", 60, "mg/dL"), ("LOINC//2085-9", 61, "mg/dL")], True),
        ("cholesterol-above-hdl", [("LOINC//2093-3", 60, "mg/dL"), ("LOINC//2085-9", 59, "mg/dL")], False),
        # 200 - 50 - 150 / 5 = 120, give or take 6.6.
        *(
            (
                "friedewald",
                [
                    ("LOINC//13457-7", ldl, "mg/dL"),
                    ("LOINC//2093-3", 200, "mg/dL"),
                    ("LOINC//2085-9", 50, "mg/dL"),
                    ("LOINC//2571-8", 150, "mg/dL"),
                ],
                broken,
            )
            for ldl, broken in ((120, False), (126, False), (127, True), (113, True))
        ),
        # 6.1 + log10(24 / (0.0307 x 40)) = 7.39, give or take 0.15.
        *(
            (
                "acid-base",
                [("LOINC//2744-1", ph, "[pH]"), ("LOINC//2019-8", 40, "mm[Hg]"), ("LOINC//1963-8", 24, "mmol/L")],
                broken,
            )
            for ph, broken in ((7.4, False), (7.53, False), (7.55, True), (7.2, True))
        ),
    ],
)
def test_other_identities_by_hand(
    shipped: dict[str, Rule], name: str, numbers: list[tuple[str, float, str]], broken: bool
) -> None:
    events = [value(*one) for one in numbers]
    assert judged(shipped[name], *events) == ([broken], 0)
    assert judged(shipped[name], *(value(*one, subject=i) for i, one in enumerate(numbers))) == ([], 0)


def pair(within_hours: float = 0, **more: Any) -> Rule:
    inputs = Input("a", ("A",), ("kg",)), Input("b", ("B",), ("kg",), within_hours)
    return Rule("r", "identity", "r", "r", inputs=inputs, left="a", relation="equals", right="b", **more)


def test_the_nearest_instant_within_the_window_counts() -> None:
    numbers = [value("B", 1, "kg", -3), value("B", 2, "kg", 2), value("A", 2, "kg")]
    assert judged(pair(1.9), *numbers) == ([], 0)
    assert judged(pair(2), *numbers) == ([False], 0)
    assert judged(pair(9), *numbers) == ([False], 0)  # the nearer one is 2
    assert judged(pair(9), value("B", 1, "kg", -2), *numbers[1:]) == ([True], 0)  # as near: the earlier one, 1
    assert judged(pair(9), value("B", 2, "kg", 0, subject=2), numbers[2]) == ([], 0)
    assert judged(pair(0), value("B", 2, "kg"), numbers[2]) == ([False], 0)


def test_what_was_measured_twice_with_different_results_cannot_be_judged() -> None:
    twice = [value("B", 1, "kg"), value("B", 2, "kg")]
    assert judged(pair(), *twice, value("A", 2, "kg")) == ([], 1)
    assert judged(pair(), value("B", 2, "kg"), value("B", 2, "kg"), value("A", 2, "kg")) == ([False], 0)
    assert judged(pair(), value("A", 2, "kg"), value("A", 3, "kg"), value("B", 2, "kg")) == ([], 1)


def test_other_units_and_missing_numbers_and_times_are_not_judged() -> None:
    a = value("A", 2, "kg")
    assert judged(pair(), a, value("B", 1, "g")) == ([], 0)
    assert judged(pair(), a, value("B", float("nan"), "kg")) == ([], 0)
    assert judged(pair(), a, Event(1, None, "B", numeric_value=1, unit="kg")) == ([], 0)
    assert judged(pair()) == ([], 0)
    assert judged(pair(), a) == ([], 0)


def test_tolerance_is_a_number_and_a_share_of_the_right_side() -> None:
    for number, broken in ((10, False), (12, False), (12.1, True), (8, False), (7.9, True)):
        rule = pair(tolerance=1, tolerance_share=0.1)
        assert judged(rule, value("A", number, "kg"), value("B", 10, "kg"))[0] == [broken], number


def test_pairing_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    events = [
        value("AB"[int(rng.integers(2))], float(rng.integers(3)), "kg", int(rng.integers(60)), int(rng.integers(1, 5)))
        for _ in range(300)
    ]
    found = judged(pair(1), *events)
    by_time: dict[tuple[str, int, datetime], set[float]] = {}
    for one in events:
        assert one.time is not None
        assert one.numeric_value is not None
        by_time.setdefault((one.code, one.subject_id, one.time), set()).add(one.numeric_value)
    num_broken = num_judged = num_unknown = 0
    for (code, subject, time), numbers in by_time.items():
        others = [by_time.get(("B", subject, time + timedelta(hours=h))) for h in (0, -1, 1)]
        other = next((one for one in others if one), None)
        if code != "A" or other is None:
            continue
        if len(numbers) > 1 or len(other) > 1:
            num_unknown += 1
        else:
            num_judged += 1
            num_broken += numbers != other
    assert (sum(found[0]), len(found[0]), found[1]) == (num_broken, num_judged, num_unknown)
    assert num_broken > 10
    assert num_unknown > 10
