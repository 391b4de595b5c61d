"""The shipped prediction tasks on the public data that they were made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from medtwin.check import Options
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.check.tasks import Task, agree_with_labels, find_examples, read_labels, task_from
from medtwin.check.utility import utility_findings
from medtwin.core.dataset import open_dataset
from medtwin.core.paths import config_dir

pytestmark = pytest.mark.real


def shipped(name: str) -> Task:
    task = task_from(yaml.safe_load((config_dir() / "task" / f"{name}.yaml").read_text()))
    assert task is not None
    return task


def test_mortality_at_48_hours_is_what_the_label_file_says(public_data: Path) -> None:
    task, vocabulary = shipped("icu_mortality_48h"), Vocabulary()
    dataset = open_dataset(public_data / "physionet2012_meds")
    records = read_records(dataset, vocabulary, list(dataset.splits))
    examples, _ = find_examples(task, records)
    agreement = agree_with_labels(task, records, examples, read_labels(dataset.path / str(task.labels)))
    assert agreement.num_labels == agreement.num_compared == agreement.num_equal == 8000
    assert agreement.num_times == agreement.num_times_in_file == 8000


def test_sepsis_within_6_hours_is_what_the_label_file_says(public_data: Path) -> None:
    task, vocabulary = shipped("sepsis_within_6h"), Vocabulary()
    dataset = open_dataset(public_data / "physionet2019_A_meds")
    records = read_records(dataset, vocabulary, list(dataset.splits))
    examples, excluded = find_examples(task, records)
    agreement = agree_with_labels(task, records, examples, read_labels(dataset.path / str(task.labels)))
    assert agreement.num_labels == 790_215
    # The file goes on until three hours after the onset; the rule predicts before it only.
    assert agreement.num_compared == agreement.num_equal == 790_215 - 6_396
    assert np.bincount(examples.subject).max() == 4
    assert excluded.no_anchor == 0
    # Some stays of the file begin a few hours after admission.
    assert agreement.num_times_in_file > 0.99 * agreement.num_times


def part(records: Records, first: int, number: int) -> Records:
    return records.take(np.arange(first, first + number))


@pytest.mark.slow
def test_real_stays_serve_as_well_as_real_stays(public_data: Path) -> None:
    task, vocabulary = shipped("icu_mortality_48h"), Vocabulary()
    dataset = open_dataset(public_data / "physionet2012_meds")
    train, held_out = (read_records(dataset, vocabulary, [split]) for split in ("train", "held_out"))
    real = part(train, 0, 1000), part(held_out, 0, 1500)
    found = utility_findings(task, real, [part(train, 1000, 1000)], Options(num_resamples=50))
    ceiling, floor = found.row("real"), found.row("floor")
    assert ceiling.value == pytest.approx(0.83, abs=0.04)  # all of train: 0.85
    assert floor.low < 0.5 < floor.high  # type: ignore[operator]
    loss = found.measures[0].estimate
    assert loss is not None
    assert abs(loss.value) < 1.5 * loss.baseline_worst
