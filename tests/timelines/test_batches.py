from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from medtwin.core.codes import DEATH
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.timelines.network.history import since_began
from medtwin.timelines.reading.batches import GroupedTimelines, collate, group_subjects
from medtwin.timelines.reading.gaps import GapLaw
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import SpecSettings, TimelineSpec
from tests.timelines.conftest import Fitted, fit

START = datetime(2020, 1, 1, 10, 0)
GAPS = GapLaw((5,), (), 1)
SIX_DAYS = 6 * 1440


def at(subject: int, minutes: int | None, code: str, value: float | None = None) -> Event:
    time = None if minutes is None else START + timedelta(minutes=minutes)
    return Event(subject, time, code, value, event_id=f"{subject}{code}{minutes}", time_precision="second+00:00")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Subject 1: static R; A and B; after 5 minutes A; dead six days on. Subject 2: nothing static; B; stops."""
    events = [
        at(1, None, "R"), at(1, 0, "A", 1.0), at(1, 0, "B"), at(1, 5, "A", 3.0), at(1, SIX_DAYS, DEATH),
        at(2, 0, "B"),
    ]  # fmt: skip
    table = sort_events(events_to_table(events))
    settings = SpecSettings(min_subjects=1, details=(), num_conditions=0, facts=(DEATH, "R"), max_positions=50)
    return fit(tmp_path_factory.mktemp("two"), table, settings=settings)


def test_a_batch_of_two_by_hand(two: Fitted) -> None:
    spec, sequences = two
    place = {token.code: index for index, token in enumerate(spec.vocabulary.tokens)}
    assert place == {"A": 0, "B": 1, "R": 2, DEATH: 3}
    batch = {name: tensor.tolist() for name, tensor in collate(sequences.take(np.arange(2)), GAPS).items()}
    t, f = True, False
    assert batch["step_valid"] == [[t, t, t, t], [t, t, f, f]]
    start = int(sequences.start_minute[0])
    assert batch["minute"][0] == [start, start, start + 5, start + SIX_DAYS]
    assert batch["gap_minutes"] == [[0, 0, 5, SIX_DAYS - 5], [0, 0, 0, 0]]
    assert batch["event_token"] == [2, 0, 1, 0, 3, 1]
    assert batch["event_row"] == [0, 0, 0, 0, 0, 1]
    assert batch["event_step"] == [0, 1, 1, 2, 3, 5]
    assert batch["event_has_value"] == [f, t, f, t, f, f]
    assert batch["event_is_first"] == [t, t, t, f, t, t]
    # One decision for every event, and one where each of the six steps ends.
    assert batch["decision_target"] == [2, -1, 0, 1, -1, 0, -1, 3, -1, -1, 1, -1]
    assert batch["decision_step"] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5]
    assert batch["decision_event"] == [0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 5, 6]
    assert batch["decision_first"] == [0, 0, 1, 1, 1, 3, 3, 4, 4, 5, 5, 5]
    assert batch["decision_subject"] == [0] * 9 + [5] * 3
    assert batch["stop"] == [[-1, 0, 0, 1], [-1, 1, -1, -1]]
    assert batch["gap_class"][0][1:3] == [1, GAPS.end_class]
    assert batch["clock"][0][1:3] == [10 * 12 + 1, 10 * 12]
    assert batch["facts"] == [[1, 1], [0, 0]]
    assert batch["window_minutes"] == [SIX_DAYS, 0]


def test_a_cut_record_does_not_decide_to_stop(two: Fitted) -> None:
    sequences = two[1].take(np.arange(2))
    cut = collate(sequences.until(np.array([3, 2])), GAPS)
    assert cut["stop"].tolist() == [[-1, 0, -1], [-1, 1, -1]]
    alone = collate(sequences.until(np.array([1, 1])), GAPS)
    assert alone["stop"].tolist() == [[-1], [-1]]
    assert alone["decision_target"].tolist() == [2, -1, -1]


def test_an_open_encounter_is_known_before_the_step_and_after_it(short: Sequences, short_fitted: Fitted) -> None:
    spec: TimelineSpec = short_fitted[0]
    batch = collate(short.take(np.array([6])), spec.gaps)
    valid = batch["step_valid"][0]
    after, before, gap = (batch[name][0][valid] for name in ("open_minutes", "open_before", "gap_minutes"))
    assert after[1] > 0
    assert before[0] == before[1] == 0
    assert before[1:].tolist() == np.maximum(after[:-1].numpy() - gap[1:].numpy(), 0).tolist()
    assert (after >= before).all()


def test_together_is_each_alone(short: Sequences, short_fitted: Fitted) -> None:
    gaps, rows = short_fitted[0].gaps, np.array([5, 0, 6])
    whole = collate(short.take(rows), gaps)
    length, events, decisions, valued = whole["minute"].shape[1], 0, 0, 0
    for place, row in enumerate(rows):
        alone = collate(short.take(np.array([row])), gaps)
        num, size = len(alone["event_token"]), len(alone["decision_step"])
        steps = alone["minute"].shape[1]
        for name, tensor in alone.items():
            if name.startswith("event_"):
                shift = {"event_step": place * length, "event_row": place, "event_first": events}.get(name, 0)
                assert whole[name][events : events + num].tolist() == (tensor + shift if shift else tensor).tolist()
            elif name.startswith("valued_"):
                shift = {"valued_event": events, "valued_first": valued}[name]
                assert whole[name][valued : valued + len(tensor)].tolist() == (tensor + shift).tolist()
            elif name.startswith("decision_"):
                shift = {"decision_step": place * length, "decision_target": 0}.get(name, events)
                assert whole[name][decisions : decisions + size].tolist() == (tensor + shift).tolist()
            else:
                mine = whole[name][place : place + 1]
                assert np.array_equal(mine[:, :steps] if mine.dim() == 2 and name != "facts" else mine, tensor, True)
        events, decisions, valued = events + num, decisions + size, valued + len(alone["valued_event"])


def test_groups_hold_everybody_once_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    steps, events = rng.integers(2, 60, 300), rng.integers(5, 300, 300)
    groups = group_subjects(steps, events, 2048, seed=1)
    assert sorted(np.concatenate(groups).tolist()) == list(range(300))
    sizes = [len(group) * steps[group].max() + events[group].sum() for group in groups]
    assert max(sizes) <= 2048
    assert np.mean(sizes) > 1500
    padded = sum(len(group) * steps[group].max() for group in groups)
    assert padded < 1.3 * steps.sum()
    other = group_subjects(steps, events, 2048, seed=2)
    assert [g.tolist() for g in other] != [g.tolist() for g in groups]


def test_a_record_beyond_the_budget_stands_alone() -> None:
    groups = group_subjects(np.array([4, 900, 5]), np.array([10, 9000, 12]), 100, seed=0)
    assert sorted(map(len, groups)) == [1, 2]


def test_a_group_is_what_it_says(short: Sequences, short_fitted: Fitted) -> None:
    grouped = GroupedTimelines(short, short_fitted[0].gaps, 256, seed=0)
    assert len(grouped) > 3
    seen = [grouped[index]["start_minute"].tolist() for index in range(len(grouped))]
    assert sorted(minute for part in seen for minute in part) == sorted(short.start_minute.tolist())


def test_a_batch_from_disk_shares_no_memory_with_the_file(
    short: Sequences, short_fitted: Fitted, tmp_path: Path
) -> None:
    batch = collate(short.take(np.array([1])), short_fitted[0].gaps)
    batch["event_value"].fill_(7.0)
    batch["facts"].fill_(1)
    assert not (np.asarray(short.value) == 7.0).any()


def test_what_is_first_said_late_began_then(tmp_path: Path) -> None:
    """D is said from the start and may have begun before; E is first said after 500 days, and again."""
    day = 1440
    events = [at(1, 0, "D"), at(1, 3 * day, "D"), *(at(1, n * day, "E") for n in (500, 505)), at(1, 900 * day, "F")]
    events += [at(2, 0, "F"), at(2, 401 * day, "D"), at(2, 402 * day, "F")]
    settings = SpecSettings(min_subjects=1, details=(), num_conditions=0, facts=(), max_positions=50)
    spec, sequences = fit(tmp_path, sort_events(events_to_table(events)), settings=settings)
    batch = collate(sequences.take(np.arange(2)), spec.gaps)
    causes = torch.from_numpy(spec.vocabulary.where(["D", "E"]))
    inf = float("inf")
    found = since_began(batch, causes)
    assert found[0, :, 0].tolist() == [inf] * 6
    assert found[0, :, 1].tolist() == [inf, inf, inf, inf, 5 * day, 400 * day]
    assert found[1, :4, 0].tolist() == [inf, inf, inf, day]
    assert found[1, :4, 1].tolist() == [inf] * 4
