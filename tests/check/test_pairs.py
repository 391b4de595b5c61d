from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import LagRow, PairRow
from medtwin.check.pairs import (
    MIN_SUBJECTS,
    Grid,
    _follow,
    _frequent_pairs,
    _together,
    encounter_measures,
    lag_measures,
    make_encounter_grid,
    make_grid,
    pair_measures,
)
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import make_plan
from medtwin.core.events import Event
from tests.check import samples
from tests.check.timelines import at, estimates, is_ordinary, records

ENCOUNTERS = ("encounter.log_ratio", "encounter.error", "encounter.r2")


def test_codes_stand_in_encounters_whatever_their_times() -> None:
    found = records(
        [
            at(1, 0, "A", encounter="e1"),
            at(1, 5, "C", encounter="e2"),
            at(1, 9, "B", encounter="e1"),  # late, in the first encounter
            at(1, 9, "C"),  # in none
            at(1, None, "C", encounter="e1"),  # undated
            at(2, 0, "A", encounter="e1"),  # another subject's encounter of this name
            at(2, 0, "B"),
        ]
    )
    names = found.vocabulary.names
    a, b, c = (names.index(name) for name in "ABC")
    grid = make_encounter_grid(found, np.arange(3))
    assert grid.subject.tolist() == [0, 0, 1]
    pairs = np.array([[a, b], [a, c], [b, c]])
    assert _together(grid, pairs).tolist() == [[1, 1, 1, 2], [0, 0, 0, 1]]


def test_codes_follow_each_other_so_many_times_later() -> None:
    found = records([*(at(1, hour, code) for hour, code in enumerate("ABCAB")), at(2, 0, "A"), at(2, 1, "B")])
    grid = make_grid(found, np.arange(3))
    a, b, c = (found.vocabulary.names.index(name) for name in "ABC")
    pairs = np.array([[a, c], [a, a], [b, a], [a, b]])
    assert _follow(grid, pairs, 1).tolist() == [[0, 0, 0, 2, 5], [0, 0, 0, 1, 2]]
    assert _follow(grid, pairs, 2).tolist() == [[1, 0, 1, 0, 5], [0, 0, 0, 0, 2]]
    assert _follow(grid, pairs, 3).tolist() == [[0, 1, 0, 0, 5], [0, 0, 0, 0, 2]]
    assert {tuple(pair) for pair in _frequent_pairs(grid, "next", 4)} == {(a, b)}
    assert len(_frequent_pairs(grid, "next", 5)) == 0


def test_products_count_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    subject = np.sort(rng.choice([0, 1, 2, 4], 60))
    grid = Grid(rng.random((60, 5)) < 0.4, subject, 6)
    pairs = np.array([(a, b) for a in range(5) for b in range(5)])
    for lag in (0, 1, 3):
        expected = np.zeros((6, 26))
        for step in range(60):
            expected[subject[step], 25] += 1
            if step + lag < 60 and subject[step + lag] == subject[step]:
                for number, (a, b) in enumerate(pairs):
                    expected[subject[step], number] += grid.present[step, a] and grid.present[step + lag, b]
        assert _follow(grid, pairs, lag).tolist() == expected.tolist()


def visits(codes: list[str]) -> list[Event]:
    """A subject for each text, with a visit for each word, of a code for each letter, an hour apart."""
    rows = []
    for subject, text in enumerate(codes):
        for number, word in enumerate(text.split()):
            rows += [at(subject, 10 * number + i, letter, encounter=f"{number}") for i, letter in enumerate(word)]
    return rows


Stage = Callable[..., tuple[list[Measure], list[PairRow]] | tuple[list[Measure], list[LagRow]]]


def run(stage: Stage, real: Records, twins: Records, num_resamples: int = 20) -> dict[str, Measure]:
    plan = make_plan(real.num_subjects, twins.num_subjects, 0, seed=0, num_resamples=num_resamples)
    return {one.name: one for one in stage(real, twins, None, plan)[0]}


def test_pairs_in_an_encounter_by_hand() -> None:
    vocabulary = Vocabulary()
    real = records(visits(["AB CD"] * 20), vocabulary)
    twins = records(visits(["AB CD"] * 10 + ["AB AB"] * 10), vocabulary)
    plan = make_plan(20, 20, 0, seed=0, num_resamples=20)
    measures, rows = encounter_measures(real, twins, None, plan)
    found = estimates(measures)
    # of 40 encounters 20 hold A and B, 20 hold C and D; of the twins' 30 and 10
    assert {(row.first, row.second, row.real, row.synthetic) for row in rows} == {
        ("A", "B", 0.5, 0.75),
        ("C", "D", 0.5, 0.25),
    }
    assert all(row.kind == "encounter" for row in rows)
    # half an encounter added: (ln(30.5 / 20.5) + ln(20.5 / 10.5)) / 2 = (0.397282 + 0.669050) / 2
    assert found["encounter.log_ratio"].value == pytest.approx(0.533166, abs=1e-5)
    assert found["encounter.error"].value == pytest.approx(0.25)
    assert measures[0].num_compared == 2


def test_encounters_that_are_not_there() -> None:
    vocabulary = Vocabulary()
    real = records(visits(["AB AB CD"] * 20), vocabulary)
    without = records([at(one.subject_id, 0, one.code) for one in visits(["AB CD"] * 20)], vocabulary)
    none = run(encounter_measures, without, real)["encounter.log_ratio"]
    assert none.estimate is None
    assert not none.applicable
    # the twins have the codes, but in no encounter: as rare as can be, half a pair in 60 encounters
    lost = run(encounter_measures, real, without)["encounter.log_ratio"].estimate
    assert lost is not None
    assert lost.value == pytest.approx((np.log(40.5 / 0.5) + np.log(20.5 / 0.5)) / 2)
    few = run(encounter_measures, records(visits(["AB"] * (MIN_SUBJECTS - 1)), vocabulary), real)
    assert few["encounter.log_ratio"].estimate is None
    assert few["encounter.log_ratio"].applicable


def test_what_lies_further_apart_is_seen_where_the_next_code_is_right() -> None:
    """Real: A B A C, again and again. Twins know only what follows what: after A, B or C by chance."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary()

    def strict(first: int) -> list[Event]:
        return [
            at(subject, hour, "ABAC"[(hour + subject) % 4])
            for subject in range(first, first + 60)
            for hour in range(40)
        ]

    def markov(hour: int) -> str:
        return "BC"[int(rng.integers(2))] if hour % 2 else "A"

    real, fresh = records(strict(0), vocabulary), records(strict(1), vocabulary)
    forgetful = records([at(subject, hour, markov(hour)) for subject in range(60) for hour in range(40)], vocabulary)
    assert run(pair_measures, real, forgetful)["transitions.log_ratio"].estimate.value < 0.1  # type: ignore[union-attr]
    plan = make_plan(60, 60, 0, seed=0, num_resamples=20)
    measures, rows = lag_measures(real, forgetful, None, plan)
    assert [row.lag for row in rows] == [1, 2, 3, 4, 5]
    value = estimates(measures)["transitions.lags"].value
    assert value == pytest.approx(np.mean([row.error.value for row in rows[1:]]))
    assert value > 0.25
    # B is followed by C two steps later, always; of the twins every other time: ln 2. A A is right
    assert rows[1].error.value == pytest.approx(2 / 3 * np.log(2), abs=0.06)
    assert estimates(lag_measures(real, fresh, None, plan)[0])["transitions.lags"].value < 0.02


@pytest.mark.parametrize(
    "events",
    [[], [at(1, 0, "a", encounter="x")], [at(subject, None, "a") for subject in range(30)], visits(["A"] * 30)],
)
def test_nothing_to_compare_is_said(events: list[Event]) -> None:
    vocabulary = Vocabulary()
    real = records(visits(["AB ABC CD CD"] * 30), vocabulary)
    nothing = records(events, vocabulary)
    for stage in (pair_measures, encounter_measures, lag_measures):
        for sides in ((nothing, nothing), (real, nothing), (nothing, real)):
            if sides[0].num_subjects >= 2 and sides[1].num_subjects >= 1:
                assert all(one.estimate is not None or one.reason for one in run(stage, *sides).values())
    short = records(visits(["A B"] * 30), vocabulary)
    assert not run(lag_measures, short, short)["transitions.lags"].applicable


# Broken data


def with_encounters_dealt_anew(table: pa.Table) -> pa.Table:
    """The encounters of a subject go to other events of the subject; times, codes and numbers stay."""
    rows = samples.dated(table)
    subject = table["subject_id"].to_numpy()[rows]
    order = np.arange(len(table))
    order[rows] = rows[np.lexsort((np.random.default_rng(0).random(len(rows)), subject))]
    return samples.with_column(table, "encounter_id", table["encounter_id"].take(order).combine_chunks())


def broken(real: Records, twins: pa.Table) -> dict[str, Estimate]:
    side = tables_to_records([twins], real.vocabulary)
    stages = (pair_measures, encounter_measures, lag_measures)
    return estimates(one for stage in stages for one in run(stage, real, side, 40).values())


def test_an_independent_draw_is_ordinary_and_each_fault_is_seen(real_table: pa.Table, fresh_table: pa.Table) -> None:
    real = tables_to_records([real_table], Vocabulary())
    fresh = broken(real, fresh_table)
    assert is_ordinary(fresh["encounter.r2"], better="higher")
    assert all(is_ordinary(fresh[name]) for name in (*ENCOUNTERS[:2], "transitions.lags"))
    elsewhere = broken(real, with_encounters_dealt_anew(fresh_table))
    assert elsewhere["together.log_ratio"] == fresh["together.log_ratio"]
    assert elsewhere["transitions.lags"] == fresh["transitions.lags"]
    assert not is_ordinary(elsewhere["encounter.r2"], better="higher")
    assert not any(is_ordinary(elsewhere[name]) for name in ENCOUNTERS[:2])
    dealt = broken(real, samples.shuffled_codes(fresh_table))
    assert not is_ordinary(dealt["encounter.log_ratio"])
    assert not is_ordinary(dealt["transitions.lags"])
    collapsed = run(lag_measures, real, tables_to_records([samples.collapsed(fresh_table)], real.vocabulary))
    assert not is_ordinary(estimates(collapsed.values())["transitions.lags"])
