"""The pure parts of scripts/bench/timelines.py: tables, scores, verdicts, the plain decoder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import write_manifest

FOLDER = Path(__file__).resolve().parent.parent / "scripts" / "bench"
START = datetime(2020, 3, 1, 8)


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the script, which import each other as a program's neighbours do."""
    sys.path.insert(0, str(FOLDER))
    names = ("tables", "scores", "report", "speed", "survival")
    try:
        yield SimpleNamespace(**{name: importlib.import_module(f"timelines_{name}") for name in names})
    finally:
        sys.path.remove(str(FOLDER))


def write(folder: Path, events: list[Event], splits: Mapping[int, str], origin: str = "real") -> Path:
    spill = EventSpill(folder.with_name(folder.name + "-spill"), 1)
    spill.add(events_to_table(events))
    write_events(folder, spill.close(), split_of=lambda subject: splits[subject])
    write_dataset_metadata(folder, folder.name, origin)
    write_manifest(folder)
    return folder


def record(subject: int, rows: list[tuple[int, str, float | None]], sex: str = "F") -> list[Event]:
    """A record: birth 50 years before the start, sex, and rows of minutes since the start, code and value."""
    born = START - timedelta(days=50 * 365.25)
    dated = [
        Event(subject, START + timedelta(minutes=minute), code, value, unit=None if value is None else "mg/dL")
        for minute, code, value in rows
    ]
    return [Event(subject, None, f"GENDER//{sex}"), Event(subject, born, "MEDS_BIRTH"), *dated]


ROWS = {
    1: [(0, "IN", None), (7, "LAB//a", 1.5), (7, "LAB//b", 3.0), (60, "MEDS_DEATH", None)],
    2: [(0, "IN", None), (30, "LAB//a", 2.5)],
    3: [(0, "IN", None), (0, "LAB//a", 2.5), (600, "LAB//b", 7.25)],
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    events = [event for subject, rows in ROWS.items() for event in record(subject, rows, "M" if subject == 2 else "F")]
    return write(tmp_path / "real", events, {1: "train", 2: "train", 3: "held_out"})


def dated(path: Path, split: str) -> list[tuple[int, int, str, float | None]]:
    return [
        (row["subject_id"], int((row["time"] - START).total_seconds() / 60), row["code"], row["numeric_value"])
        for row in open_dataset(path).events(split).to_pylist()
        if row["time"] is not None and row["code"] != "MEDS_BIRTH"
    ]


def test_records_as_tables(bench: SimpleNamespace, dataset: Path) -> None:
    flat = bench.tables.to_tables(open_dataset(dataset), ("train",))
    assert flat.context["key"].tolist() == ["p1", "p2"]
    assert flat.context["GENDER"].tolist() == ["GENDER//F", "GENDER//M"]
    assert flat.context["age_years"].tolist() == [50.0, 50.0]
    assert flat.events["gap_minutes"].tolist() == [0, 7, 0, 53, 0, 30]
    assert flat.events["code"].tolist() == ["IN", "LAB//a", "LAB//b", "MEDS_DEATH", "IN", "LAB//a"]
    assert flat.start_day == (START - datetime(1970, 1, 1)) / timedelta(days=1)
    assert flat.grain_minutes == 1
    assert flat.units == {"LAB//a": "mg/dL", "LAB//b": "mg/dL"}
    assert flat.values["LAB//a"].tolist() == [1.5, 2.5]


def test_tables_come_back_as_the_records_they_were(bench: SimpleNamespace, dataset: Path, tmp_path: Path) -> None:
    flat = bench.tables.to_tables(open_dataset(dataset), ("train",))
    told = bench.tables.to_dataset(flat, flat.context.drop(columns="split"), flat.events, tmp_path / "back", "back")
    assert set(told.values()) == {0}
    back = open_dataset(tmp_path / "back")
    assert back.origin == "synthetic"
    assert back.validate() == []
    assert dated(tmp_path / "back", "train") == dated(dataset, "train")
    births = [row["time"] for row in back.events().to_pylist() if row["code"] == "MEDS_BIRTH"]
    assert births == [START - timedelta(days=50 * 365.25)] * 2


def test_what_a_peer_cannot_mean_is_mended_and_counted(bench: SimpleNamespace, dataset: Path, tmp_path: Path) -> None:
    flat = bench.tables.to_tables(open_dataset(dataset), ("train",))
    events = flat.events.copy()
    events.loc[1, "gap_minutes"] = -3.0
    events.loc[2, "code"] = "RARE"
    events.loc[[4, 5], "code"] = "RARE"  # nothing of the second subject is left
    told = bench.tables.to_dataset(flat, flat.context.drop(columns="split"), events, tmp_path / "back", "back")
    assert told == {
        "gaps mended": 1,
        "rows left out": 3,
        "subjects without events": 1,
        "second deaths left out": 0,
    }
    assert [row[1:3] for row in dated(tmp_path / "back", "train")] == [(0, "IN"), (0, "LAB//a"), (53, "MEDS_DEATH")]


def test_ranks_give_back_every_training_value(bench: SimpleNamespace) -> None:
    known = {"a": np.array([1.0, 2.0, 2.0, 2.0, 9.0]), "b": np.array([-1.0])}
    codes = np.array(["a", "a", "a", "b", "c"], object)
    values = np.array([1.0, 2.0, 9.0, -1.0, np.nan])
    ranks = bench.tables.values_to_ranks(codes, values, known)
    np.testing.assert_allclose(ranks, [10, 50, 90, 50, np.nan])
    np.testing.assert_array_equal(bench.tables.ranks_to_values(codes, ranks, known), values)


def test_the_floor_keeps_margins_and_nothing_else(bench: SimpleNamespace, dataset: Path) -> None:
    flat = bench.tables.to_tables(open_dataset(dataset), ("train",))
    context, events = bench.tables.independent_events(flat, 400, 0)
    lengths = events.groupby("key").size()
    assert set(lengths) == {2, 4}
    assert len(context) == 400
    shares = events["code"].value_counts(normalize=True)
    assert shares["IN"] == pytest.approx(2 / 6, abs=0.05)
    assert set(events.loc[events["code"] == "LAB//a", "value"]) == {1.5, 2.5}
    assert events.loc[events["code"] == "IN", "value"].isna().all()


def test_the_judge_changes_the_splits_round(bench: SimpleNamespace, dataset: Path, tmp_path: Path) -> None:
    bench.scores.write_judge(dataset, tmp_path / "judge")
    judge = open_dataset(tmp_path / "judge")
    assert judge.subject_splits() == {1: "held_out", 2: "held_out", 3: "train"}
    assert dated(tmp_path / "judge", "train") == dated(dataset, "held_out")
    assert judge.validate() == []


def test_first_events(bench: SimpleNamespace, dataset: Path, tmp_path: Path) -> None:
    bench.scores.first_events(dataset, tmp_path / "first", 2)
    first = open_dataset(tmp_path / "first")
    assert [row[:3] for row in dated(tmp_path / "first", "train")] == [
        (1, 0, "IN"),
        (1, 7, "LAB//a"),
        (2, 0, "IN"),
        (2, 30, "LAB//a"),
    ]
    kept = first.events("train")["code"].to_pylist()
    assert kept.count("MEDS_BIRTH") == kept.count("IN") == 2


def test_area_and_true_positives_by_hand(bench: SimpleNamespace) -> None:
    inside, outside = np.array([3.0, 1.0]), np.array([0.0, 1.0, 2.0, 4.0])
    assert bench.scores.area(inside, outside) == (3 + 1.5) / 2 / 4
    others = np.arange(200.0)  # 1 % of them are two: above 197 there are 198 and 199
    assert bench.scores.true_positives(np.array([197.0, 197.5, 198.5, 300.0]), others) == 0.75


def test_membership_finds_copies_and_nobody_in_fresh_draws(bench: SimpleNamespace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def draw(first: int, number: int) -> list[Event]:
        events = []
        for subject in range(first, first + number):
            times = np.cumsum(rng.integers(1, 90, size=rng.integers(3, 12)))
            rows: list[tuple[int, str, float | None]] = [
                (int(time), f"LAB//{'abc'[rng.integers(3)]}", float(rng.normal())) for time in times
            ]
            events += record(subject, rows, "FM"[rng.integers(2)])
        return events

    members = draw(0, 120)
    splits = {subject: ("train", "tuning", "held_out")[subject // 120] for subject in range(360)}
    real = write(tmp_path / "real", [*members, *draw(120, 120), *draw(240, 120)], splits)
    everybody = dict.fromkeys(range(1000, 1120), "train")
    copies = write(tmp_path / "copies", members, splits, "synthetic")
    fresh = write(tmp_path / "fresh", draw(1000, 120), everybody, "synthetic")
    of_copies, of_fresh = (bench.scores.membership_scores(real, one) for one in (copies, fresh))
    for attack in ("nearest", "density_ratio"):
        assert of_fresh[f"membership.{attack}.auc"].low < 0.5 < of_fresh[f"membership.{attack}.auc"].high
        assert of_fresh[f"membership.{attack}.tpr_at_1_fpr"].value < 0.1
    assert of_copies["membership.nearest.auc"].value == 1
    assert of_copies["membership.nearest.tpr_at_1_fpr"].value == 1
    assert of_copies["membership.density_ratio.auc"].low > 0.6


def test_over_seeds_and_verdicts_by_hand(bench: SimpleNamespace) -> None:
    score, report = bench.scores.Score, bench.report
    ours = report.over_seeds([score(0.10, 0.08, 0.12, 0.05), score(0.14, 0.12, 0.16, 0.05)])
    assert (ours.mean, ours.low, ours.high) == pytest.approx((0.12, 0.10, 0.14))
    assert (ours.least, ours.most, ours.ceiling) == (0.10, 0.14, 0.05)
    theirs = report.over_seeds([score(0.30, 0.28, 0.32), score(None)])
    assert report.verdict(ours, theirs) == "ahead"
    assert report.verdict(theirs, ours) == "behind"
    close = report.over_seeds([score(0.14, 0.12, 0.16)])
    assert report.verdict(ours, close) == "even"
    higher = [report.over_seeds([score(value, value - 0.01, value + 0.01, None, "higher")]) for value in (0.9, 0.8)]
    assert report.verdict(*higher) == "ahead"
    assert report.over_seeds([score(None)]) is None


def test_the_page_says_where_medtwin_loses(bench: SimpleNamespace) -> None:
    score, report = bench.scores.Score, bench.report
    better, worse = (report.over_seeds([score(value, value - 0.01, value + 0.01, 0.02)]) for value in (0.1, 0.3))
    table = {
        "medtwin": {"gaps.ks": worse, "values.ks": better},
        "par": {"gaps.ks": better, "values.ks": worse},
        "argn": {"gaps.ks": worse, "values.ks": worse},
    }
    lines = report.ahead_table(table, {"par": "PAR"}, ["par", "argn"])
    assert [line for line in lines if line.startswith("| gap KS") and "PAR" in line and line.endswith("behind |")]
    assert [line for line in lines if line.startswith("| value KS") and line.endswith("ahead |")]


def test_the_plain_decoder_is_of_equal_size(bench: SimpleNamespace) -> None:
    speed = bench.speed
    width, layers = speed.plain_shape(60, 400, 450_000, 2)
    plain = speed.PlainDecoder(60, 400, width, layers, None)
    assert speed.trainable(plain) == speed.plain_size(60, 400, width, layers)
    assert speed.trainable(plain) == pytest.approx(450_000, rel=0.05)
    with pytest.raises(ValueError, match="no plain decoder"):
        speed.plain_shape(60, 400, 100, 2)


def test_shards_repeat_under_new_ids(bench: SimpleNamespace, dataset: Path, tmp_path: Path) -> None:
    rows = bench.speed.repeat_dataset(dataset, tmp_path / "more", 3)
    more = open_dataset(tmp_path / "more")
    assert len(more.shards("train")) == 3
    assert rows == 3 * open_dataset(dataset).events("train").num_rows
    assert len(pa.compute.unique(more.events("train")["subject_id"])) == 6
    assert set(more.subject_splits().values()) == {"train"}


def test_survival_of_a_dataset_by_hand(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Of three people two are diagnosed, after one and after two years; one is looked at for four years."""
    year = 525_960
    rows = {
        1: [(0, "IN"), (year, "ILL")],
        2: [(0, "IN"), (2 * year, "ILL"), (3 * year, "IN")],
        3: [(0, "IN"), (4 * year, "IN")],
    }
    events = []
    for subject, said in rows.items():
        for event in record(subject, [(minute, code, None) for minute, code in said]):
            events.append(replace(event, resource="Condition" if event.code == "ILL" else ""))
    survival = bench.survival
    frame = survival.read(open_dataset(write(tmp_path / "some", events, dict.fromkeys(rows, "train"))), ["train"])
    assert survival.most_frequent(frame, 3) == ["ILL"]
    ends, onset = survival.follow_up(frame), survival.first_diagnosis(frame, "ILL")
    assert ends.years == pytest.approx([1, 3, 4], abs=0.01)
    assert ends.happens.all()
    assert onset.years == pytest.approx([1, 2, 4], abs=0.01)
    assert onset.happens.tolist() == [True, True, False]
    assert survival.gap(onset, onset, 5.0) == 0
    assert survival.gap(onset, ends, 5.0) == pytest.approx(1 / 3)  # after two years 1/3 are well, 2/3 still there


def test_the_survival_of_other_people_has_a_wide_interval(bench: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    same, other, later = (
        bench.survival.Times(scale * rng.exponential(1, 80), np.ones(80, bool)) for scale in (1, 1, 4)
    )
    alike, apart = (bench.survival.distance(same, one, 3.0, seed=0) for one in (other, later))
    assert alike.low < 0.15 < apart.low < apart.value < apart.high
