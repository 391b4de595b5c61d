"""The latent of a patient at a moment: the encoder's mean for the record up to then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Latents = dict[int, list[NDArray[np.float32] | None]]


def latents_at(
    net: TemporalVAE, spec: TimelineSpec, table: pa.Table, moments: Mapping[int, Sequence[int | None]]
) -> Latents:
    """Posterior means at some moments, each alone, so that a latent depends on nothing but the record before it.

    Args:
        net: Trained.
        spec: Of the run.
        table: Events of whole subjects.
        moments: By subject, minutes since 1970; None: the whole record.

    Returns:
        By subject, (latent,) for each moment; None where the record has no step by then, or is no timeline at all.
    """
    found: Latents = {subject: [None] * len(times) for subject, times in moments.items()}
    sequences = spec.sequences(table)
    if sequences is None:
        return found
    row_of = {int(subject): row for row, subject in enumerate(sequences.subject_id)}
    with torch.inference_mode():
        for subject, times in moments.items():
            if subject in row_of:
                found[subject] = [_latent(net, spec, sequences, row_of[subject], time) for time in times]
    return found


def _latent(
    net: TemporalVAE, spec: TimelineSpec, sequences: Sequences, row: int, time: int | None
) -> NDArray[np.float32] | None:
    record = sequences.take(np.array([row]))
    if time is not None:
        num_steps = int((record.minute <= time).sum())
        if num_steps < 2:  # the static facts alone
            return None
        window = np.array([max(time - int(record.start_minute[0]), 0)], dtype=np.int64)
        record = replace(record.until(np.array([num_steps])), window_minutes=window)
        record = replace(record, facts=named_so_far(spec, record))  # nothing of what comes later
    mean: NDArray[np.float32] = net.encode(collate(record, spec.gaps)).mean[0].numpy().copy()
    return mean


def named_so_far(spec: TimelineSpec, known: Sequences) -> NDArray[np.uint8]:
    """(S, K) facts that beginnings of records name, and the static ones, which are known from the start."""
    facts = np.where(spec.profile.is_static, known.facts, 0).astype(np.uint8)
    fact = spec.fact_of[np.asarray(known.token)]
    owner = known.subject_of_step()[known.step_of_event()]
    facts[owner[fact >= 0], fact[fact >= 0]] = 1
    return facts
