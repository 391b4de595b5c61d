"""Which counts of real people are not told, because they, or what stands beside them, would tell of few.

Hidden is what is small, and of its neighbours as many as it takes that sums which everybody can form do not give it
away (primary and secondary suppression). Zeros are told: they are of nobody.

Source: CMS cell size suppression policy (ResDAC), fewer than 11; Hundepool et al. 2012, Statistical Disclosure Control,
    Wiley, chapter 4.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALLEST_CELL = 11
"""Counts of 1 to 10 real people are not told."""


def is_small(count: int, smallest: int = SMALLEST_CELL) -> bool:
    """Whether a count tells of few people.

    >>> is_small(0), is_small(10), is_small(11), is_small(10, smallest=1)
    (False, True, False, False)
    """
    return 0 < count < smallest


def hidden_parts(counts: Sequence[int], smallest: int = SMALLEST_CELL) -> list[bool]:
    """Which of the counts that make up a known sum are hidden: the small ones, and the least others that guard them.

    Args:
        counts: Of groups that nobody is in twice, 0 or more.
        smallest: The least count that is told.

    >>> hidden_parts([100, 5, 40, 0])
    [False, True, True, False]
    >>> hidden_parts([100, 5, 6, 0])
    [False, True, True, False]
    >>> hidden_parts([100, 11, 40, 0])
    [False, False, False, False]
    """
    hidden = [is_small(count, smallest) for count in counts]
    if not any(hidden):
        return hidden
    guards = sorted((i for i, count in enumerate(counts) if count and not hidden[i]), key=lambda i: counts[i])
    for index in guards:
        sums = [count for count, is_hidden in zip(counts, hidden, strict=True) if is_hidden]
        if len(sums) > 1 and not is_small(sum(sums), smallest):
            break
        hidden[index] = True
    return hidden


def guarded_blocks(counts: Sequence[int], smallest: int = SMALLEST_CELL) -> list[range]:
    """The counts in a row, neighbours joined until no sum of joined ones is small: of a block only the sum is told.

    As of a flow: who leaves at each step, and who remains in the end. Between steps that are told everybody can
    subtract. The last count is joined only where there is no other neighbour.

    Args:
        counts: In their order, 0 or more.
        smallest: The least count that is told.

    >>> guarded_blocks([20, 5, 30, 400])
    [range(0, 2), range(2, 3), range(3, 4)]
    >>> guarded_blocks([0, 3, 0, 400])
    [range(0, 1), range(1, 4)]
    """
    blocks = [range(i, i + 1) for i in range(len(counts))]

    def total(block: range) -> int:
        return sum(counts[i] for i in block)

    while len(blocks) > 1 and (small := [i for i, block in enumerate(blocks) if is_small(total(block), smallest)]):
        first = small[0]
        pairs = [pair for pair in ((first - 1, first), (first, first + 1)) if pair[0] >= 0 and pair[1] < len(blocks)]
        joined = {pair: range(blocks[pair[0]].start, blocks[pair[1]].stop) for pair in pairs}
        left, right = min(
            pairs,
            key=lambda pair: (
                pair[1] == len(blocks) - 1 and pair[1] != first,
                is_small(total(joined[pair]), smallest),
                total(joined[pair]),
            ),
        )
        blocks[left : right + 1] = [joined[left, right]]
    return [part for block in blocks for part in _without_zeros(block, counts)]


def _without_zeros(block: range, counts: Sequence[int]) -> list[range]:
    """The block without the zeros at its ends, which guard nothing, and each of those by itself."""
    people = [i for i in block if counts[i]]
    if len(block) == 1 or not people:
        return [range(i, i + 1) for i in block]
    before, after = range(block.start, people[0]), range(people[-1] + 1, block.stop)
    alone = [[range(i, i + 1) for i in ends] for ends in (before, after)]
    return [*alone[0], range(people[0], people[-1] + 1), *alone[1]]
