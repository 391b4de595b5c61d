from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.task_features import STATISTICS, FeatureSpace, fit_feature_space
from medtwin.check.tasks import Examples, Task, find_examples
from medtwin.core.events import Event, events_to_table, sort_events
from tests.check.stays import MICROSECOND, MORTALITY, START, records_of, stays

TASK = Task("t", "T", "ours", outcome=("OUT//DIED",), anchor=("IN//*",), first_hours=48)
REPEATED = Task("t", "T", "ours", outcome=("OUT//DIED",), anchor=("IN//*",), first_hours=5, every_hours=11)


def records(events: list[Event], vocabulary: Vocabulary | None = None) -> Records:
    return tables_to_records([sort_events(events_to_table(events))], vocabulary or Vocabulary())


def event(subject: int, hours: float, code: str, value: float | None = None, unit: str | None = None) -> Event:
    return Event(subject, START + timedelta(hours=hours), code, value, unit=unit)


def training() -> tuple[Records, Examples, FeatureSpace]:
    mine = records_of(stays(120, seed=1), Vocabulary())
    examples, _ = find_examples(TASK, mine)
    return mine, examples, fit_feature_space(mine, examples)


def test_statistics_by_hand() -> None:
    _, _, space = training()
    assert space.numbers == (("LAB//a", "mg"), ("LAB//b", "mg"))
    assert set(space.static) == {"GENDER//F", "GENDER//M"}
    assert space.counted == ("IN//WARD",)
    one = records(
        [
            Event(1, None, "GENDER//M"),
            Event(1, START - timedelta(days=36525), "MEDS_BIRTH"),
            event(1, 0, "IN//WARD"),
            event(1, 10, "LAB//a", 4.0, "mg"),
            event(1, 20, "LAB//a", 1.0, "mg"),
            event(1, 30, "LAB//a", 7.0, "mg"),
            event(1, 30, "LAB//a", 900.0, "g"),  # another unit than training has
            event(1, 31, "LAB//new", 5.0, "mg"),  # unknown to training
            event(1, 40, "IN//WARD"),
            event(1, 60, "OUT//ALIVE"),
        ],
    )
    examples, _ = find_examples(TASK, one)
    row = dict(zip(space.names, space.matrix(one, examples)[0].tolist(), strict=True))
    mine = {name: row[f"LAB//a {name}"] for name in STATISTICS}
    assert mine == {"last": 7, "mean": 4, "min": 1, "max": 7, "sd": 3, "count": 3, "hours": 18}
    others = [row[f"LAB//b {name}"] for name in STATISTICS if name != "count"]
    assert np.isnan(others).all()
    assert row["LAB//b count"] == 0
    assert (row["IN//WARD count"], row["GENDER//M"], row["GENDER//F"]) == (2, 1, 0)
    assert row["hours since the first event"] == 48
    assert row["age in years"] == pytest.approx((36525 + 2) / 365.25)


def test_nothing_after_the_prediction_moves_a_feature() -> None:
    """One microsecond after the prediction: known codes, new codes, units, extremes, in training and in use."""
    table = stays(120, seed=1)
    mine, examples, space = training()
    before = space.matrix(mine, examples)
    anchor = {int(mine.subjects[s]): int(t) for s, t in zip(examples.subject, examples.time_us, strict=True)}
    late = []
    for subject, time in anchor.items():
        when = np.datetime64(time, "us").item() + MICROSECOND
        late += [
            Event(subject, when, "LAB//a", 1e9, unit="mg"),
            Event(subject, when, "LAB//b", -1e9, unit="mg"),
            Event(subject, when, "LAB//later", 3.0, unit="mg"),
            Event(subject, when, "LAB//a", 5.0, unit="other"),
            Event(subject, when, "IN//WARD"),
        ]
    leaky = records_of(sort_events(pa.concat_tables([table, events_to_table(late)])), Vocabulary())
    again, _ = find_examples(TASK, leaky)
    assert again.time_us.tolist() == examples.time_us.tolist()
    assert np.array_equal(space.matrix(leaky, again), before, equal_nan=True)
    refitted = fit_feature_space(leaky, again)
    assert (refitted.names, refitted.numbers) == (space.names, space.numbers)
    assert np.array_equal(refitted.matrix(leaky, again), before, equal_nan=True)


def test_an_event_at_the_prediction_counts() -> None:
    mine, examples, space = training()
    time = np.datetime64(int(examples.time_us[0]), "us").item()
    subject = int(mine.subjects[examples.subject[0]])
    at_once = events_to_table([Event(subject, time, "LAB//a", 1e9, unit="mg")])
    more = records_of(sort_events(pa.concat_tables([stays(120, seed=1), at_once])), Vocabulary())
    row = dict(zip(space.names, space.matrix(more, find_examples(TASK, more)[0])[0].tolist(), strict=True))
    assert (row["LAB//a last"], row["LAB//a hours"]) == (1e9, 0)


def test_many_predictions_of_a_subject_agree_with_a_plain_loop() -> None:
    mine = records_of(stays(15, seed=3), Vocabulary())
    examples, _ = find_examples(REPEATED, mine)
    assert len(examples) > 60
    _, _, space = training()
    matrix = space.matrix(mine, examples)
    names = mine.vocabulary.names
    for i in range(len(examples)):
        seen = (mine.subject == examples.subject[i]) & (mine.time_us <= examples.time_us[i])
        for code in ("LAB//a", "LAB//b"):
            rows = np.flatnonzero(seen & (mine.code == names.index(code)))
            value = mine.value[rows].astype(float)
            first = space.names.index(f"{code} last")
            expected = [np.nan] * 5 + [0, np.nan]
            if len(value):
                since = (examples.time_us[i] - mine.time_us[rows[-1]]) / 3.6e9
                sd = value.std(ddof=1) if len(value) > 1 else np.nan
                expected = [value[-1], value.mean(), value.min(), value.max(), sd, len(value), since]
            assert matrix[i, first : first + 7].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)


def test_columns_come_from_training_only() -> None:
    _, _, space = training()
    twins = records([*(event(s, 0, "IN//WARD") for s in range(3)), *(event(s, 50, "X//y", 1.0) for s in range(3))])
    examples, _ = find_examples(TASK, twins)
    matrix = space.matrix(twins, examples)
    assert matrix.shape == (3, len(space.names))
    assert np.isnan(matrix[:, space.names.index("LAB//a mean")]).all()


def test_rare_codes_make_no_column() -> None:
    extra = [Event(subject, START, "LAB//rare", 1.0, unit="mg") for subject in range(9)]
    table = sort_events(pa.concat_tables([stays(120, seed=1), events_to_table(extra)]))
    mine = records_of(table, Vocabulary())
    examples, _ = find_examples(MORTALITY, mine)
    assert not [name for name in fit_feature_space(mine, examples).names if "rare" in name]


def test_nobody_is_no_crash() -> None:
    nobody = records([])
    examples, _ = find_examples(TASK, nobody)
    empty = fit_feature_space(nobody, examples)
    assert empty.matrix(nobody, examples).shape == (0, 2)
    _, _, space = training()
    assert space.matrix(nobody, examples).shape == (0, len(space.names))
