from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from medtwin.check import neighbours, two_sample
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.neighbours import compared_rows, neighbour_measures
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.summaries import (
    MAX_COMPONENTS,
    MAX_SPREADS,
    NUM_BUCKETS,
    patient_summaries,
    scaled_summaries,
    separators,
    sequence_bins,
    sequence_features,
    some_subjects,
    summary_keys,
    summary_measures,
)
from medtwin.check.two_sample import c2st_measure, linear_c2st_measure, one_per_subject
from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event
from tests.check import samples
from tests.check.timelines import START, at, records


@pytest.fixture(autouse=True)
def few_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "NUM_HALVES", 3)
    monkeypatch.setattr(neighbours, "NUM_HALVES", 3)


def number(subject: int, hours: float, code: str, value: float, unit: str = "u") -> Event:
    return Event(subject, START + timedelta(hours=hours), code, numeric_value=value, unit=unit)


def three_subjects(vocabulary: Vocabulary | None = None) -> Records:
    return records(
        [
            Event(1, START - timedelta(days=50 * 365.25), BIRTH),
            at(1, None, "GENDER//F"),
            number(1, 0, "LAB", 2.0),
            number(1, 10, "LAB", 4.0),
            number(1, 10, "LAB", 6.0),
            at(1, 10, "DX"),
            at(1, 110, "DX"),
            number(2, 0, "LAB", 1.0),
            at(2, 5, DEATH),
            at(3, None, "GENDER//M"),
        ],
        vocabulary,
    )


def test_the_summaries_of_three_subjects_by_hand() -> None:
    side = three_subjects()
    keys = summary_keys(side)
    columns = list(zip(keys.names, keys.aspects, strict=True))
    rows = patient_summaries(side, keys)
    assert rows.shape == (3, len(columns))

    def column(name: str, aspect: str) -> list[float]:
        return rows[:, columns.index((name, aspect))].tolist()

    same = {"nan_ok": True, "rel": 1e-9}
    assert column("LAB", "how often") == pytest.approx([np.log(4), np.log(2), 0])
    assert column("DX", "how often") == pytest.approx([np.log(3), 0, 0])
    assert column("GENDER//F", "present") == [1, 0, 0]
    assert column("GENDER//M", "present") == [0, 0, 1]
    assert column("LAB [u]", "last") == pytest.approx([5, 1, np.nan], **same)  # two numbers at the last time
    assert column("LAB [u]", "mean") == pytest.approx([4, 1, np.nan], **same)
    assert column("LAB [u]", "spread") == pytest.approx([2, np.nan, np.nan], **same)
    assert column("age at the first event, years", "value") == pytest.approx([50, np.nan, np.nan], **same)
    assert column("events", "how often") == pytest.approx([np.log(6), np.log(3), 0])
    assert column("times", "how often") == pytest.approx([np.log(4), np.log(3), 0])
    assert column("follow-up, years", "value") == pytest.approx([110 / 8766, 5 / 8766, 0])
    assert column("died", "present") == [0, 1, 0]
    assert column("gap between times, log hours", "mean") == pytest.approx(
        [np.log(1000) / 2, np.log(5), np.nan], **same
    )
    spread = np.log(10) / np.sqrt(2)  # of log 10 and log 100
    assert column("gap between times, spread of log hours", "value") == pytest.approx([spread, np.nan, np.nan], **same)
    assert len(columns) == 2 + 2 + 3 + 7


def test_what_is_summarised_is_decided_on_the_real_side() -> None:
    vocabulary = Vocabulary()
    real = three_subjects(vocabulary)
    twins = records([at(1, 0, "NEW"), at(1, 1, "DX"), number(1, 2, "LAB", 3.0, "other")], vocabulary)
    keys = summary_keys(real)
    rows = patient_summaries(twins, keys)
    assert rows.shape == (1, len(keys.names))
    assert "NEW" not in keys.names
    assert rows[0, keys.names.index("DX")] == pytest.approx(np.log(2))
    assert np.isnan(rows[0, keys.names.index("LAB [u]")])  # a number in another unit is another number
    assert BIRTH not in keys.names
    assert DEATH not in keys.names


def words(side: Records, real: Records | None = None) -> np.ndarray:
    return sequence_features(side, sequence_bins(real or side)).toarray()


def test_runs_of_events_are_counted() -> None:
    side = records([at(1, 0, "A"), at(1, 1, "B"), at(1, 2, "A"), at(2, 0, "A")])
    features = words(side)
    # A first, B and A an hour later: three single events, two pairs and a triple.
    assert features.shape == (2, NUM_BUCKETS)
    assert np.count_nonzero(features[0]) == 6
    assert np.linalg.norm(features, axis=1) == pytest.approx([1, 1])
    assert features[0].max() == pytest.approx(1 / np.sqrt(6))
    assert np.count_nonzero(features[1]) == 1
    # The A that comes first is the same word in both; the later one comes after a gap.
    assert np.count_nonzero((features[0] > 0) & (features[1] > 0)) == 1
    twice = words(records([at(1, 0, "A"), at(1, 0, "A"), at(1, 0, "A")]))
    # The first of a time, and twice one of the same time: log 2, log 3; pairs first-same, same-same; a triple.
    assert sorted(twice[twice > 0] / twice.max()) == pytest.approx([np.log(2) / np.log(3)] * 4 + [1])


def test_the_order_within_a_time_says_nothing_and_the_order_of_times_does() -> None:
    vocabulary = Vocabulary()
    first = records([at(1, 0, "A"), at(1, 0, "B"), number(1, 3, "C", 1.0), number(1, 3, "C", 9.0)], vocabulary)
    again = records([number(1, 3, "C", 9.0), at(1, 0, "B"), at(1, 0, "A"), number(1, 3, "C", 1.0)], vocabulary)
    assert (words(first) == words(again, first)).all()
    moved = records([at(1, 0, "A"), at(1, 3, "B"), number(1, 0, "C", 1.0), number(1, 3, "C", 9.0)], vocabulary)
    assert not (words(first) == words(moved, first)).all()


def test_words_do_not_depend_on_the_order_in_which_codes_were_read() -> None:
    events = [at(1, 0, "A"), at(1, 4, "B"), at(2, 0, "B"), at(2, 9, "C")]
    other = Vocabulary()
    records([at(7, 0, "C"), at(7, 1, "B"), at(7, 2, "A")], other)
    assert (words(records(events)) == words(records(events, other))).all()


def test_numbers_and_gaps_count_by_real_quartile() -> None:
    vocabulary = Vocabulary()
    real = records([number(i, 0, "LAB", float(i)) for i in range(1, 101)], vocabulary)
    quartiles = [
        words(records([number(1, 0, "LAB", value)], vocabulary), real)[0].argmax() for value in (3, 20, 30, 99)
    ]
    assert quartiles[0] == quartiles[1]
    assert len(set(quartiles)) == 3
    unknown = words(records([number(1, 0, "LAB", 3.0, "other")], vocabulary), real)[0].argmax()
    without = words(records([at(1, 0, "LAB")], vocabulary), real)[0].argmax()
    assert len({*quartiles, unknown, without}) == 5
    gaps = records([event for i in range(1, 101) for event in (at(i, 0, "A"), at(i, i, "B"))], vocabulary)
    near, same, far = (words(records([at(1, 0, "A"), at(1, hours, "B")], vocabulary), gaps) for hours in (3, 9, 90))
    assert (near == same).all()
    assert not (near == far).all()


def test_scaled_summaries_keep_distances() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(10, 4, (200, 3))
    real[:50, 2] = np.nan
    twins = real[:20] + 1.0
    points, others = scaled_summaries([real, twins], real)
    # Three columns and one that says what is missing: no more than the components, so nothing is left over.
    assert points.shape == (200, 5)
    assert np.abs(points[:, 4]).max() < 1e-8
    filled = np.where(np.isnan(real), np.nanmedian(real, axis=0), real)
    scale = np.subtract(*np.quantile(filled, [0.75, 0.25], axis=0)) / 1.349
    full = np.column_stack([filled / scale, np.isnan(real[:, 2])])
    expected = np.linalg.norm(full[60] - full[10])
    assert np.linalg.norm(points[60] - points[10]) == pytest.approx(expected)
    assert np.linalg.norm(others[19] - points[19]) == pytest.approx(np.linalg.norm(1 / scale[:2]))
    for rows in (slice(7, 8), slice(3, 90), slice(50, 200)):
        assert (scaled_summaries([real[rows]], real)[0] == points[rows]).all()  # equal records are equal points
    wild = real[60:61].copy()
    wild[0, 0] = 1e9
    far = scaled_summaries([wild], real)[0]
    assert np.linalg.norm(far - points[60]) <= MAX_SPREADS + np.abs(full[60, 0] - 10 / scale[0]) + 1


def test_points_beside_the_real_ones_are_far_from_them() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 60))  # a plane in sixty dimensions
    real += 0.001 * rng.normal(size=real.shape)
    beside = real[:10] + rng.normal(size=(10, 60))
    points, others = scaled_summaries([real, beside], real)
    assert points.shape == (300, MAX_COMPONENTS + 1)
    assert others[:, -1].min() > 20 * points[:, -1].max()


def test_points_are_learned_from_both_sides() -> None:
    """Components fitted to the real rows alone follow what is particular to those: fair twins then look worse."""
    rng = np.random.default_rng(0)
    real, twins = (one_per_subject(rng.standard_t(4, size=(number, 120))) for number in (200, 100))
    draws = compared_rows(real, twins, None, family="summaries", seed=0)
    assert draws is not None
    rows = [np.asarray(side.features) for side in (real, twins)]
    both = np.concatenate([rows[0][draws.real], rows[1][draws.synthetic]])
    recalls = []
    for fitted in (both, rows[0]):
        sides = [one_per_subject(side) for side in scaled_summaries(rows, fitted)]
        found = neighbour_measures(*sides, None, family="summaries", title="", seed=0)
        recalls.append(estimate_of(found[1]))
    assert recalls[0].value > recalls[0].baseline_worst
    assert recalls[1].value < recalls[1].baseline_worst


def test_columns_that_say_nothing_do_no_harm() -> None:
    real = np.column_stack([np.full(50, np.nan), np.ones(50), np.arange(50.0)])
    points, others = scaled_summaries([real, np.full((3, 3), np.nan)], real)
    assert np.isfinite(points).all()
    assert np.isfinite(others).all()
    empty = scaled_summaries([np.full((10, 2), np.nan)], np.full((10, 2), np.nan))[0]
    assert (empty == 0).all()


def read(*tables: pa.Table) -> list[Records]:
    vocabulary = Vocabulary()
    return [tables_to_records([table], vocabulary) for table in tables]


def estimate_of(measure: Measure) -> Estimate:
    assert measure.estimate is not None, measure
    return measure.estimate


def dense_test(real: pa.Table, twins: pa.Table) -> Estimate:
    first, second = read(real, twins)
    keys = summary_keys(first)
    sides = [one_per_subject(patient_summaries(side, keys)) for side in (first, second)]
    return estimate_of(c2st_measure(*sides, None, family="summaries", title="", seed=0))


def word_test(real: pa.Table, twins: pa.Table) -> Estimate:
    first, second = read(real, twins)
    bins = sequence_bins(first)
    sides = [one_per_subject(sequence_features(side, bins)) for side in (first, second)]
    return estimate_of(linear_c2st_measure(*sides, None, family="sequences", title="", seed=0))


def test_an_independent_hospital_is_not_told_apart(real_table: pa.Table, fresh_table: pa.Table) -> None:
    for test in (dense_test, word_test):
        estimate = test(real_table, fresh_table)
        assert estimate.value < estimate.baseline_worst


@pytest.mark.parametrize(
    ("test", "broken"),
    [
        (dense_test, samples.permuted_values),
        (dense_test, samples.swapped_units),
        (word_test, samples.shuffled_codes),
        (word_test, samples.shuffled_times),
        (word_test, samples.shuffled_times_within),
    ],
)
def test_broken_hospitals_are_told_apart(
    test: Callable[[pa.Table, pa.Table], Estimate],
    broken: Callable[[pa.Table], pa.Table],
    real_table: pa.Table,
    fresh_table: pa.Table,
) -> None:
    estimate = test(real_table, broken(fresh_table))
    assert estimate.low > estimate.baseline_worst


def test_order_alone_is_seen_by_the_sequences(real_table: pa.Table, fresh_table: pa.Table) -> None:
    """Times dealt anew within each subject leave counts and numbers as they are."""
    moved = samples.shuffled_times_within(fresh_table)
    assert word_test(real_table, moved).value > 0.8


def all_measures(real: Records, twins: Records, control: Records | None = None) -> dict[str, Measure]:
    measures, _ = summary_measures(real, twins, control, seed=0, num_resamples=20)
    return {one.name: one for one in measures}


def test_everything_of_a_hospital_and_of_its_copies(real_table: pa.Table, fresh_table: pa.Table) -> None:
    real, fresh = read(real_table, fresh_table)
    copies = some_subjects(real, 120, seed=1, purpose="test")
    found = all_measures(real, copies, fresh)
    assert set(found) == {
        "c2st.summaries", "c2st.sequences", "summaries.precision", "summaries.recall", "summaries.density",
        "summaries.coverage", "summaries.vendi",
    }  # fmt: skip
    for name in ("c2st.summaries", "c2st.sequences"):
        assert estimate_of(found[name]).value < estimate_of(found[name]).baseline_worst
        assert estimate_of(found[name]).control == pytest.approx(0.5, abs=0.12)
        assert found[name].better == "lower"
    for name in ("precision", "recall", "coverage"):
        one = found[f"summaries.{name}"]
        assert one.better == "higher"
        assert estimate_of(one).value > estimate_of(one).baseline_worst
    assert estimate_of(found["summaries.coverage"]).value > estimate_of(found["summaries.coverage"]).baseline


def test_one_twin_many_times_is_not_diverse(real_table: pa.Table, fresh_table: pa.Table) -> None:
    found = all_measures(*read(real_table, samples.collapsed(fresh_table)))
    for name, most in (("recall", 0.05), ("coverage", 0.1), ("vendi", 0.2)):
        assert estimate_of(found[f"summaries.{name}"]).value < most
    assert estimate_of(found["c2st.summaries"]).low > 0.95


def multiplied(table: pa.Table, code: str, factor: float) -> pa.Table:
    value = table["numeric_value"].to_numpy().copy()
    value[np.asarray(pc.equal(table["code"], code))] *= factor
    return samples.with_column(table, "numeric_value", pa.array(value, pa.float32(), from_pandas=True))


@pytest.mark.parametrize(("code", "factor"), [("LOINC//29463-7", 2.2046), ("LOINC//718-7", 10.0)])
def test_the_separators_name_what_is_wrong(
    code: str, factor: float, real_table: pa.Table, fresh_table: pa.Table
) -> None:
    first, second = read(real_table, multiplied(fresh_table, code, factor))
    keys = summary_keys(first)
    sides = [one_per_subject(patient_summaries(side, keys)) for side in (first, second)]
    rows = separators(*sides, keys, seed=0)
    assert rows == sorted(rows, key=lambda row: -row.importance)
    assert all(row.importance > 0 for row in rows)
    assert rows[0].name.startswith(f"{code} ")
    assert rows[0].aspect in ("mean", "last")
    assert rows[0].real is not None
    assert rows[0].synthetic is not None
    assert rows[0].synthetic / rows[0].real == pytest.approx(factor, rel=0.1)
    assert rows[0].importance > 0.3


def test_odd_records_say_why_there_is_nothing() -> None:
    vocabulary = Vocabulary()
    many = records([at(i, hours, "A") for i in range(100) for hours in (0, i + 1)], vocabulary)
    static = records([at(i, None, "GENDER//F") for i in range(100)], vocabulary)
    one = records([at(1, 0, "A")], vocabulary)
    nobody = records([], vocabulary)
    for sides in ((many, one), (one, many), (many, nobody), (nobody, many), (nobody, nobody), (one, one)):
        found = all_measures(*sides)
        assert all(measure.estimate is None and measure.reason for measure in found.values())
    assert estimate_of(all_measures(many, static)["c2st.summaries"]).value == 1.0
    assert estimate_of(all_measures(static, many)["summaries.precision"]).value < 1


def test_the_same_seed_gives_the_same_and_more_subjects_than_needed_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def visits(subjects: Iterable[int], vocabulary: Vocabulary) -> Records:
        return records([at(i, hours, "AB"[hours % 2]) for i in subjects for hours in range(1 + i % 5)], vocabulary)

    vocabulary = Vocabulary()
    real, twins = visits(range(150), vocabulary), visits(range(1000, 1100), vocabulary)
    assert all_measures(real, twins) == all_measures(real, twins)
    monkeypatch.setattr("medtwin.check.summaries.MAX_ROWS", 50)
    assert all_measures(real, twins)["c2st.summaries"].num_compared == 100
    few = some_subjects(real, 50, seed=0, purpose="test")
    assert few.num_subjects == 50
    rows = np.flatnonzero(np.isin(real.subjects[real.subject], few.subjects))
    assert (few.subjects[few.subject] == real.subjects[real.subject[rows]]).all()
    assert (few.time_us == real.time_us[rows]).all()
