"""Patients of a small law, and generations of twins that forget, or do not."""

from __future__ import annotations

import numpy as np

from medtwin.check.records import Records, Vocabulary

DAY_US = 86_400_000_000
NUM_CODES = 30


def vocabulary() -> Vocabulary:
    return Vocabulary({f"T//{number:02d}": number for number in range(NUM_CODES)})


def law(seed: int = 0) -> np.ndarray:
    """Transitions (codes, codes) with rare ways; the last five codes are rare."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(NUM_CODES, 0.3), size=NUM_CODES) + 1e-3
    weights[:, -5:] *= 0.05
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def draw(transitions: np.ndarray, number: int, seed: int, *, length: int = 30) -> Records:
    """So many subjects, one event a day."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(transitions, axis=1)
    state = rng.integers(NUM_CODES - 5, size=number)
    said = [state]
    for _ in range(length - 1):
        state = (rng.random(number)[:, None] > cumulative[state]).sum(axis=1).clip(0, NUM_CODES - 1)
        said.append(state)
    code = np.stack(said, axis=1).reshape(-1)
    subject = np.repeat(np.arange(number), length)
    time = np.tile(np.arange(length), number) * DAY_US
    empty = np.zeros(len(code), np.int64)
    nothing = np.full(len(code), np.nan, np.float32)
    return Records(vocabulary(), np.arange(number), subject, time, code, empty, nothing, empty - 1)


def counted(records: Records) -> np.ndarray:
    """The transitions of records, nothing smoothed but a state that nobody left."""
    steps = records.steps
    code = records.code[steps.event]
    same = records.subject[1:] == records.subject[:-1]
    counts = np.zeros((NUM_CODES, NUM_CODES))
    np.add.at(counts, (code[:-1][same], code[1:][same]), 1)
    counts[counts.sum(axis=1) == 0] = 1
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def replaced(real: Records, generations: int, seed: int) -> list[Records]:
    """Each generation learned from the one before alone."""
    made = [real]
    for generation in range(generations):
        made.append(draw(counted(made[-1]), real.num_subjects, seed + generation))
    return made[1:]


def accumulated(real: Records, generations: int, seed: int) -> list[Records]:
    """Each generation learned from real patients and all twins before it, as many of each."""
    laws, made = [counted(real)], []
    for generation in range(generations):
        made.append(draw(np.mean(laws, axis=0), real.num_subjects, seed + generation))
        laws.append(counted(made[-1]))
    return made
