"""Randomisation of patients to arms, many trials at once.

Arms are numbered from 0, the control. `parts` are the integer parts of the allocation ratio in that order: (1, 2) is
experimental : control 2:1. Levels are (factors, trials, patients) in order of randomisation, arms (trials, patients).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.enrolment.arrangements import arrangements, num_arrangements
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.factors import Factor, as_factors, strata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_MAX_ARRANGEMENTS = 4096  # of blocks drawn from a table of them


class Randomisation(Protocol):
    """A way to give patients arms."""

    @property
    def balanced(self) -> tuple[Factor, ...]:
        """The factors whose levels it asks of each patient, in the order of its `levels`."""
        ...

    @property
    def description(self) -> str:
        """What it does, in words that follow `patients are randomised`."""
        ...

    def check(self, parts: Sequence[int]) -> int:
        """How many patients make whole blocks, or 1.

        Raises:
            ValueError: If it cannot allocate in the ratio.
        """
        ...

    def assign(self, levels: Ints, parts: Sequence[int], draws: TrialDraws) -> Ints:
        """The arm of each patient, (trials, patients).

        Args:
            levels: (factors, trials, patients), from 0, in order of randomisation.
            parts: Of the allocation ratio, the control's first.
            draws: Of the trials.

        Raises:
            ValueError: If it cannot allocate in the ratio.
        """
        ...


def assign_in_order(
    randomisation: Randomisation, levels: Ints, parts: Sequence[int], draws: TrialDraws, order: Ints | None
) -> Ints:
    """The arm of each patient, (trials, patients), where those who are screened first need not be randomised first.

    Args:
        randomisation: To the arms.
        levels: (factors, trials, patients), from 0, in order of screening, as the arms are.
        parts: Of the allocation ratio, the control's first.
        draws: Of the trials.
        order: (trials, patients) the patients in order of randomisation; None: that of screening.
    """
    if order is None:
        return randomisation.assign(levels, parts, draws)
    arm = np.empty(order.shape, dtype=np.int64)
    in_order = np.take_along_axis(levels, np.broadcast_to(order, levels.shape), axis=2)
    np.put_along_axis(arm, order, randomisation.assign(in_order, parts, draws), axis=1)
    return arm


def ratio_parts(allocation_ratio: float) -> tuple[int, int]:
    """The integer parts of experimental : control, the control's first.

    Raises:
        ValueError: If the ratio is no quotient of integers up to 100.

    >>> ratio_parts(1.5), ratio_parts(1 / 3)
    ((2, 3), (3, 1))
    """
    if not 0 < allocation_ratio < math.inf:
        raise ValueError(f"allocation_ratio must be above 0, got {allocation_ratio!r}")
    ratio = Fraction(allocation_ratio).limit_denominator(100)
    if not math.isclose(float(ratio), allocation_ratio, rel_tol=1e-9) or ratio.numerator > 100:
        raise ValueError(f"allocation_ratio must be a quotient of integers up to 100, got {allocation_ratio!r}")
    return ratio.denominator, ratio.numerator


def check_parts(parts: Sequence[int], *, is_equal: str | None = None) -> None:
    """Refuses what is no allocation ratio.

    Args:
        parts: Of the ratio, one for each arm.
        is_equal: What needs two or more equal arms; None: nothing does.

    Raises:
        ValueError: If there are fewer than two arms, or a part is no integer of 1 or more.
    """
    if len(parts) < 2 or any(int(part) != part or part < 1 for part in parts):
        raise ValueError(f"parts must be two or more integers of 1 or more, got {list(parts)}")
    if is_equal is not None and len(set(parts)) > 1:
        raise ValueError(f"parts must be equal for {is_equal}, got {list(parts)}")


def block_arms(allocation_ratio: float, block_size: int) -> Ints:
    """One block, (block,): as many 1 (experimental) and 0 (control) as the ratio asks.

    Raises:
        ValueError: If the block cannot hold the ratio.

    >>> block_arms(2.0, 6).tolist()
    [1, 1, 1, 1, 0, 0]
    """
    ratio = Fraction(allocation_ratio).limit_denominator(100)
    unit = ratio.numerator + ratio.denominator
    if block_size < 1 or block_size % unit or not math.isclose(float(ratio), allocation_ratio, rel_tol=1e-9):
        raise ValueError(
            f"block_size must be a multiple of {unit} for allocation {allocation_ratio:g}, got {block_size}"
        )
    num_experimental = block_size // unit * ratio.numerator
    return np.repeat(np.array([1, 0], dtype=np.int64), [num_experimental, block_size - num_experimental])


def permuted_blocks(generator: np.random.Generator, stratum: Ints, allocation_ratio: float, block_size: int) -> Ints:
    """Arms by permuted blocks within strata, (trials, patients), 1 experimental; draws in one go from a generator.

    Args:
        generator: Source of randomness.
        stratum: (trials, patients) from 0, in order of arrival.
        allocation_ratio: Experimental : control.
        block_size: A multiple of the ratio's parts.

    Raises:
        ValueError: If the block cannot hold the ratio.
    """
    num_trials, count = stratum.shape
    block = block_arms(allocation_ratio, block_size)
    num_blocks = math.ceil(count / block_size)
    arms = np.zeros(stratum.shape, dtype=np.int64)
    for level in range(int(stratum.max(initial=0)) + 1):
        order = generator.permuted(np.broadcast_to(block, (num_trials * num_blocks, block_size)), axis=1)
        arms = _dealt_to(stratum == level, order.reshape(num_trials, num_blocks * block_size), arms)
    return arms


def _dealt_to(is_here: NDArray[np.bool_], listed: Ints, arms: Ints) -> Ints:
    """The arms, where a patient of the stratum takes the next entry of its list."""
    place = np.maximum(np.cumsum(is_here, axis=1) - 1, 0)
    return np.where(is_here, np.take_along_axis(listed, place, axis=1), arms)


class _ByStrata:
    """Randomises in each stratum by itself."""

    strata: Sequence[Factor | str]

    @property
    def balanced(self) -> tuple[Factor, ...]:
        """The strata's factors."""
        return as_factors(self.strata)


@dataclass(frozen=True)
class SimpleRandomisation:
    """Every patient is allocated independently."""

    @property
    def balanced(self) -> tuple[Factor, ...]:
        """None."""
        return ()

    @property
    def description(self) -> str:
        """In words."""
        return "each independently of all others"

    def check(self, parts: Sequence[int]) -> int:
        """1.

        Raises:
            ValueError: If the parts are no ratio.
        """
        check_parts(parts)
        return 1

    def assign(self, levels: Ints, parts: Sequence[int], draws: TrialDraws) -> Ints:
        """The arm of each patient; see `Randomisation`."""
        self.check(parts)
        upper = np.cumsum(parts) / sum(parts)
        found = np.searchsorted(upper, draws.uniform(levels.shape[2], "arm"), side="right")
        return np.asarray(found, dtype=np.int64)


@dataclass(frozen=True)
class PermutedBlocks(_ByStrata):
    """Blocks of patients in each of which the ratio holds exactly, in random order; in each stratum by itself.

    Attributes:
        block_size: Of all blocks, or sizes of which each block has any with equal probability.
        strata: Factors whose combinations of levels are the strata; none: the whole trial.

    Raises:
        ValueError: If there is no size, or one is below 1.

    Source: Zelen 1974, J Chronic Dis 27:365.
    """

    block_size: int | Sequence[int]
    strata: Sequence[Factor | str] = ()

    def __post_init__(self) -> None:
        if not self.sizes or any(int(size) != size or size < 1 for size in self.sizes):
            raise ValueError(f"block_size must be one or more integers of 1 or more, got {self.block_size!r}")
        _ = self.balanced

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that a block may have, increasing."""
        return (self.block_size,) if isinstance(self.block_size, int) else tuple(sorted(self.block_size))

    @property
    def description(self) -> str:
        """In words."""
        return f"in permuted blocks of {' or '.join(map(str, self.sizes))}{_by(self.balanced)}"

    def check(self, parts: Sequence[int]) -> int:
        """The least size of a block.

        Raises:
            ValueError: If a block cannot hold the ratio.
        """
        check_parts(parts)
        for size in self.sizes:
            if size % sum(parts):
                ratio = ":".join(map(str, parts))
                raise ValueError(f"block_size must be a multiple of {sum(parts)} for allocation {ratio}, got {size}")
        return self.sizes[0]

    def assign(self, levels: Ints, parts: Sequence[int], draws: TrialDraws) -> Ints:
        """The arm of each patient; see `Randomisation`.

        Entry k of a stratum's list depends on the trial and k alone: patients of other strata do not move it.
        """
        self.check(parts)
        if not len(levels):
            return self.listed(levels.shape[2], parts, draws)
        stratum, made = strata(levels)
        arms = np.zeros(stratum.shape, dtype=np.int64)
        for number, combination in enumerate(made):
            is_here = stratum == number
            most = int(is_here.sum(axis=1).max())
            arms = _dealt_to(is_here, self.listed(most, parts, draws, *combination), arms)
        return arms

    def listed(self, count: int, parts: Sequence[int], draws: TrialDraws, *stratum: int) -> Ints:
        """The allocation lists of a stratum, (trials, count).

        Args:
            count: Entries.
            parts: Of the allocation ratio, the control's first.
            draws: Of the trials.
            stratum: The levels that make it.
        """
        if len(self.sizes) == 1 and num_arrangements(self.sizes[0], parts) <= _MAX_ARRANGEMENTS:
            block, num_blocks = self.sizes[0], -(-count // self.sizes[0])
            table = arrangements(tuple(part * block // sum(parts) for part in parts))
            pick = (draws.uniform(num_blocks, "arrangement of block", *stratum) * len(table)).astype(np.int64)
            return np.take(table, pick, axis=0).reshape(draws.num_trials, num_blocks * block)[:, :count]
        length = count + self.sizes[-1]  # no block that reaches below `count` is cut
        key = draws.uniform(length, "block", *stratum) + self._block_numbers(length, draws, *stratum)
        template = np.repeat(np.arange(len(parts)), np.asarray(parts))
        # A random order of positions within each block; every block starts at a multiple of the ratio's sum.
        return np.asarray(template[np.argsort(key, axis=1)[:, :count] % len(template)])

    def _block_numbers(self, length: int, draws: TrialDraws, *stratum: int) -> Ints:
        """Which block each position of the lists belongs to, from 0; (trials, length), or (length,) for one size."""
        if len(self.sizes) == 1:
            return np.arange(length) // self.sizes[0]
        num_blocks = length // self.sizes[0] + 1
        pick = draws.uniform(num_blocks, "size of block", *stratum) * len(self.sizes)
        ends = np.cumsum(np.asarray(self.sizes)[pick.astype(np.int64)], axis=1)
        starts_here = np.zeros((draws.num_trials, length + 1), dtype=np.int64)
        np.put_along_axis(starts_here, np.minimum(ends, length), 1, axis=1)
        return np.cumsum(starts_here[:, :length], axis=1)


def _by(factors: Sequence[Factor]) -> str:
    return f" by {', '.join(factor.name for factor in factors)}" if factors else ""


Probabilities = Callable[[Ints], Floats]
"""Of the arms, (arms, trials), given how many patients of each arm are in each of the next one's cells,
(arms, factors, trials)."""


def assign_in_turn(levels: Ints, num_arms: int, uniform: Floats, probabilities: Probabilities) -> Ints:
    """The arms where each patient's probabilities depend on the patients before, (trials, patients).

    Args:
        levels: (factors, trials, patients), from 0, in order of randomisation.
        num_arms: Two or more.
        uniform: (trials, patients) in [0, 1): which arm the probabilities give.
        probabilities: Of the arms, given the arms of earlier patients at the levels of the present one.
    """
    _, num_trials, count = levels.shape
    sizes = levels.max(axis=(1, 2), initial=0) + 1
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])[:, None, None]
    # counts are (arms, cells x trials): a patient adds one to a cell of each factor in its own trial
    cells = ((levels + first) * num_trials + np.arange(num_trials)[:, None]).transpose(2, 0, 1).copy()
    draw = np.ascontiguousarray(uniform.T)
    counts = np.zeros((num_arms, int(sizes.sum()) * num_trials), dtype=np.int64)
    arms = np.empty((count, num_trials), dtype=np.int64)
    for patient in range(count):
        cell = cells[patient]
        upper = np.cumsum(probabilities(counts[:, cell])[:-1], axis=0)
        arm = (upper <= draw[patient]).sum(axis=0)
        counts[arm, cell] += 1
        arms[patient] = arm
    return np.ascontiguousarray(arms.T)


class _InTurn(_ByStrata, ABC):
    """Equal arms, whose probabilities for a patient depend on those of the patients of the stratum before."""

    _what: ClassVar[str]
    _is_pair: ClassVar[bool] = True

    @abstractmethod
    def probabilities(self, counts: Ints) -> Floats:
        """Of the arms, (arms, trials), given the stratum's patients so far, (arms, 1, trials)."""

    def check(self, parts: Sequence[int]) -> int:
        """1.

        Raises:
            ValueError: Unless all parts are equal, and two where it allocates to no more.
        """
        check_parts(parts, is_equal=self._what)
        if self._is_pair and len(parts) != 2:
            raise ValueError(f"parts must be two for {self._what}, got {list(parts)}")
        return 1

    def assign(self, levels: Ints, parts: Sequence[int], draws: TrialDraws) -> Ints:
        """The arm of each patient; see `Randomisation`."""
        self.check(parts)
        stratum, _ = strata(levels)
        return assign_in_turn(stratum[None], len(parts), draws.uniform(levels.shape[2], "arm"), self.probabilities)


@dataclass(frozen=True)
class BiasedCoin(_InTurn):
    """Efron's biased coin: the arm with fewer patients so far is the likelier one; two arms, 1:1.

    Attributes:
        probability: Of the arm with fewer, from 1/2 (simple randomisation) to 1.
        strata: Factors whose combinations of levels have coins of their own.

    Raises:
        ValueError: If the probability is out of its range.

    Source: Efron 1971, Biometrika 58:403.
    """

    _what: ClassVar[str] = "a biased coin"
    probability: float = 2 / 3
    strata: Sequence[Factor | str] = ()

    def __post_init__(self) -> None:
        if not 0.5 <= self.probability <= 1:
            raise ValueError(f"probability must be from 1/2 to 1, got {self.probability!r}")
        _ = self.balanced

    @property
    def description(self) -> str:
        """In words."""
        return f"by a biased coin of {self.probability:.3g}{_by(self.balanced)}"

    def probabilities(self, counts: Ints) -> Floats:
        """Of control and experimental, (2, trials), given the stratum's patients so far, (2, 1, trials)."""
        lead = np.sign(counts[1, 0] - counts[0, 0])
        experimental = 0.5 - lead * (self.probability - 0.5)
        return np.stack([1 - experimental, experimental])


@dataclass(frozen=True)
class BigStick(_InTurn):
    """A fair coin until one arm leads by a limit, then the other arm; two arms, 1:1.

    Attributes:
        limit: Patients by which an arm may lead, 1 or more.
        strata: Factors whose combinations of levels have coins of their own.

    Raises:
        ValueError: If the limit is below 1.

    Source: Soares & Wu 1983, Commun Stat Theory Methods 12:2017.
    """

    _what: ClassVar[str] = "the big stick"
    limit: int
    strata: Sequence[Factor | str] = ()

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be 1 or more, got {self.limit!r}")
        _ = self.balanced

    @property
    def description(self) -> str:
        """In words."""
        return f"by a fair coin while no arm leads by {self.limit}{_by(self.balanced)}"

    def probabilities(self, counts: Ints) -> Floats:
        """Of control and experimental, (2, trials), given the stratum's patients so far, (2, 1, trials)."""
        lead = counts[1, 0] - counts[0, 0]
        experimental = np.where(np.abs(lead) < self.limit, 0.5, np.where(lead > 0, 0.0, 1.0))
        return np.stack([1 - experimental, experimental])


@dataclass(frozen=True)
class Urn(_InTurn):
    """Wei's urn: a ball is drawn and put back, and balls of all other arms are added; equal arms.

    Attributes:
        initial: Balls of each arm at the start, 0 or more; with 0 the first patient has a fair draw.
        added: Balls of each other arm for each patient, 0 or more; 0: simple randomisation.
        strata: Factors whose combinations of levels have urns of their own.

    Raises:
        ValueError: If a number is negative or both are 0.

    Source: Wei 1977, J Am Stat Assoc 72:382; Wei & Lachin 1988, Control Clin Trials 9:345.
    """

    _what: ClassVar[str] = "an urn"
    _is_pair: ClassVar[bool] = False
    initial: float = 0.0
    added: float = 1.0
    strata: Sequence[Factor | str] = ()

    def __post_init__(self) -> None:
        if self.initial < 0 or self.added < 0 or not self.initial + self.added > 0:
            raise ValueError(
                f"initial and added must be 0 or more, not both 0, got {self.initial!r} and {self.added!r}"
            )
        _ = self.balanced

    @property
    def description(self) -> str:
        """In words."""
        return f"by an urn of {self.initial:g} balls and {self.added:g} added{_by(self.balanced)}"

    def probabilities(self, counts: Ints) -> Floats:
        """Of the arms, (arms, trials), given the stratum's patients so far, (arms, 1, trials)."""
        mine = counts[:, 0]
        balls = self.initial + self.added * (mine.sum(axis=0) - mine)
        total = balls.sum(axis=0)
        return np.asarray(np.divide(balls, total, out=np.full(balls.shape, 1 / len(balls)), where=total > 0))
