"""What was not measured, and what is missing together."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.missingness import co_missingness_measures, missingness_measures, phi, units_of
from medtwin.check.records import Records, Vocabulary
from medtwin.core.events import Event
from tests.check.courses import by_name, event, is_alike, plan_of, records, value_of, worst_of

NAMES = ["missingness.error", "missingness.day_error", "missingness.encounter_error"]
PAIRS = ["co_missingness.error", "co_missingness.day_error"]


def panels(num_subjects: int, seed: int, *, together: bool = True, share: float = 0.5) -> list[Event]:
    """Six days in two encounters; half of the subjects, on half of their days, have a panel of three numbers.

    Not together: each of the three has its own subjects and days, as many of them.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(num_subjects):
        chosen, days = rng.random(3) < 0.5, rng.random((3, 6)) < share
        for day in range(6):
            stay = f"{subject}-{day // 3}"
            rows.append(event(subject, 24 * day, "LAB//pulse", 60.0, "/min", encounter_id=stay))
            for number, code in enumerate(("LAB//a", "LAB//b", "LAB//c")):
                which = 0 if together else number
                if chosen[which] and days[which, day]:
                    rows.append(event(subject, 24 * day + 1, code, 1.0, "mg", encounter_id=stay))
    return rows


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def real(vocabulary: Vocabulary) -> Records:
    return records(panels(150, 1), vocabulary)


# By subject, day and encounter


def by_hand(vocabulary: Vocabulary, *with_lab: bool) -> Records:
    """Subjects with two days and encounters: a number on the first day, if at all; on the second a bare code."""
    rows = []
    for subject, has_lab in enumerate(with_lab):
        rows += [
            event(subject, 0, "LAB//a", 5.0 if has_lab else None, "mg", encounter_id=f"{subject}-1"),
            event(subject, 30, "LAB//a", None, "mg", encounter_id=f"{subject}-2"),
            event(subject, 31, "VISIT//1", None, None, encounter_id=f"{subject}-2"),
        ]
    return records(rows, vocabulary)


def test_shares_without_a_number_by_hand() -> None:
    vocabulary = Vocabulary()
    real, twins = by_hand(vocabulary, *[True] * 30, *[False] * 10), by_hand(vocabulary, *[True] * 10, *[False] * 30)
    measures, rows = missingness_measures(real, twins, None, plan_of(real, twins), {"LAB//a": "an a"})
    # 10 of 40 against 30 of 40 subjects; of two days or encounters each 50 of 80 against 70 of 80
    assert {one.name: value_of(one) for one in measures} == pytest.approx(
        dict(zip(NAMES, (0.5, 0.25, 0.25), strict=True))
    )
    assert [(row.kind, row.real, row.synthetic) for row in rows] == [
        ("subject", 0.25, 0.75), ("day", 0.625, 0.875), ("encounter", 0.625, 0.875),
    ]  # fmt: skip
    assert {row.description for row in rows} == {"an a"}


def test_units_hold_the_rows_that_stand_in_them() -> None:
    side = records(
        [
            event(1, 0, "A", encounter_id="x"), event(1, 25, "A", encounter_id="y"), event(1, 26, "B"),
            event(2, None, "GENDER//F"), event(2, 7, "A", encounter_id="z"),
        ],
        Vocabulary(),
    )  # fmt: skip
    found = {kind: units_of(side, kind) for kind in ("subject", "day", "encounter")}  # type: ignore[arg-type]
    assert [one.subject.tolist() for one in found.values()] == [[0, 1], [0, 0, 1], [0, 0, 1]]
    assert found["subject"].unit.tolist() == [0, 0, 0, 1, 1]
    assert found["day"].unit.tolist() == [0, 1, 1, 2]  # the fact without a time stands on no day
    assert found["encounter"].unit.tolist() == [0, 1, 2]


def test_an_independent_draw_misses_as_much(real: Records, vocabulary: Vocabulary) -> None:
    fresh, control = (records(panels(n, seed), vocabulary) for n, seed in ((100, 2), (60, 3)))
    plan = plan_of(real, fresh, control)
    measures = [
        *missingness_measures(real, fresh, control, plan, {})[0],
        *co_missingness_measures(real, fresh, control, plan)[0],
    ]
    assert [one.name for one in measures] == NAMES + PAIRS
    for one in measures:
        assert is_alike(one), one
        assert one.estimate is not None
        assert one.estimate.control is not None
    assert [one.num_compared for one in measures] == [4, 4, 4, 3, 3]  # everybody has a pulse on every day


def test_fewer_days_with_a_number_are_seen_by_day(real: Records, vocabulary: Vocabulary) -> None:
    broken = records(panels(100, 2, share=0.1), vocabulary)
    found = by_name(missingness_measures(real, broken, None, plan_of(real, broken), {})[0])
    assert value_of(found["missingness.day_error"]) > 2 * worst_of(found["missingness.day_error"])
    assert value_of(found["missingness.encounter_error"]) > 2 * worst_of(found["missingness.encounter_error"])


def test_numbers_lost_at_random_are_seen(real: Records, vocabulary: Vocabulary) -> None:
    rng = np.random.default_rng(0)
    kept = [one for one in panels(100, 2) if one.code == "LAB//pulse" or rng.random() < 0.3]
    broken = records(kept, vocabulary)
    plan = plan_of(real, broken)
    measures = [
        *missingness_measures(real, broken, None, plan, {})[0],
        *co_missingness_measures(real, broken, None, plan)[0],
    ]
    for one in measures:
        assert value_of(one) > 1.5 * worst_of(one), one


def test_without_encounters_there_is_no_share_of_encounters(real: Records) -> None:
    bare = records([event(s, 0, "LAB//a", 1.0, "mg") for s in range(60)], real.vocabulary)
    found = by_name(missingness_measures(real, bare, None, plan_of(real, bare), {})[0])["missingness.encounter_error"]
    assert (found.estimate, found.applicable) == (None, True)
    assert "most synthetic events belong to no encounter" in found.reason
    found = by_name(missingness_measures(bare, real, None, plan_of(bare, real), {})[0])["missingness.encounter_error"]
    assert (found.estimate, found.applicable) == (None, False)


# Together


def test_phi_by_hand() -> None:
    pairs = np.array([[0, 1]])
    # of 10: 4 have both, 6 the first, 5 the second: (10 * 4 - 30) / sqrt(6 * 4 * 5 * 5)
    found = phi(
        np.array([[4.0, 6.0, 5.0, 10.0], [5.0, 5.0, 5.0, 10.0], [0.0, 5.0, 5.0, 10.0], [3.0, 3.0, 10.0, 10.0]]), pairs
    )
    assert found[:, 0].tolist() == pytest.approx([10 / np.sqrt(600), 1, -1, np.nan], nan_ok=True)


def test_panels_that_fall_apart_miss_as_much_but_not_together(real: Records, vocabulary: Vocabulary) -> None:
    broken = records(panels(100, 2, together=False), vocabulary)
    plan = plan_of(real, broken)
    alone = missingness_measures(real, broken, None, plan, {})[0]
    assert all(is_alike(one) for one in alone)
    measures, rows = co_missingness_measures(real, broken, None, plan)
    for one in measures:
        assert value_of(one) > 0.5
        assert value_of(one) > 4 * worst_of(one)
    assert {(row.kind, row.real) for row in rows} == {("subject", 1.0), ("day", 1.0)}
    assert all(row.synthetic is not None and abs(row.synthetic) < 0.4 for row in rows)


def test_what_every_twin_has_is_one_off(real: Records, vocabulary: Vocabulary) -> None:
    always = records([event(s, 0, f"LAB//{code}", 1.0, "mg") for s in range(100) for code in "abc"], vocabulary)
    measures, rows = co_missingness_measures(real, always, None, plan_of(real, always))
    assert [value_of(one) for one in measures] == [1.0, 1.0]
    assert {row.synthetic for row in rows} == {None}


def test_where_nothing_is_missing_or_nothing_is_there(real: Records, vocabulary: Vocabulary) -> None:
    facts = records([event(s, None, "GENDER//F") for s in range(60)], vocabulary)
    measures, rows = missingness_measures(facts, real, None, plan_of(facts, real), {})
    assert [(one.estimate, one.applicable) for one in measures] == [(None, False)] * 3
    pairs, none = co_missingness_measures(facts, real, None, plan_of(facts, real))
    assert [(one.estimate, one.applicable) for one in pairs] == [(None, False)] * 2
    assert rows == none == []
    undated = records([event(s, None, "LAB//a", 1.0, "mg") for s in range(60)], vocabulary)
    found = by_name(missingness_measures(undated, real, None, plan_of(undated, real), {})[0])
    assert value_of(found["missingness.error"]) > 0
    assert found["missingness.day_error"].applicable is False
    found = by_name(missingness_measures(real, facts, None, plan_of(real, facts), {})[0])
    # everybody has a pulse, and about half a panel
    assert value_of(found["missingness.error"]) == pytest.approx((1 + 3 * 0.5) / 4, abs=0.1)
    everything = records([event(s, 0, f"LAB//{c}", 1.0, "mg") for s in range(60) for c in "ab"], vocabulary)
    pairs, _ = co_missingness_measures(everything, real, None, plan_of(everything, real))
    assert [(one.estimate, one.applicable) for one in pairs] == [(None, True)] * 2
