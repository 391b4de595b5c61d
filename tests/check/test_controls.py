"""Each fault breaks what it says, and leaves the rest alone."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from medtwin.check.controls import BREAKS, NOISE, OTHER_UNIT, US_PER_WEEK, concatenate
from medtwin.check.records import UNDATED, Records, Vocabulary, tables_to_records
from medtwin.core.events import Event, events_to_table

DAY = datetime(2020, 1, 1)


@pytest.fixture(scope="module")
def sides() -> tuple[Records, Records]:
    words = Vocabulary()
    return people(40, 1, words), people(40, 2, words)


def people(number: int, seed: int, words: Vocabulary) -> Records:
    rng = np.random.default_rng(seed)
    events = []
    for subject in range(number):
        events += [Event(subject, None, f"GENDER//{'FM'[subject % 4 == 0]}"), Event(subject, DAY, "MEDS_BIRTH")]
        for _ in range(int(rng.integers(3, 9))):
            time = DAY + timedelta(hours=int(rng.integers(1, 9_000)))
            events.append(Event(subject, time, "LOINC//1", numeric_value=float(rng.normal()), unit="kg"))
            events.append(Event(subject, time, "SNOMED//2"))
    return tables_to_records([events_to_table(events)], words)


def broken(name: str, sides: tuple[Records, Records]) -> Records:
    return BREAKS[name](sides[1], sides[0], np.random.default_rng(0))


def is_sorted(records: Records) -> bool:
    order = np.lexsort((records.time_us, records.subject))
    return bool(np.all(order[1:] > order[:-1])) and len(records.subjects) == records.num_subjects


@pytest.mark.parametrize("name", BREAKS)
def test_records_stay_sorted_and_the_source_is_not_touched(name: str, sides: tuple[Records, Records]) -> None:
    before = [getattr(sides[1], column).copy() for column in ("time_us", "code", "value")]
    assert is_sorted(broken(name, sides))
    for column, old in zip(("time_us", "code", "value"), before, strict=True):
        np.testing.assert_array_equal(getattr(sides[1], column), old)


def test_what_is_shuffled_keeps_its_marginals(sides: tuple[Records, Records]) -> None:
    columns, time = broken("shuffled columns", sides), broken("shuffled time", sides)
    source = sides[1]
    for one in (columns, time):
        assert np.array_equal(np.sort(one.code), np.sort(source.code))
        assert np.array_equal(np.sort(one.value), np.sort(source.value), equal_nan=True)
        assert np.array_equal(one.num_events, source.num_events)
        fixed = one.time_us == UNDATED
        assert np.array_equal(one.code[fixed], source.code[source.time_us == UNDATED])
    assert np.array_equal(columns.time_us, source.time_us)
    assert np.array_equal(time.time_us, source.time_us)  # sorted within each subject, the same times
    assert not np.array_equal(time.value, source.value, equal_nan=True)


@pytest.mark.parametrize(("name", "number"), [("10 % copied", 4), ("100 % copied", 40)])
def test_copies_are_real_subjects_under_moved_dates(name: str, number: int, sides: tuple[Records, Records]) -> None:
    real = sides[0]

    def key(records: Records, subject: int) -> bytes:
        rows = records.subject == subject
        return records.value[rows].tobytes() + np.diff(records.time_us[rows][1:]).tobytes()

    known = {key(real, subject) for subject in range(real.num_subjects)}
    found = broken(name, sides)
    assert sum(key(found, subject) in known for subject in range(found.num_subjects)) == number
    dated = found.time_us[found.time_us != UNDATED]
    assert {int(one) % US_PER_WEEK for one in dated} <= {
        int(one) % US_PER_WEEK for one in np.r_[real.time_us, sides[1].time_us]
    }


def test_collapse_dropped_group_units_and_noise(sides: tuple[Records, Records]) -> None:
    source = sides[1]
    assert len(np.unique(broken("collapsed", sides).num_events)) == 1
    rest = broken("subgroup dropped", sides)
    assert rest.num_subjects == 10
    assert rest.has("GENDER//M").all()
    units = broken("units swapped", sides)
    ratio = units.value[~np.isnan(units.value)] / source.value[~np.isnan(source.value)]
    np.testing.assert_allclose(ratio, 2.2046, rtol=1e-5)
    stretched = broken("time stretched", sides)
    np.testing.assert_allclose(stretched.years, 3 * source.years, rtol=1e-9)
    deaths = broken("early deaths", sides)
    assert deaths.survival[1].tolist() == [subject % 2 == 0 for subject in range(40)]
    np.testing.assert_allclose(deaths.survival[0][::2], source.years[::2] / 10, rtol=1e-3)
    assert np.array_equal(deaths.num_events[1::2], source.num_events[1::2])
    renamed = broken("units renamed", sides)
    assert np.array_equal(renamed.value, units.value, equal_nan=True)
    assert {list(renamed.vocabulary.units)[one] for one in renamed.unit[~np.isnan(renamed.value)]} == {OTHER_UNIT}
    invented = broken("codes invented", sides)
    names = invented.vocabulary.names
    assert {names[one] for one in np.unique(invented.code)} - {names[one] for one in np.unique(source.code)} == {
        "INVENTED//LOINC//1"
    }
    noise = (broken("noise added", sides).value - source.value)[~np.isnan(source.value)]
    low, high = np.quantile(source.value[~np.isnan(source.value)], [0.25, 0.75])
    assert noise.std() == pytest.approx(NOISE * (high - low), rel=0.15)


def test_concatenation_numbers_subjects_anew(sides: tuple[Records, Records]) -> None:
    both = concatenate(*sides)
    assert both.num_subjects == 80
    assert np.array_equal(both.num_events, np.r_[sides[0].num_events, sides[1].num_events])
    twice = sides[0].take(np.array([3, 3, 0]))
    assert np.array_equal(twice.num_events, sides[0].num_events[[3, 3, 0]])
