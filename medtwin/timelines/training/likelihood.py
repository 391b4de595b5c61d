"""How likely the model finds a record: the evidence lower bound of each patient, for `check`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from medtwin.core.seeds import generator
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.spec import TimelineSpec

BATCH = 16


@dataclass(frozen=True)
class Bounds:
    """The bound of some subjects.

    Attributes:
        subject_id: Whose, (subjects,). nats: log p(x | z) - KL(q(z | x) || p(z)) at one draw of z, (subjects,).
        num_positions: Steps and events that it is of, (subjects,).
    """

    subject_id: NDArray[np.int64]
    nats: NDArray[np.float64]
    num_positions: NDArray[np.int64]


def evidence_bounds(net: TemporalVAE, spec: TimelineSpec, table: pa.Table, *, seed: int) -> Bounds:
    """The evidence lower bound of every subject of a table of events whose record is a timeline.

    Args:
        net: Trained.
        spec: Of the run.
        table: Events of whole subjects.
        seed: Decides the draw of z of each subject, whoever else there is.

    Source: Kingma & Welling 2014, equation 3.
    """
    sequences = spec.sequences(table)
    if sequences is None:
        return Bounds(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    nats = np.zeros(len(sequences.subject_id))
    order = np.argsort(sequences.num_steps, kind="stable")  # records of one length together: little padding
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = collate(sequences.take(chosen), spec.gaps)
            read = net.read(batch)
            posterior = net.encode(batch, read)
            noise = [
                generator(seed, "likelihood", int(sequences.subject_id[row])).standard_normal(posterior.mean.shape[1])
                for row in chosen
            ]
            z = posterior.mean + torch.exp(0.5 * posterior.log_var) * torch.as_tensor(
                np.stack(noise), dtype=torch.float32
            )
            log_prob = net.log_prob(batch, read, net.decode(batch, read, z), z).total()
            nats[chosen] = (log_prob - posterior.kl().sum(dim=-1)).double().numpy()
    return Bounds(sequences.subject_id.astype(np.int64), nats, sequences.lengths.astype(np.int64))
