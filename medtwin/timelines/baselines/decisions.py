"""The decisions of training records that a first-order chain is counted from: what came after what, and when.

A state of the chain is where a record stands before it says the next token: at its static facts (0), at its first dated
step (1), within a step after a token (2 + token), or at a new step after the last token of the step before
(2 + V + token).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.gaps import GapLaw
from medtwin.timelines.reading.sequences import Sequences

Ints = NDArray[np.int64]
AT_STATIC, AT_FIRST, FIRST_TOKEN = 0, 1, 2
_PASSED, NUM_LEFT = 128, 32
NUM_POSITIONS = _PASSED * NUM_LEFT
_SUBJECTS_AT_ONCE = 1000


def parts_of(sequences: Sequences) -> Iterator[Sequences]:
    """The subjects, some at a time, so that files that are mapped into memory are never read as a whole."""
    for first in range(0, len(sequences), _SUBJECTS_AT_ONCE):
        yield sequences.take(np.arange(first, min(first + _SUBJECTS_AT_ONCE, len(sequences))))


def said(part: Sequences, num_codes: int) -> tuple[Ints, Ints]:
    """State and what was said in it, (decisions,) each: a token, or V where the step ends."""
    size = np.diff(part.event_offsets)
    step = np.repeat(np.arange(len(size)), size + 1)
    number = np.arange(len(step)) - (part.event_offsets[:-1] + np.arange(len(size)))[step]
    before = part.event_offsets[:-1][step] + number
    token = np.append(np.asarray(part.token, np.int64), num_codes)
    target = np.where(number == size[step], num_codes, token[np.minimum(before, len(token) - 1)])
    in_subject = np.arange(len(size)) - part.step_offsets[:-1][part.subject_of_step()]
    opening = np.where(in_subject == 0, AT_STATIC, AT_FIRST)
    later = in_subject > 1
    opening[later] = FIRST_TOKEN + num_codes + token[part.event_offsets[:-1][later] - 1]
    state = np.where(number == 0, opening[step], FIRST_TOKEN + token[np.maximum(before - 1, 0)])
    return state, target


def position_of(passed_minutes: Ints, left_minutes: Ints) -> Ints:
    """Where in its window a record stands, (n,), 0 to `NUM_POSITIONS` - 1.

    By the minutes that have passed in quarter octaves, and by those that are left in octaves:
    32 ceil(4 log2(1 + passed)) + ceil(log2(1 + left)), either within its bounds.

    >>> position_of(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 3])).tolist()
    [0, 1, 128, 130]
    """
    passed = np.ceil(4 * np.log2(1.0 + np.maximum(passed_minutes, 0)))
    left = np.ceil(np.log2(1.0 + np.maximum(left_minutes, 0)))
    return np.asarray(NUM_LEFT * np.minimum(passed, _PASSED - 1) + np.minimum(left, NUM_LEFT - 1)).astype(np.int64)


@dataclass(frozen=True)
class StepEnds:
    """Where records went on or stopped after a step, N in all.

    Attributes:
        subject: (N,) whose. token: (N,) the last one of the step. position: (N,) as `position_of`.
        gap_class: (N,) of the gap to the next step, or the number of classes where the record stopped.
        log_size, clock: (N,) as `GapLaw.encode`.
    """

    subject: Ints
    token: Ints
    position: Ints
    gap_class: Ints
    log_size: NDArray[np.float64]
    clock: Ints


def step_ends(part: Sequences, gaps: GapLaw, dies: NDArray[np.bool_]) -> StepEnds:
    """The ends of dated steps that something was decided at: not the last one of who was cut there, or died (S,)."""
    subject = part.subject_of_step()
    number = np.arange(len(subject)) - part.step_offsets[:-1][subject]
    is_last = number == part.num_steps[subject] - 1
    kept = (number > 0) & ~(is_last & (np.asarray(part.is_cut) | dies)[subject])
    at = np.flatnonzero(kept)
    who, now = subject[at], np.asarray(part.minute)[at]
    end = (np.asarray(part.start_minute) + np.asarray(part.window_minutes))[who]
    after = np.where(is_last[at], now, np.append(np.asarray(part.minute), 0)[at + 1])
    classes, sizes, clocks = gaps.encode(now, after, end)
    return StepEnds(
        subject=np.asarray(part.subject_id)[who],
        token=np.asarray(part.token, np.int64)[part.event_offsets[1:][at] - 1],
        position=position_of(now - np.asarray(part.start_minute)[who], end - now),
        gap_class=np.where(is_last[at], gaps.num_classes, classes),
        log_size=sizes.astype(np.float64),
        clock=clocks,
    )
