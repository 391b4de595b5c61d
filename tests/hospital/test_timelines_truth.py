"""The harness of the known truth (`scripts/bench/timelines_truth*.py`), on records that can be counted by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtwin.check.records import Vocabulary
from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.errors import DatasetError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import write_json
from medtwin.hospital import codes
from medtwin.hospital.counterfactual import Change, paired_record
from medtwin.hospital.population import FIRST_SUBJECT_ID
from medtwin.hospital.simulate import simulate_subject

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))

import timelines_truth
from timelines_truth_cohorts import Cohort, Draw, cached_tables, cohort_of, draw_tables, shuffled_values
from timelines_truth_counterfactual import Pairs, Shift, kept, read_pairs, shifts
from timelines_truth_effects import Effect, _linear, _logistic, effects, held
from timelines_truth_measures import (
    Interval,
    Transitions,
    Values,
    lengths,
    r2,
    shifted,
    subject_draws,
)
from timelines_truth_scores import normal_values, tally

START = datetime(2015, 1, 1, 9)
ONCE = np.ones((2, 2))


def _record(subject: int, visits: list[list[tuple[str, float | None]]], sex: str = "F", age: int = 50) -> list[Event]:
    """A visit a year; every event of a visit is a minute after the one before."""
    events = [
        Event(subject, None, f"GENDER//{sex}"),
        Event(subject, START.replace(year=START.year - age), BIRTH),
        Event(subject, START - timedelta(days=365), codes.DIABETES),  # a problem that began before the record
    ]
    for number, visit in enumerate(visits):
        for minute, (code, value) in enumerate(visit):
            time = START + timedelta(days=365.25 * number, minutes=minute)
            events.append(Event(subject, time, code, value, encounter_id=f"{subject}-{number}"))
    return events


def _cohort(*records: list[Event], vocabulary: Vocabulary | None = None) -> Cohort:
    table = events_to_table(event for record in records for event in record)
    return cohort_of([table], vocabulary or Vocabulary())


def test_what_a_cohort_says_of_its_subjects() -> None:
    smoker = Event(1, START, codes.SMOKING_STATUS, text_value=codes.CURRENT_SMOKER, encounter_id="1-0")
    first = [*_record(1, [[("A", 1.0), ("B", 2.0)], [("A", 4.0)]]), smoker]
    second = [*_record(2, [[("A", None)]], "M", 70), Event(2, START + timedelta(days=731), DEATH)]
    cohort = _cohort(first, second)
    assert cohort.age.round(2).tolist() == [50.0, 70.0]
    assert cohort.years.round(2).tolist() == [1.0, 2.0]
    assert cohort.num_encounters.tolist() == [2, 1]
    assert cohort.smoking.tolist() == [2, -1]
    assert cohort.died.tolist() == [False, True]
    assert cohort.onset(codes.DIABETES).round(2).tolist() == [-1.0, -1.0]
    assert cohort.onset("B")[0] == pytest.approx(1 / 525_960)  # a minute in years
    assert cohort.onset("B")[1] == np.inf
    assert cohort.had(codes.DIABETES).all()
    assert cohort.mean_value("A")[0] == 2.5
    assert np.isnan(cohort.mean_value("A")[1])
    assert cohort.first_value("A")[0] == 1.0


def test_transitions_of_two_records() -> None:
    vocabulary = Vocabulary()
    fresh = _cohort(*(_record(i, [[("A", None), ("B", None)]] * 60) for i in (1, 2)), vocabulary=vocabulary)
    transitions = Transitions(fresh)
    assert {name: one.value for name, one in transitions.measure(fresh, ONCE).items()} == {
        "joint": 1.0,
        "given": 1.0,
        "visits": 1.0,
    }
    other = _cohort(*(_record(i, [[("B", None), ("A", None)]] * 60) for i in (1, 2)), vocabulary=vocabulary)
    found = transitions.measure(other, ONCE)
    # Diabetes begins before the record: 120 steps of each follow, A to B 60 times and B to A 59 times in the fresh one.
    assert found["joint"].value < 1.0
    assert found["given"].value > 0.99  # after A always B, after B always A, in both
    assert found["visits"].value == 1.0  # a visit has both codes in both


def test_ks_of_two_codes() -> None:
    vocabulary = Vocabulary()
    fresh = _cohort(
        *(_record(i, [[("A", float(n)), ("B", 7.0)] for n in range(30)]) for i in (1, 2)), vocabulary=vocabulary
    )
    values = Values(fresh)
    assert values.measure(fresh, ONCE).by_code == {"A": 0.0, "B": 0.0}
    moved = _cohort(*(_record(i, [[("A", n + 15.0)] for n in range(30)]) for i in (1, 2)), vocabulary=vocabulary)
    found = values.measure(moved, ONCE)
    assert found.by_code["A"] == pytest.approx(0.5)
    assert found.by_code["B"] == 1.0  # it has none
    assert found.mean.value == pytest.approx(0.75)


def test_lengths_by_age_are_relative() -> None:
    vocabulary = Vocabulary()
    fresh = _cohort(_record(1, [[("A", 1.0)]] * 10), _record(2, [[("A", 1.0)]] * 10), vocabulary=vocabulary)
    longer = _cohort(_record(1, [[("A", 1.0)]] * 21), _record(2, [[("A", 1.0)]] * 21), vocabulary=vocabulary)
    events = next(one for one in lengths(fresh, longer, ONCE) if one.what == "events" and one.band == (40, 60))
    assert (events.fresh, events.mean) == (11.0, 22.0)
    assert events.relative.value == pytest.approx(1.0)
    assert events.num_subjects == 2


def test_small_sums() -> None:
    assert r2(np.array([0.0, 1.0, 2.0]), np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])).tolist() == [
        1.0,
        0.0,
        0.5,
    ]
    assert shifted(np.array([5.0, 7.0, 7.0, 7.0])) == Interval(5.0, 5.0, 5.0)
    x = np.column_stack([np.ones(4000), np.repeat([0.0, 1.0], 2000)])
    y = np.r_[np.repeat([0.0, 1.0], [1500, 500]), np.repeat([0.0, 1.0], [500, 1500])]
    assert _logistic(x, y)[0] == pytest.approx(np.log(9.0), abs=1e-3)
    assert np.isnan(_logistic(x, np.zeros(4000)))
    assert _linear(x, 3.0 + 2.0 * x[:, 1])[0] == pytest.approx(2.0)
    draws = subject_draws(50, seed=1, num_resamples=3)
    assert draws[0].tolist() == [1.0] * 50
    assert (draws.sum(axis=1) == 50).all()


def test_an_effect_holds_if_its_interval_has_the_truth() -> None:
    def effect(value: float, half: float) -> Effect:
        return Effect("family", "name", None, 100, Interval(value, value - half, value + half))

    truth, train = [effect(1.0, 0.0)] * 3, [effect(1.6, 0.7)] * 3
    twins = [effect(1.1, 0.2), effect(1.5, 0.2), effect(float("nan"), float("nan"))]
    strict, fair = held(twins, truth), held(twins, truth, train)
    assert [one.holds for one in strict] == [True, False, None]
    assert strict[1].z == pytest.approx(0.5 / (0.2 / 1.959964))
    assert abs(fair[1].z) < 1.96  # the training subjects are as far off
    counts = tally(strict, fair, train)
    assert (counts.asked, counts.measured, counts.strict, counts.fair, counts.told) == (3, 2, 1, 2, 2)
    assert counts.is_met  # one of three missed, which chance does at 5 % each in one of a hundred cases
    assert not replace(counts, fair=1).is_met


def test_effects_are_those_of_the_laws_and_go_with_the_values() -> None:
    cohort = cohort_of(draw_tables(lambda index: simulate_subject(11, index), 200), Vocabulary())
    found = {one.name: one for one in effects(cohort, seed=0, num_resamples=20)}
    a1c = found["diabetes on first HbA1c, %"].interval
    assert 0.6 < a1c.low < 1.4 < a1c.high
    assert found["current smoking on death"].size == 200
    normal = normal_values(cohort, np.random.default_rng(0))
    crp, was = (one.numbers_of(codes.CRP)[2] for one in (normal, cohort))
    assert crp.mean() == pytest.approx(was.mean(), rel=0.5)
    assert crp.min() < 0 < was.min()  # a normal law knows no bound
    broken = shuffled_values(cohort, np.random.default_rng(0))
    assert np.array_equal(np.sort(broken.records.value), np.sort(cohort.records.value), equal_nan=True)
    after = {one.name: one for one in effects(broken, seed=0, num_resamples=20)}
    assert after["diabetes on first HbA1c, %"].interval.high < 0.6


def _pairs(change: Change, seed: int, number: int = 60) -> Pairs:
    vocabulary = Vocabulary()
    was = cohort_of(draw_tables(lambda index: paired_record(seed, index), number), vocabulary)
    after = cohort_of(draw_tables(lambda index: paired_record(seed, index, change), number), vocabulary)
    return Pairs(was, after, change)


def test_counterfactual_twins_that_did_not_change_fail() -> None:
    lives = _pairs(Change(age=75.0), seed=5)
    itself = {one.outcome: one for one in shifts(lives, lives, seed=0, num_resamples=20)}
    assert all(one.verdict in ("within", "proven") for one in itself.values())  # the same pairs on both sides
    assert {one.what: one.share for one in kept(lives)} == {
        "the age that was set": 1.0,
        **{f"{fact} kept": 1.0 for fact in ("GENDER", "BIRTHSEX", "RACE", "ETHNICITY", "LANGUAGE", "smoking")},
    }
    same = replace(lives, changed=lives.factual)
    found = {one.outcome: one for one in shifts(same, lives, seed=0, num_resamples=20)}
    assert found["hypertension"].is_real
    assert found["hypertension"].verdict == found["creatinine, mg/dL"].verdict == "outside"
    assert kept(same)[0].share < 0.1


def test_only_the_other_sex_counts() -> None:
    pairs = _pairs(Change(sex="F"), seed=5, number=10).really_changed()
    assert pairs.factual.male.all()
    assert not pairs.changed.male.any()


def test_verdicts_of_a_shift() -> None:
    one = Shift("x", 0.0, 0.0, Interval(1.05, 1.0, 1.08), Interval(1.0, 1.0, 1.0), 1.0, 10)
    assert one.verdict == "proven"
    assert replace(one, twins=Interval(1.05, 0.8, 1.3)).verdict == "within"
    assert replace(one, twins=Interval(1.2, 1.0, 1.4)).verdict == "unclear"
    assert replace(one, twins=Interval(1.2, 1.15, 1.25)).verdict == "outside"
    assert replace(one, twins=Interval(1.2, 1.15, 1.25), truth=Interval(1.0, 0.9, 1.1)).verdict == "unclear"
    assert replace(one, twins=Interval(float("nan"), 0.0, 0.0)).verdict == "not measured"
    nothing = replace(one, truth=Interval(0.0, 0.0, 0.0), twins=Interval(0.015, 0.0, 0.03))
    assert not nothing.is_real
    assert nothing.verdict == "within"


def test_pairs_are_joined_by_their_ids(tmp_path: Path) -> None:
    vocabulary = Vocabulary()
    factual = _cohort(_record(1, [[("A", 1.0)]]), _record(2, [[("A", 2.0)]]), vocabulary=vocabulary)
    changed = _cohort(_record(71, [[("A", 20.0)]]), _record(72, [[("A", 10.0)]]), vocabulary=vocabulary)
    (tmp_path / "metadata").mkdir()
    with pytest.raises(DatasetError, match=r"metadata/counterfactual\.parquet"):
        read_pairs(factual, changed, tmp_path)
    path = tmp_path / "metadata" / "counterfactual.parquet"
    pq.write_table(pa.table({"subject_id": [72, 71], "factual_id": [1, 2]}), path)
    write_json(tmp_path / "metadata" / "counterfactual.json", {"set": {"age": 75}})
    pairs = read_pairs(factual, changed, tmp_path)
    assert pairs.change == Change(age=75.0)
    assert pairs.changed.mean_value("A").tolist() == [10.0, 20.0]
    assert pairs.factual.mean_value("A").tolist() == [1.0, 2.0]
    pq.write_table(pa.table({"subject_id": [72], "factual_id": [9]}), path)
    with pytest.raises(DatasetError, match="1 are not"):
        read_pairs(factual, changed, tmp_path)


def test_a_draw_is_read_again_from_its_file(tmp_path: Path) -> None:
    def draws(index: int) -> object:
        raise AssertionError(index)

    first = cohort_of(cached_tables(tmp_path, "x", lambda index: simulate_subject(2, index), 5), Vocabulary())
    again = cohort_of(cached_tables(tmp_path, "x", draws, 5), Vocabulary())  # type: ignore[arg-type]
    assert np.array_equal(first.records.time_us, again.records.time_us)
    assert np.array_equal(first.smoking, again.smoking)


def _write(folder: Path, draw: Draw, number: int, origin: str) -> Path:
    """A dataset directory of the first subjects of a draw, all of them for training."""
    spill = EventSpill(folder.with_name(f"{folder.name}-spill"), 1)
    spill.add(events_to_table(event for index in range(number) for event in draw(index).events))
    write_events(folder, spill.close(), split_of=lambda subject: "train")
    write_dataset_metadata(folder, folder.name, origin)
    return folder


@pytest.mark.slow
def test_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From dataset directories to the page: other lives as twins, who are older in a second directory."""
    real = _write(tmp_path / "real", lambda index: simulate_subject(0, index), 300, "simulated")
    twins = _write(tmp_path / "twins", lambda index: paired_record(9, index), 200, "synthetic")
    older = _write(tmp_path / "older", lambda index: paired_record(9, index, Change(age=75.0)), 200, "synthetic")
    same = _write(tmp_path / "same", lambda index: paired_record(9, index), 200, "synthetic")
    write_json(twins / "counts.json", {"share of probability masked": 0.0123})
    ids = [FIRST_SUBJECT_ID + index for index in range(200)]
    for folder in (older, same):
        path = folder / "metadata" / "counterfactual.parquet"
        pq.write_table(pa.table({"subject_id": ids, "factual_id": ids}), path)
        write_json(folder / "metadata" / "counterfactual.json", {"set": {"age": 75}})
    page = tmp_path / "page.md"
    sizes = ["--fresh", "500", "--truth", "500", "--pairs", "300", "--fresh-cache", str(tmp_path / "cache")]
    sides = ["--real", str(real), "--twins", str(twins), "--counterfactual", *map(str, (twins, older, same))]
    monkeypatch.setattr(sys, "argv", ["timelines_truth.py", *sides, *sizes, "--write", str(page)])
    timelines_truth.main()
    text = page.read_text()
    assert "Masked probability: 1.23%" in text
    assert "broken: none" in text
    _, true, unchanged = text.partition("## Counterfactual")[2].split("\n### ")
    assert "| the age that was set | 1.0000 | 200 |" in true
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip(" |") for line in true.splitlines()}
    assert rows["hypertension"] in ("within", "proven", "unclear")
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip(" |") for line in unchanged.splitlines()}
    assert rows["hypertension"] == rows["creatinine, mg/dL"] == "outside"
