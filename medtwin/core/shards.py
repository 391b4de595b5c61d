"""One seam for work split into shards: in this process, or in local ones. The answer never depends on which."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Shard = TypeVar("Shard")
Result = TypeVar("Result")


def map_shards(fn: Callable[[Shard], Result], shards: Iterable[Shard], *, num_workers: int = 1) -> Iterator[Result]:
    """The results of `fn` for every shard, in the order of the shards.

    Args:
        fn: A function of an importable module; what is random in it is seeded by the shard alone.
        shards: Pieces of work of a second or more each.
        num_workers: 1 runs in this process; more, in that many spawned ones, each with one compute thread.

    Raises:
        ValueError: If num_workers is not positive.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be 1 or more, got {num_workers}")
    if num_workers == 1:
        yield from map(fn, shards)
        return
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        try:
            yield from pool.map(fn, shards)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    """One compute thread each; Ctrl-C is the parent's business; nobody outlives a parent that was killed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
