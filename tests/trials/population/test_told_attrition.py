"""The told flow hides counts of few people so that no arithmetic of what is told brings one back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from medtwin.core.disclosure import SMALLEST_CELL, guarded_blocks, hidden_parts
from medtwin.trials.population.attrition import GroupRow
from medtwin.trials.population.criteria import AttritionRow
from medtwin.trials.population.told_attrition import ToldRow, told_attrition, told_groups

COUNTS = st.one_of(st.just(0), st.integers(1, 10), st.integers(11, 60))


def flow(*steps: tuple[int, int], remain: int) -> list[AttritionRow]:
    """A flow of so many who fail, and lack the data, at each step."""
    left = remain + sum(map(sum, steps))
    rows = [AttritionRow("all", left, 0, 0)]
    for number, (fails, unknown) in enumerate(steps):
        left -= fails + unknown
        rows.append(AttritionRow(f"step {number}", left, fails + unknown, unknown))
    return rows


def told_numbers(row: ToldRow) -> tuple[int | None, ...]:
    return row.assessed, row.fails, row.not_evaluable, row.remaining, row.excluded


def test_few_excluded_are_told_with_a_neighbour_and_nothing_between() -> None:
    told = told_attrition(flow((30, 0), (3, 0), (20, 0), remain=200), SMALLEST_CELL)
    assert [told_numbers(row) for row in told] == [
        (253, 0, 0, 253, 0),
        (253, 30, 0, 223, 30),
        (223, None, None, None, None),
        (None, None, None, 200, None),
    ]


def test_a_division_of_many_excluded_that_names_few_is_not_told() -> None:
    told = told_attrition(flow((30, 4), remain=200), SMALLEST_CELL)
    assert told_numbers(told[1]) == (234, None, None, 200, 34)


def test_few_who_remain_are_not_told_nor_who_left_last() -> None:
    told = told_attrition(flow((50, 0), (40, 0), remain=7), SMALLEST_CELL)
    assert [row.remaining for row in told] == [97, 47, None]
    assert told[2].excluded is None
    assert all(told_numbers(row) == (None,) * 5 for row in told_attrition(flow((2, 0), remain=7), SMALLEST_CELL))
    assert told_attrition([], SMALLEST_CELL) == []


def test_a_least_count_of_one_tells_everything() -> None:
    rows = flow((3, 2), (1, 0), remain=4)
    told = told_attrition(rows, 1)
    assert [told_numbers(row) for row in told] == [
        (row.assessed, row.fails, row.not_evaluable, row.remaining, row.excluded) for row in rows
    ]
    assert all(row.is_whole for row in told)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5), COUNTS)
def test_no_small_count_can_be_worked_out(steps: list[tuple[int, int]], remain: int) -> None:
    # an attacker knows what is told, and that counts are not negative: every small one might be 11 or more
    rows = flow(*steps, remain=remain)
    told = told_attrition(rows, SMALLEST_CELL)
    truth = np.array([*np.ravel(steps), remain])
    sizes, equations, values = len(truth), [], []

    def know(parts: list[int], value: int | None) -> None:
        if value is not None:
            equations.append(np.isin(np.arange(sizes), parts).astype(float))
            values.append(value)
            assert equations[-1] @ truth == value

    for step, row in enumerate(told):
        know(list(range(2 * step, sizes)), row.remaining)
        know(list(range(max(2 * step - 2, 0), sizes)), row.assessed)
        if step:
            know([2 * step - 2], row.fails)
            know([2 * step - 1], row.not_evaluable)
            know([2 * step - 2, 2 * step - 1], row.excluded)
    for part in np.flatnonzero((truth > 0) & (truth < SMALLEST_CELL)):
        goal = -np.isin(np.arange(sizes), part).astype(float)
        known = {"A_eq": np.array(equations), "b_eq": values} if equations else {}
        most = linprog(goal, bounds=(0, 10_000), **known)
        assert -most.fun >= SMALLEST_CELL, (steps, remain, part)


@pytest.mark.parametrize(
    ("counts", "blocks"),
    [
        ([400], [range(0, 1)]),
        ([4], [range(0, 1)]),
        ([4, 400], [range(0, 2)]),
        ([20, 4, 400], [range(0, 2), range(2, 3)]),
        ([0, 0, 400], [range(0, 1), range(1, 2), range(2, 3)]),
        ([4, 4, 20, 400], [range(0, 3), range(3, 4)]),
        ([90, 20, 4], [range(0, 1), range(1, 3)]),
    ],
)
def test_neighbours_are_joined_until_no_sum_is_small(counts: list[int], blocks: list[range]) -> None:
    assert guarded_blocks(counts) == blocks


def test_one_hidden_group_takes_the_least_other_with_it() -> None:
    assert hidden_parts([100, 90, 3]) == [False, True, True]
    assert hidden_parts([100, 5, 4, 3]) == [False, True, True, True]
    assert hidden_parts([100, 3, 3, 90]) == [False, True, True, True]
    assert hidden_parts([3]) == [True]


def test_a_division_that_names_few_is_not_told() -> None:
    few = [GroupRow("sex", sex, "any", count, 0, 0, count) for sex, count in (("F", 57), ("M", 3))]
    rest = [GroupRow("age", "18 to 39", "any", 60, 0, 0, 60)]
    assert told_groups([*few, *rest], SMALLEST_CELL) == rest
    assert told_groups([*few, *rest], 1) == [*few, *rest]
