"""Sequences as padded batches of tensors; subjects of like length stand together, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medtwin.core.seeds import generator
from medtwin.timelines.gaps import GapLaw
from medtwin.timelines.sequences import EVENT, STEP, Sequences

Batch = dict[str, Tensor]


class GroupedTimelines(Dataset[Batch]):
    """Groups of subjects, each about `tokens_per_group` positions, padded to the longest of the group.

    Args:
        sequences: The subjects.
        gaps: The law by which gaps are coded.
        tokens_per_group: Positions of a group, padding included; a longer sequence is a group of its own.
        seed: Decides who of like length stands with whom; groups are the same in every epoch.
    """

    def __init__(self, sequences: Sequences, gaps: GapLaw, tokens_per_group: int, seed: int) -> None:
        self.sequences, self.gaps = sequences, gaps
        self.groups = group_by_length(np.asarray(sequences.lengths), tokens_per_group, seed)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Batch:
        return collate(self.sequences, self.groups[index], self.gaps)


def group_by_length(lengths: NDArray[np.int64], tokens_per_group: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of subjects, group by group: each holds at most `tokens_per_group` padded positions (or one subject)."""
    jitter = generator(seed, "groups").uniform(0.9, 1.1, len(lengths))
    groups: list[list[int]] = []
    longest = 0
    for subject in np.argsort(lengths * jitter, kind="stable").tolist():
        longest = max(longest, int(lengths[subject]))
        if groups and (len(groups[-1]) + 1) * longest <= tokens_per_group:
            groups[-1].append(subject)
        else:
            groups.append([subject])
            longest = int(lengths[subject])
    return [np.array(group, dtype=np.int64) for group in groups]


def collate(sequences: Sequences, subjects: Sequence[int] | NDArray[np.int64], gaps: GapLaw) -> Batch:
    """The batch of some subjects.

    Returns:
        Positions, (batch, length): kind, token, value, has_value, minute, gap_minutes, open_minutes, is_first, and
        memory, (batch, length, 3), as in `Sequences`. Targets where a step ends, (batch, length): stop (1, 0, or -1
        where the record was cut), gap_class, gap_size, clock. Attributes, (batch, ...): sex, age_start_years,
        start_minute, window_minutes, conditions.
    """
    chosen = np.asarray(subjects)
    starts, stops = sequences.offsets[:-1][chosen], sequences.offsets[1:][chosen]
    shape = (len(chosen), int((stops - starts).max()))
    names = ("kind", "token", "value", "has_value", "minute", "open_minutes", "is_first", "memory")
    batch = {}
    for name in names:
        source = getattr(sequences, name)
        padded = np.zeros((*shape, *source.shape[1:]), dtype=source.dtype)
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            padded[row, : stop - start] = source[start:stop]
        batch[name] = padded
    kind, minute = batch["kind"], batch["minute"]
    minute[kind == 0] = np.broadcast_to(minute.max(axis=1, keepdims=True), shape)[kind == 0]
    batch["gap_minutes"] = np.maximum(np.diff(minute, axis=1, prepend=minute[:, :1]), 0)
    ends = sequences.is_cut[chosen]
    batch.update(_targets(kind, minute, ends, gaps))
    for name in ("sex", "age_start_years", "start_minute", "window_minutes", "conditions"):
        batch[name] = getattr(sequences, name)[chosen]
    batch["kind"], batch["token"] = kind.astype(np.int64), batch["token"].astype(np.int64)
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def _targets(
    kind: NDArray[np.uint8], minute: NDArray[np.int64], is_cut: NDArray[np.bool_], gaps: GapLaw
) -> dict[str, NDArray[np.generic]]:
    following = np.pad(kind[:, 1:], ((0, 0), (0, 1)))
    before_step = following == STEP
    last = (kind != 0) & (following == 0)
    stop = np.zeros(kind.shape, dtype=np.int64)
    stop[last] = np.where(is_cut, -1, 1)[np.nonzero(last)[0]]
    row, column = np.nonzero(before_step)
    gap_class = np.zeros(kind.shape, dtype=np.int64)
    gap_size = np.zeros(kind.shape, dtype=np.float32)
    clock = np.zeros(kind.shape, dtype=np.int64)
    classes, sizes, clocks = gaps.encode(minute[row, column], minute[row, column + 1])
    gap_class[row, column], gap_size[row, column], clock[row, column] = classes, sizes, clocks
    # Between the static facts and the first step nothing is decided: the start is an attribute.
    first = np.cumsum(kind == STEP, axis=1) == 0
    stop[before_step & first] = -1
    return {"stop": stop, "gap_class": gap_class, "gap_size": gap_size, "clock": clock}


__all__ = ["EVENT", "Batch", "GroupedTimelines", "collate", "group_by_length"]
