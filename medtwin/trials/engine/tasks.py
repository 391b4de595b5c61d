"""The work of a simulation cut into tasks, and its results put together by scenario."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from medtwin.trials.engine.course import BLOCK

POWER_CURVE = "power curve"
Part = TypeVar("Part")


def blocks_of_tasks(num_trials: int, blocks_per_task: int) -> list[tuple[int, ...]]:
    """The blocks of each task, in a fixed order.

    Args:
        num_trials: Whole blocks of them.
        blocks_per_task: The last task may have fewer.

    >>> blocks_of_tasks(500, 2)
    [(0, 1), (2, 3), (4,)]
    """
    num_blocks = num_trials // BLOCK
    starts = range(0, num_blocks, blocks_per_task)
    return [tuple(range(start, min(start + blocks_per_task, num_blocks))) for start in starts]


def by_scenario(num_scenarios: int, results: Iterable[Sequence[Sequence[Part]]]) -> list[list[Part]]:
    """The parts of each scenario, from the results of the tasks in their order.

    Args:
        num_scenarios: In every result.
        results: Of each task, for each scenario, its parts.

    >>> by_scenario(2, [[["a"], ["b"]], [["c"], []]])
    [['a', 'c'], ['b']]
    """
    parts: list[list[Part]] = [[] for _ in range(num_scenarios)]
    for found in results:
        for mine, more in zip(parts, found, strict=True):
            mine.extend(more)
    return parts
