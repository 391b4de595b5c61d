"""Canaries are strangers of one law, and what a model remembers of them is told as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check.attacks.canaries import Heard, canary_measures, no_canaries, twin_scores
from medtwin.check.attacks.planting import CODES_PER_VISIT, MIN_BEARERS, VISITS, Canaries, Pool, make_canaries
from medtwin.check.records import Vocabulary, tables_to_records
from medtwin.core.codes import BIRTH
from medtwin.core.events import Event, events_to_table, sort_events, validate_events

START = datetime(2020, 1, 6, 9)


def _patients(number: int) -> Iterator[Event]:
    rng = np.random.default_rng(0)
    for subject in range(1, number + 1):
        yield Event(subject, None, f"GENDER//{'FM'[subject % 2]}", resource="Patient")
        yield Event(subject, datetime(1960, 1, 1), BIRTH, resource="Patient")
        for day in range(20):
            code = f"LAB//{int(rng.integers(40))}"
            yield Event(subject, START + timedelta(days=day), code, float(day), unit="mg", resource="Observation")
    yield Event(number, START, "LAB//of one alone", resource="Observation")


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.of([events_to_table(_patients(60))])


@pytest.fixture(scope="module")
def canaries(pool: Pool) -> Canaries:
    return make_canaries(pool, number=80, references=200, seed=1, taken={5})


def test_canaries_are_valid_records_of_codes_that_several_have(canaries: Canaries) -> None:
    assert validate_events(sort_events(canaries.events)) == []
    codes = canaries.events["code"].to_pylist()
    assert "LAB//of one alone" not in codes
    visits = [code for code in codes if code.startswith("LAB//")]
    assert len(visits) == 280 * VISITS * CODES_PER_VISIT
    assert 5 not in canaries.roles
    per_subject = canaries.events.filter(pa.compute.equal(canaries.events["subject_id"], next(iter(canaries.roles))))
    drawn = [code for code in per_subject["code"].to_pylist() if code.startswith("LAB//")]
    assert len(set(drawn)) == VISITS * CODES_PER_VISIT
    assert per_subject["code"].to_pylist()[0].startswith("GENDER//")


def test_a_coin_decides_and_more_canaries_change_none_of_the_first(pool: Pool, canaries: Canaries) -> None:
    roles = list(canaries.roles.values())
    assert roles[80:] == ["reference"] * 200
    assert 25 <= roles[:80].count("member") <= 55
    more = make_canaries(pool, number=81, references=0, seed=1, taken={5})
    assert list(more.roles.items())[:80] == list(canaries.roles.items())[:80]
    assert set(canaries.of("member")["subject_id"].to_pylist()) == {
        s for s, r in canaries.roles.items() if r == "member"
    }


def test_too_few_codes_are_refused() -> None:
    few = Pool(rows={"LAB//1": []}, bearers={"LAB//1": MIN_BEARERS})
    with pytest.raises(ValueError, match="canaries need 30 codes that 5 training subjects have, got 1"):
        make_canaries(few, number=60, references=10, seed=0)


def _heard(gain: float, seed: int) -> Heard:
    rng = np.random.default_rng(seed)
    return Heard(rng.normal(gain, 1, 50), rng.normal(0, 1, 50), rng.normal(0, 1, 500))


def test_a_model_that_remembers_is_told_and_one_that_does_not_is_not() -> None:
    alarms = 0
    for seed in range(60):
        measures, _ = canary_measures({"x": _heard(0, seed)}, judged="x")
        assert measures[1].estimate is not None
        alarms += measures[1].estimate.low > 0
    assert alarms <= 6  # 2.5 % expected above
    measures, told = canary_measures({"x": _heard(4, 0), "y": _heard(0, 0)}, judged="x")
    epsilon, exposure = (one.estimate for one in measures)
    assert epsilon is not None
    assert exposure is not None
    most = np.log(0.8609 / 0.1391)  # 20 guesses: 0.05 = p^20
    assert 1 < epsilon.value <= epsilon.high == pytest.approx(most, abs=0.001)
    assert exposure.low > 3
    assert [one.name for one in told] == ["x", "y"]
    assert not any(one.applicable for one in no_canaries("none"))


def test_exposure_is_a_rank_among_references() -> None:
    heard = Heard(np.array([9.0, 0.0]), np.array([-1.0]), np.array([0.0, 1.0, 2.0]))
    members, held_out = heard.exposures()
    assert members.tolist() == [2.0, 0.0]  # log2(4 / 1); a tie counts as the worst
    assert held_out.tolist() == [0.0]
    assert Heard.of({1: np.nan, 2: 3.0}, {1: "member", 2: "held_out"}).members.tolist() == [-np.inf]


def test_twins_that_repeat_canaries_give_them_away(canaries: Canaries) -> None:
    vocabulary = Vocabulary()
    made = tables_to_records([canaries.events], vocabulary)
    twins = tables_to_records([canaries.of("member"), events_to_table(_patients(40))], vocabulary)
    scores = dict(zip(made.subjects.tolist(), twin_scores(made, twins).tolist(), strict=True))
    heard = Heard.of(scores, canaries.roles)
    assert heard.members.tolist() == [1.0] * len(heard.members)
    assert heard.held_out.max() < 1
    measures, _ = canary_measures({"twins": heard}, judged="twins")
    assert measures[0].estimate is not None
    assert measures[0].estimate.value > 1
    strangers = tables_to_records([events_to_table(_patients(40))], vocabulary)
    quiet = Heard.of(
        dict(zip(made.subjects.tolist(), twin_scores(made, strangers).tolist(), strict=True)), canaries.roles
    )
    measures, _ = canary_measures({"twins": quiet}, judged="twins")
    assert measures[0].estimate is not None
    assert measures[0].estimate.value < 1
