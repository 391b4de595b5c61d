from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.tasks import (
    Excluded,
    Task,
    agree_with_labels,
    find_examples,
    read_labels,
    task_from,
)
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.events import Event, events_to_table
from medtwin.core.paths import config_dir
from tests.check.stays import MICROSECOND, MORTALITY, START, records_of, stays

SOON = Task("soon", "Soon", "ours", outcome=("DX//sepsis",), anchor=("IN//*",), first_hours=4, horizon_hours=6)


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


def records(events: list[Event]) -> Records:
    return tables_to_records([events_to_table(events)], Vocabulary())


def stay(subject: int, end: float, *others: tuple[datetime, str]) -> list[Event]:
    rows = [(hours(0), "IN//ICU"), *others, (hours(end), "OUT//ALIVE")]
    return [Event(subject, time, code) for time, code in sorted(rows)]


def test_the_label_looks_at_the_open_and_closed_window_after_the_prediction() -> None:
    found, excluded = find_examples(
        SOON,
        records(
            stay(1, 30, (hours(4) + MICROSECOND, "DX//sepsis"))  # just after the prediction at hour 4: true
            + stay(2, 30, (hours(10), "DX//sepsis"))  # at the end of the window: true
            + stay(3, 30, (hours(10) + MICROSECOND, "DX//sepsis"))  # just after it: false
            + stay(4, 30, (hours(4), "DX//sepsis"))  # at the prediction: it has happened
            + stay(5, 30, (hours(1), "DX//sepsis"))  # before it
            + stay(6, 30)  # never
            + stay(7, 4)  # the record ends at the prediction
            + [Event(8, hours(1), "LAB//a")]  # no anchor
        ),
    )
    assert found.subject.tolist() == [0, 1, 2, 5]
    assert found.label.tolist() == [True, True, False, False]
    assert found.happened.tolist() == [True, True, True, False]
    assert found.hours.round(6).tolist() == [0, 6, 6, 26]
    assert excluded == Excluded(no_anchor=1, record_over=1, already_happened=2)


def test_predictions_repeat_until_the_record_ends() -> None:
    task = replace(SOON, every_hours=6)
    found, _ = find_examples(task, records(stay(1, 22, (hours(17), "DX//sepsis")) + stay(2, 22.5)))
    times = [hours(number) for number in (4, 10, 16, 4, 10, 16, 22)]
    assert found.time_us.astype("datetime64[us]").tolist() == times[:2] + times[2:]
    assert found.label.tolist() == [False, False, True, False, False, False, False]
    assert found.first_rows.tolist() == [0, 3]


def test_without_a_horizon_the_label_looks_to_the_end_and_an_open_end_is_unknown() -> None:
    open_end = [Event(3, hours(0), "IN//ICU"), Event(3, hours(60), "LAB//a")]
    died = [Event(4, hours(0), "IN//ICU"), Event(4, hours(90), "OUT//DIED")]
    found, excluded = find_examples(MORTALITY, records(stay(1, 60) + stay(2, 20) + open_end + died))
    assert found.label.tolist() == [False, True]
    assert excluded == Excluded(record_over=1, unknown=1)


def test_times_are_drawn_by_seed_and_subject_only() -> None:
    task = replace(SOON, every_hours=1, max_per_subject=3)
    everybody = [one for subject in range(20) for one in stay(subject, 40 + subject)]
    found, excluded = find_examples(task, records(everybody), seed=5)
    assert np.bincount(found.subject).tolist() == [3] * 20
    assert excluded.not_drawn == sum(36 + subject for subject in range(20)) - 60
    few, _ = find_examples(task, records([one for one in everybody if one.subject_id in (7, 11)]), seed=5)
    assert few.time_us.tolist() == found.time_us[np.isin(found.subject, (7, 11))].tolist()
    other, _ = find_examples(task, records(everybody), seed=6)
    assert other.time_us.tolist() != found.time_us.tolist()


def write_labels(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_the_rule_is_compared_with_a_label_file(tmp_path: Path) -> None:
    task = replace(SOON, every_hours=6)
    mine = records(stay(1, 22, (hours(17), "DX//sepsis")) + stay(2, 22.5))
    found, _ = find_examples(task, mine)
    path = write_labels(
        tmp_path / "labels.parquet",
        subject_id=pa.array([2, 1, 1, 1, 9], pa.int64()),
        prediction_time=pa.array([hours(4), hours(16), hours(10), hours(20), hours(4)], pa.timestamp("us")),
        boolean_value=[False, True, True, True, True],
    )
    agreement = agree_with_labels(task, mine, found, read_labels(path))
    # Subject 9 is not there; hour 20 of subject 1 is after the onset; of the rest, hour 10 is wrong in the file.
    assert (agreement.num_labels, agreement.num_compared, agreement.num_equal) == (4, 3, 2)
    assert (agreement.num_times, agreement.num_times_in_file) == (7, 3)
    assert agreement.share == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"subject_id": [1], "prediction_time": [START]}, "there is no boolean_value"),
        ({"subject_id": [1], "prediction_time": [START], "boolean_value": [None]}, "in every row"),
        ({"subject_id": [1, 1], "prediction_time": [START] * 2, "boolean_value": [True, False]}, "one label per"),
        ({"subject_id": ["a"], "prediction_time": [START], "boolean_value": [True]}, "column types"),
    ],
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_labels(write_labels(tmp_path / "labels.parquet", **columns))
    with pytest.raises(DatasetError, match="does not exist"):
        read_labels(tmp_path / "none.parquet")


def test_the_shipped_tasks_are_complete() -> None:
    found = {path.stem: task_from(yaml.safe_load(path.read_text())) for path in (config_dir() / "task").glob("*.yaml")}
    assert set(found) == {"none", "icu_mortality_48h", "sepsis_within_6h"}
    assert found.pop("none") is None
    for name, task in found.items():
        assert task is not None
        assert task.name == name
        assert len(task.source) > 40
        assert len(task.covariates) >= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": []}, "outcome must name at least one code"),
        ({"outcome": "DX//sepsis"}, "outcome must be a list"),
        ({"source": " "}, "source must say"),
        ({"first_hours": -1}, "first_hours must be 0 or more, got -1"),
        ({"every_hours": 0}, "every_hours must be above 0 or null, got 0"),
        ({"horizon": 6}, "unexpected keyword argument 'horizon'"),
    ],
)
def test_a_task_that_is_not_complete_is_refused(change: dict[str, object], message: str) -> None:
    config = {"name": "n", "title": "t", "source": "s", "outcome": ["DX//sepsis"], **change}
    with pytest.raises(ConfigError, match=message):
        task_from(config)


def test_nobody_is_no_crash() -> None:
    nobody = records([])
    found, excluded = find_examples(SOON, nobody)
    assert (len(found), found.num_positive, len(found.first_rows), excluded) == (0, 0, 0, Excluded())


def test_the_law_of_the_sample_stays() -> None:
    found, excluded = find_examples(MORTALITY, records_of(stays(200, seed=1), Vocabulary()))
    assert len(found) == 200
    assert 50 < found.num_positive < 90
    assert excluded == Excluded()
