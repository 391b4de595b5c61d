"""Sequences as batches of tensors: events packed one after the other, steps padded to the longest record of a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medtwin.core.seeds import generator
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, WEEK, GapLaw
from medtwin.timelines.reading.sequences import Sequences

Batch = dict[str, Tensor]


class GroupedTimelines(Dataset[Batch]):
    """Groups of subjects, each about `tokens_per_group` positions; subjects with like many steps stand together.

    Args:
        sequences: The subjects.
        gaps: The law by which gaps are coded.
        tokens_per_group: Events of a group, and its steps with padding; a longer record is a group of its own.
        seed: Decides who of like length stands with whom; groups are the same in every epoch.
    """

    def __init__(self, sequences: Sequences, gaps: GapLaw, tokens_per_group: int, seed: int) -> None:
        self.sequences, self.gaps = sequences, gaps
        self.groups = group_subjects(sequences.num_steps, sequences.num_events, tokens_per_group, seed)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Batch:
        return collate(self.sequences.take(self.groups[index]), self.gaps)


def group_subjects(
    num_steps: NDArray[np.int64], num_events: NDArray[np.int64], tokens_per_group: int, seed: int
) -> list[NDArray[np.int64]]:
    """Indices of subjects, group by group: at most `tokens_per_group` events and padded steps, or one subject."""
    jitter = generator(seed, "groups").uniform(0.9, 1.1, len(num_steps))
    groups: list[list[int]] = []
    longest, events = 0, 0
    for subject in np.argsort(num_steps * jitter, kind="stable").tolist():
        longest, events = max(longest, int(num_steps[subject])), events + int(num_events[subject])
        if groups and (len(groups[-1]) + 1) * longest + events <= tokens_per_group:
            groups[-1].append(subject)
        else:
            groups.append([subject])
            longest, events = int(num_steps[subject]), int(num_events[subject])
    return [np.array(group, dtype=np.int64) for group in groups]


def collate(sequences: Sequences, gaps: GapLaw) -> Batch:
    """The batch of some subjects, B of at most T steps and E events in all.

    Returns:
        Steps, (B, T): step_valid, minute, gap_minutes (since the step before), open_minutes and open_before (until the
        open encounter ends, with and without what the step itself says). Targets where a step ends, (B, T): stop (1, 0,
        or -1 where nothing is decided: after the static facts, and where a record was cut), gap_class, gap_size, clock,
        weekday (of the next step).
        Events, (E, ...): event_token, event_value, event_half, event_has_value, event_memory, event_is_first,
        event_step (row * T + step), event_row, event_first (of its step). Decisions, (D,), one for every event and one
        for every end of a step:
        decision_step, decision_event (events of the batch before it), decision_first (of those, before its step),
        decision_subject (before its subject), decision_target (a token, or -1: the step ends). Events with a number,
        (N,), by subject and token: valued_event, valued_first (where in this order those of the same two begin).
        Attributes, (B, ...): sex, age_start_years, start_minute, window_minutes, facts.
    """
    num_steps, size = sequences.num_steps, np.diff(sequences.event_offsets)
    shape = (len(sequences), int(num_steps.max()))
    row = sequences.subject_of_step()
    column = np.arange(len(row)) - sequences.step_offsets[:-1][row]
    batch = _steps(sequences, shape, (row, column), gaps)
    place = row * shape[1] + column
    batch["event_step"] = np.repeat(place, size)
    batch["event_row"] = np.repeat(row, size)
    batch["event_first"] = np.repeat(sequences.event_offsets[:-1], size)
    for name in ("token", "value", "has_value", "memory", "is_first"):
        batch[f"event_{name}"] = getattr(sequences, name)
    batch["event_half"] = sequences.half_width
    batch["event_token"] = batch["event_token"].astype(np.int64)
    batch["valued_event"], batch["valued_first"] = _by_token(batch)
    step = np.repeat(np.arange(len(row)), size + 1)
    number = np.arange(len(step)) - (sequences.event_offsets[:-1] + np.arange(len(row)))[step]
    before = sequences.event_offsets[:-1][step] + number
    is_end = number == size[step]
    token = np.append(batch["event_token"], -1)
    batch["decision_step"], batch["decision_event"] = place[step], before
    batch["decision_first"] = sequences.event_offsets[:-1][step]
    batch["decision_subject"] = sequences.event_offsets[sequences.step_offsets[:-1]][row[step]]
    batch["decision_target"] = np.where(is_end, -1, token[np.minimum(before, len(token) - 1)])
    for name in ("sex", "age_start_years", "start_minute", "window_minutes", "facts"):
        batch[name] = getattr(sequences, name)
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def _by_token(batch: dict[str, NDArray[np.generic]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    event = np.flatnonzero(batch["event_has_value"])
    row, token = batch["event_row"][event], batch["event_token"][event]
    order = np.lexsort((token, row))
    row, token = row[order], token[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (row[1:] != row[:-1]) | (token[1:] != token[:-1])
    return event[order], np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))


def _steps(
    sequences: Sequences,
    shape: tuple[int, int],
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    gaps: GapLaw,
) -> dict[str, NDArray[np.generic]]:
    row, column = at
    minute = np.broadcast_to(np.asarray(sequences.start_minute)[:, None], shape).copy()
    minute[at] = sequences.minute
    valid = np.zeros(shape, dtype=bool)
    valid[at] = True
    gap = np.zeros(shape, dtype=np.int64)
    gap[:, 1:] = np.where(valid[:, 1:], np.diff(minute, axis=1), 0)
    after, before = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    after[at] = sequences.open_minutes
    before[:, 1:] = np.maximum(after[:, :-1] - gap[:, 1:], 0)
    stop = np.full(shape, -1, dtype=np.int64)
    stop[row, column] = np.where(column == 0, -1, 0)
    last = sequences.num_steps - 1
    is_decided = ~np.asarray(sequences.is_cut) & (last > 0)
    stop[np.arange(shape[0]), last] = np.where(is_decided, 1, -1)
    goes = np.nonzero(stop == 0)
    end = np.asarray(sequences.start_minute + sequences.window_minutes)[goes[0]]
    later = minute[goes[0], goes[1] + 1]
    classes, sizes, clocks = gaps.encode(minute[goes], later, end)
    found: dict[str, NDArray[Any]] = {"gap_class": classes, "gap_size": sizes, "clock": clocks}
    found["weekday"] = later // MINUTES_PER_DAY % WEEK
    targets = {name: np.zeros(shape, values.dtype) for name, values in found.items()}
    for name, values in found.items():
        targets[name][goes] = values
    return {
        "step_valid": valid,
        "minute": minute,
        "gap_minutes": gap,
        "open_minutes": after,
        "open_before": before,
        "stop": stop,
        **targets,
    }


__all__ = ["Batch", "GroupedTimelines", "collate", "group_subjects"]
