"""The latent of a patient at a moment: the encoder's mean for the record up to then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from medtwin.timelines.batches import collate
from medtwin.timelines.net import TemporalVAE
from medtwin.timelines.sequences import STEP, Sequences
from medtwin.timelines.spec import TimelineSpec

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
    batch = collate(sequences, [row], spec.gaps)
    if time is not None:
        is_step = batch["kind"][0] == STEP
        later = is_step & (batch["minute"][0] > time)
        stop = int(later.nonzero()[0]) if bool(later.any()) else len(is_step)
        if not bool(is_step[:stop].any()):
            return None
        length = len(is_step)
        batch = {
            name: values[:, :stop]
            if values.dim() > 1 and values.shape[1] == length and name != "conditions"
            else values
            for name, values in batch.items()
        }
        batch["window_minutes"] = torch.tensor([max(time - int(sequences.start_minute[row]), 0)])
    mean: NDArray[np.float32] = net.encode(batch).mean[0].numpy().copy()
    return mean
