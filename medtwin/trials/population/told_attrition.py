"""The attrition of a cohort as far as it may be told: no count of few real people, nor what would give one away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medtwin.core.disclosure import guarded_blocks, is_small
from medtwin.trials.population.attrition import GroupRow
from medtwin.trials.population.criteria import AttritionRow


@dataclass(frozen=True)
class ToldRow:
    """A line of the flow, as `AttritionRow` has it; None: not told."""

    criterion: str
    assessed: int | None
    fails: int | None
    not_evaluable: int | None
    remaining: int | None
    excluded: int | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is told."""
        return None not in (self.assessed, self.fails, self.not_evaluable, self.remaining, self.excluded)


def told_attrition(rows: Sequence[AttritionRow], smallest: int) -> list[ToldRow]:
    """The flow without counts of 1 to `smallest` - 1 people, nor such as differences of neighbours would give.

    Rows whose exclusions are few are told together with a neighbour: of both it is told who was there before and who
    remains after, not between. Where few remain in the end, that is not told, nor who was excluded last. Where a row's
    exclusions are many, but few of them fail or lack the data, it is not told how they divide.

    Args:
        rows: The flow; the first row is the cohort.
        smallest: The least count that is told; 1: everything is told.

    >>> flow = [AttritionRow("all", 100, 0, 0), AttritionRow("a", 97, 3, 0), AttritionRow("b", 60, 37, 0)]
    >>> [(row.excluded, row.remaining) for row in told_attrition(flow, 11)]
    [(0, 100), (None, None), (None, 60)]
    """
    if not rows:
        return []
    if is_small(rows[0].remaining, smallest):
        return [ToldRow(row.criterion, None, None, None, None, None) for row in rows]
    parts = [*(row.excluded for row in rows[1:]), rows[-1].remaining]
    block_of = [block for block in guarded_blocks(parts, smallest) for _ in block]
    remaining: list[int | None] = [rows[0].remaining]
    remaining += [None if block_of[step] is block_of[step + 1] else row.remaining for step, row in enumerate(rows[1:])]
    first = rows[0]
    told = [ToldRow(first.criterion, first.assessed, first.fails, first.not_evaluable, first.remaining, first.excluded)]
    for step, row in enumerate(rows[1:]):
        is_whole = len(block_of[step]) == 1
        is_split = is_whole and not (is_small(row.fails, smallest) or is_small(row.not_evaluable, smallest))
        fails, unknown = (row.fails, row.not_evaluable) if is_split else (None, None)
        excluded = row.excluded if is_whole else None
        told.append(ToldRow(row.criterion, remaining[step], fails, unknown, remaining[step + 1], excluded))
    return told


def told_groups(groups: Sequence[GroupRow], smallest: int) -> list[GroupRow]:
    """The rows of divisions none of whose counts is small: the total would give away a single one.

    A count that the whole flow hides is not to be had from them: a small one has a small part in some group of every
    division.

    Args:
        groups: As `attrition_by_group` gives them.
        smallest: The least count that is told; 1: everything is told.
    """
    few = {
        row.division
        for row in groups
        if any(is_small(count, smallest) for count in (row.assessed, row.fails, row.not_evaluable, row.remaining))
    }
    return [row for row in groups if row.division not in few]
