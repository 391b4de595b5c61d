"""Batches that depend on (seed, epoch, position) only, and a loader that can start in the middle of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from medtwin.core.seeds import generator, purpose_key


def torch_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) for one purpose, for generators of torch.

    >>> torch_seed(0, "step", 1) == torch_seed(0, "step", 1), torch_seed(0, "step", 1) == torch_seed(1, "step", 1)
    (True, False)
    """
    high, low, *_ = purpose_key(seed, *purpose)
    return (high << 32 | low) >> 1


class ResumableBatches(Sampler[list[int]]):
    """A batch sampler whose batch at a place is a pure function of (seed, epoch, position).

    Under distributed training every process draws the same order and takes its own slice of each batch, so the
    processes' batches are disjoint and equally many; only the last batch of an epoch repeats up to `world - 1`
    examples, to be of one size on all.

    Args:
        num_examples: Examples in the data set.
        batch_size: Examples per batch and process.
        seed: The run's seed, 0 or more.
        weights: Weights, (num_examples,), to draw examples by, with replacement; null visits each once per epoch.
        drop_last: Leave out the last batch where it is smaller.

    Raises:
        ValueError: If a number or a weight is out of its range.

    >>> batches = ResumableBatches(5, 2, seed=0)
    >>> whole = list(batches)
    >>> batches.start_at(epoch=0, position=2)
    >>> list(batches) == whole[2:]
    True
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        *,
        weights: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        drop_last: bool = False,
    ) -> None:
        for name, value in (("num_examples", num_examples), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed!r}")
        self._num_examples, self._batch_size, self.seed = num_examples, batch_size, seed
        self._shares = None if weights is None else _shares(np.asarray(weights, np.float64), num_examples)
        self._drop_last = drop_last
        self.epoch = 0
        self._start = 0

    @property
    def sampler(self) -> ResumableBatches:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; another one than before starts with its first batch."""
        if epoch != self.epoch:
            self.start_at(epoch, 0)

    def start_at(self, epoch: int, position: int) -> None:
        """Lets the next iteration begin with the batch at `position` of `epoch`; those after it begin with the first.

        Raises:
            ValueError: If the epoch has no such place.
        """
        if epoch < 0 or not 0 <= position <= len(self):
            raise ValueError(f"position must be 0 to {len(self)} of an epoch 0 or more, got {position} of {epoch}")
        self.epoch, self._start = epoch, position

    def __len__(self) -> int:
        """Batches per epoch and process."""
        share = self._num_examples / (self._batch_size * _world()[1])
        return math.floor(share) if self._drop_last else math.ceil(share)

    def __iter__(self) -> Iterator[list[int]]:
        start, self._start = self._start, 0
        order = self.order(self.epoch)
        rank, world = _world()
        whole = self._batch_size * world
        for position in range(start, len(self)):
            batch = order[position * whole : (position + 1) * whole]
            missing = -len(batch) % world
            if missing:
                batch = np.concatenate([batch, np.resize(order, missing)])
            share = len(batch) // world
            yield batch[rank * share : (rank + 1) * share].tolist()

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The examples in the order of an epoch, (num_examples,), before they are cut into batches."""
        rng = generator(self.seed, "batches", epoch)
        if self._shares is None:
            return rng.permutation(self._num_examples)
        return rng.choice(self._num_examples, size=self._num_examples, p=self._shares)


def _shares(weights: NDArray[np.float64], num_examples: int) -> NDArray[np.float64]:
    if weights.shape != (num_examples,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum():
        raise ValueError(f"weights must be {num_examples} finite numbers, 0 or more, not all 0")
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _world() -> tuple[int, int]:
    """This process's rank, and the number of processes that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over `ResumableBatches` that Lightning can put back in the middle of an epoch.

    It reads nothing before its first batch is asked for, so that workers start at the place that is set by then. In
    the main process torch's global generator has a seed of its own during each fetch, so that random transforms are
    those of the place too; with workers an example's randomness must come from its own seed (`core.seeds.generator`).

    Args:
        dataset: The examples, by index.
        batches: Which examples form which batch.
        collate_fn: Makes a batch of examples; null stacks them.
        num_workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Page-lock batches on their way to a GPU.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: ResumableBatches,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batches = batches
        super().__init__(
            dataset,
            batch_sampler=batches,
            collate_fn=collate_fn,
            num_workers=num_workers,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(torch_seed(batches.seed, "workers")),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        position = self.batches._start
        batches = super().__iter__()
        while True:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(
                    torch_seed(self.batches.seed, "fetch", self.batches.epoch, position, _world()[0])
                )
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The place of the next batch. `training.callbacks.Checkpoints` writes the trainer's own count over it."""
        return {"epoch": self.batches.epoch, "position": self.batches._start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Puts the loader back to a place.

        Raises:
            ValueError: If the data have no such place, as when they or the batch size have changed.
        """
        self.batches.start_at(state["epoch"], state["position"])
