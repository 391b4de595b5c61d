from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import ks_2samp

from medtwin.core.codes import DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.events import events_to_table, sort_events, validate_events
from medtwin.pipelines.generate_twins import known_events
from medtwin.timelines.generation.generate import Timeline, TimelineModel
from medtwin.timelines.generation.records import RecordWriter, rows_to_table
from medtwin.timelines.priors.probes import Probed, encode_all, probe
from medtwin.timelines.reading.batches import GroupedTimelines
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.steering.continuation import beginnings, complete, continue_records
from medtwin.timelines.steering.interpolation import between, great_circle
from medtwin.timelines.steering.steer import posteriors


@pytest.fixture(scope="module")
def records(short: Sequences) -> Sequences:
    return short.take(np.arange(16))


@pytest.fixture(scope="module")
def continued(short_model: TimelineModel, records: Sequences) -> list[Timeline]:
    return continue_records(short_model, records, beginnings(short_model, records, steps=1), seed=3)


def test_a_beginning_ends_after_days_or_steps(short_model: TimelineModel, records: Sequences) -> None:
    by_steps = beginnings(short_model, records, steps=1)
    assert (by_steps.num_steps >= 2).all()
    first = records.step_offsets[:-1]
    assert (by_steps.last_minute == records.minute[first + 1]).all()
    at_start = beginnings(short_model, records, days=0)
    assert (at_start.num_steps == by_steps.num_steps).all()
    whole = beginnings(short_model, records, days=40_000)
    assert (whole.num_steps == records.num_steps).all()
    deaths = records.facts[:, short_model.spec.profile.facts.index(DEATH)] > 0
    assert (whole.is_over == (deaths & ~records.is_cut)).all()
    assert not at_start.is_over.any()
    for given, message in (
        ({}, "twin.until .days. or twin.steps must be given"),
        ({"days": 3.0, "steps": 1}, "not both"),
        ({"days": -1.0}, "twin.until must be from 0"),
        ({"steps": 0}, "twin.steps must be 1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            beginnings(short_model, records, **given)


def test_a_continuation_comes_after_what_is_known_and_agrees_with_it(
    short_model: TimelineModel, records: Sequences, continued: list[Timeline]
) -> None:
    known = beginnings(short_model, records, steps=1)
    law, spec = short_model.spec.profile, short_model.spec
    assert any(timeline.tokens for timeline in continued)
    for row, timeline in enumerate(continued):
        one = records.attributes()[row]
        given = timeline.attributes
        assert (given.sex, given.start_minute) == (one.sex, one.start_minute)
        assert given.window_minutes > known.last_minute[row] - one.start_minute
        assert all(step >= known.num_steps[row] for step in timeline.steps)
        assert all(minute >= known.last_minute[row] for minute in timeline.minutes)
        mine = slice(
            *records.event_offsets[[records.step_offsets[row], records.step_offsets[row] + known.num_steps[row]]]
        )
        named = {int(fact) for fact in spec.fact_of[records.token[mine]] if fact >= 0}
        assert all(given.facts[fact] for fact in named)
        assert [given.facts[i] for i in np.flatnonzero(law.is_static)] == [
            one.facts[i] for i in np.flatnonzero(law.is_static)
        ]


def test_a_continuation_depends_on_the_future_of_the_record_in_nothing(
    short_model: TimelineModel, records: Sequences, continued: list[Timeline]
) -> None:
    known = beginnings(short_model, records, steps=1)
    forgotten = records.until(known.num_steps)
    law = short_model.spec.profile
    forgotten = replace(forgotten, facts=np.where(law.is_static, forgotten.facts, 0).astype(np.uint8))
    again = continue_records(short_model, forgotten, known, seed=3)
    assert [t.tokens for t in again] == [t.tokens for t in continued]
    assert str([t.attributes for t in again]) == str([t.attributes for t in continued])  # nan is not nan
    other = continue_records(short_model, forgotten, known, seed=4)
    assert [t.tokens for t in other] != [t.tokens for t in continued]


def test_windows_and_facts_of_a_beginning_follow_the_law_given_what_is_known(short_model: TimelineModel) -> None:
    """Against rejection: whoever has the fact and is still looked at, among many drawn with the same roots."""
    law = short_model.spec.profile
    one = law.draw(np.random.default_rng(1).random((1, law.num_uniforms)))[0]
    fact = int(np.flatnonzero(~law.is_static)[-1])
    named = [0] * law.num_facts
    named[fact] = 1
    free = law.draw(np.random.default_rng(2).random((40_000, law.num_uniforms)), [one] * 40_000)
    elapsed = int(np.median([each.window_minutes for each in free]))
    matching = [each for each in free if each.facts[fact] and each.window_minutes > elapsed]
    root = replace(
        one, window_minutes=elapsed, facts=tuple(f if s else 0 for f, s in zip(one.facts, law.is_static, strict=True))
    )
    holds = [max(f, n) for f, n in zip(root.facts, named, strict=True)]
    made = [complete(law, root, holds, np.random.default_rng([3, n])) for n in range(300)]
    assert all(each.facts[fact] and each.window_minutes > elapsed for each in made)
    for other in np.flatnonzero(~law.is_static):
        share, expected = (np.mean([each.facts[other] for each in group]) for group in (made, matching))
        assert share == pytest.approx(expected, abs=0.1)
    windows, true = (np.array([each.window_minutes for each in group]) for group in (made, matching))
    assert ks_2samp(windows, true).pvalue > 0.01


def test_what_is_known_stays_as_it_is_under_new_ids(
    short_model: TimelineModel, short_table: pa.Table, records: Sequences, continued: list[Timeline]
) -> None:
    known = beginnings(short_model, records, steps=1)
    rows = []
    for row, timeline in enumerate(continued):
        subject, last = int(records.subject_id[row]), int(known.last_minute[row])
        prefix = known_events(short_table, subject, last, 1000 + row)
        mine = short_table.filter(pc.equal(short_table["subject_id"], subject))
        times = mine["time"].to_numpy().astype("datetime64[m]").astype(np.int64)
        kept = mine.filter(pa.array((times <= last) | mine["time"].is_null().to_numpy()))
        copied = events_to_table(prefix.events)
        for name in ("time", "code", "numeric_value", "unit", "end_time", "status", "time_precision", "resource"):
            assert copied[name].equals(kept[name])
        assert not set(copied["event_id"].drop_null().to_pylist()) & set(kept["event_id"].drop_null().to_pylist())
        new = [tuple(getattr(event, name) for name in copied.column_names) for event in prefix.events]
        rows += [*new, *RecordWriter(short_model.spec).rows(timeline, 1000 + row, prefix)]
    table = sort_events(rows_to_table(rows))
    assert validate_events(table) == []
    ids = table["event_id"].drop_null().to_pylist()
    assert len(ids) == len(set(ids))


def test_the_ends_of_an_interpolation_have_the_roots_and_z_of_both(
    short_model: TimelineModel, records: Sequences
) -> None:
    pair = records.take(np.array([3, 4]))
    parts, twins = between(short_model, pair, num=5, seed=3)
    assert parts == [0.0, 0.25, 0.5, 0.75, 1.0]
    means = posteriors(short_model, pair)[0]
    static = short_model.spec.profile.is_static
    for end, twin in ((0, twins[0]), (1, twins[-1])):
        one = pair.attributes()[end]
        assert np.allclose(twin.latent, means[end], atol=1e-6)
        assert (twin.attributes.sex, twin.attributes.age_start_years) == (one.sex, one.age_start_years)
        assert twin.attributes.start_minute == one.start_minute
        assert np.array_equal(np.array(twin.attributes.facts)[static], np.array(one.facts)[static])
    ages = [twin.attributes.age_start_years for twin in twins]
    assert ages == pytest.approx(np.linspace(ages[0], ages[-1], 5).tolist())
    first, last = (one.sex for one in pair.attributes())
    assert [twin.attributes.sex for twin in twins] == [first, first, last, last, last]
    again = between(short_model, pair, num=5, seed=3)[1]
    assert [twin.tokens for twin in again] == [twin.tokens for twin in twins]
    with pytest.raises(ConfigError, match=r"twin.n must be 2 or more"):
        between(short_model, pair, num=1, seed=3)


def test_z_keeps_its_length_on_the_great_circle() -> None:
    one, other = np.array([3.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.0])
    assert np.linalg.norm(great_circle(one, other, 0.4)) == pytest.approx(3.0)
    assert great_circle(one, -one, 0.5).tolist() == [0.0, 0.0, 0.0]  # opposite points have no one circle
    assert great_circle(one, 0 * one, 0.5).tolist() == [1.5, 0.0, 0.0]
    assert great_circle(one, other, 0.0).tolist() == one.tolist()


def test_probes_read_what_z_says_and_nothing_of_what_it_does_not(short_model: TimelineModel) -> None:
    rng = np.random.default_rng(0)

    def people(num: int) -> Probed:
        latent = rng.standard_normal((num, 3))
        facts = np.zeros((num, short_model.spec.profile.num_facts), dtype=np.int64)
        facts[:, 1] = rng.random(num) < 0.3
        facts[:MIN_FEW, 2] = 1
        age = 50 + 10 * latent[:, 0] + rng.standard_normal(num)
        return Probed(latent, age, 1 + (latent[:, 1] > 0).astype(np.int64), facts)

    MIN_FEW = 4  # noqa: N806
    found = {each.attribute: each for each in probe(people(400), people(300), short_model.spec)}
    assert found["age"].value > 0.95
    assert found["age"].low < found["age"].value < found["age"].high
    assert abs(found["age"].shuffled) < 0.1
    assert found["sex"].value > 0.95
    assert 0.4 < found["sex"].shuffled < 0.6
    fact = found[short_model.spec.profile.facts[1]]
    assert fact.low < 0.5 < fact.high
    assert short_model.spec.profile.facts[2] not in found  # too few have it


def test_probes_encode_whole_groups(short_model: TimelineModel, short: Sequences) -> None:
    found = encode_all(short_model.net, GroupedTimelines(short, short_model.spec.gaps, 400, 0))  # type: ignore[arg-type]
    assert found.latent.shape == (len(short), 4)
    assert sorted(found.sex.tolist()) == sorted(short.sex.tolist())
    assert found.facts.sum() == short.facts.sum()
