from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from medtwin.check.attacks.table import (
    People,
    Scales,
    attributes_of,
    nearest,
    nearest_distances,
    nearest_without_each,
    people_of,
)
from medtwin.check.records import Vocabulary, tables_to_records
from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event, events_to_table
from tests.check.attacks.laws import leak

NAN = float("nan")


def people(*rows: list[float]) -> People:
    return People(("sex", "age", "weight"), np.array(rows, np.float64), np.array([True, False, False]))


def test_gower_by_hand() -> None:
    twins = people([0, 20, 50], [1, 60, 100], [0, 40, NAN])
    scales = Scales.of(twins)
    assert scales.ranges.tolist() == [1, 40, 50]
    assert nearest_distances(people([1, 50, NAN]), twins, scales) == pytest.approx([1.25])  # 0 + 10/40 + 1 or 1 + 10/40
    assert nearest(people([1, 50, NAN]), twins, scales, num=3).tolist() == [[1, 2, 0]]
    assert nearest_distances(people([0, 40, NAN]), twins, scales).tolist() == [0]
    assert nearest_distances(people([0, 1000, 50]), twins, scales) == pytest.approx([1.0])  # no more than 1 in each
    with pytest.raises(ValueError, match="candidates must be at least num=4"):
        nearest(twins, twins, scales, num=4)


def test_leaving_out_each_attribute_is_as_without_it() -> None:
    sides = leak(0.1, 3, number=80)
    found = nearest_without_each(sides.train, sides.synthetic, Scales.of(sides.synthetic))
    for secret in range(len(sides.train.names)):
        rest = [column for column in range(len(sides.train.names)) if column != secret]
        twins = sides.synthetic.columns(rest)
        alone = nearest(sides.train.columns(rest), twins, Scales.of(twins))[:, 0]
        ways = [nearest_distances(sides.train.columns(rest).take(np.array([i])), twins.take(rows), Scales.of(twins))
                for i, rows in enumerate(np.column_stack([found[:, secret], alone]))]  # fmt: skip
        assert np.mean(found[:, secret] == alone) > 0.95  # equals but for ties
        assert all(np.isfinite(way).all() for way in ways)


def test_attributes_of_records() -> None:
    words = Vocabulary()
    events = []
    for subject in range(4):
        events += [
            Event(subject, None, f"GENDER//{'FM'[subject % 2]}"),
            Event(subject, datetime(1950 + subject, 7, 1), BIRTH),
            Event(subject, datetime(2000, 1, 1), "LOINC//1", numeric_value=float(subject), unit="kg"),
            Event(subject, datetime(2001, 1, 1), "LOINC//1", numeric_value=99.0, unit="kg"),
        ]
    events += [Event(0, datetime(2000, 1, 1), "ICD//A"), Event(0, datetime(2002, 1, 1), DEATH)]
    records = tables_to_records([events_to_table(events)], words)
    found = people_of(records, attributes_of(records))
    assert found.names == ("gender", "age", "died", "events", "days", "ICD//A", "LOINC//1 [kg]")
    assert found.is_category.tolist() == [True, False, True, False, False, True, False]
    assert found.values[:, 1].tolist() == [49, 48, 47, 46]
    assert found.values[:, 2].tolist() == [1, 0, 0, 0]
    assert found.values[:, 3].tolist() == [4, 2, 2, 2]
    assert found.values[:, 5].tolist() == [1, 0, 0, 0]
    assert found.values[:, 6].tolist() == [0, 1, 2, 3]  # the first number, not the last
    with pytest.raises(ValueError, match=r"values must be \(people, 1\)"):
        People(("a",), np.zeros((2, 2)), np.zeros(1, bool))
