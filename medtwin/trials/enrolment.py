"""Arrival and randomisation of patients, many trials at once: arrays are (trials, patients), in order of arrival."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import PiecewiseRate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ramped_rate(num_subjects: float, months: float, ramp_months: float = 0.0) -> PiecewiseRate:
    """Patients per month so that `num_subjects` are expected by `months`, rising in three steps over the ramp.

    Args:
        num_subjects: Patients in all.
        months: Duration of enrolment.
        ramp_months: Until the full rate; 0: at once.

    Raises:
        ValueError: If the duration is not positive or the ramp is longer than it.

    >>> ramped_rate(100, 10).rates
    (10.0,)
    """
    if not months > 0 or not 0 <= ramp_months <= months:
        raise ValueError(f"accrual must last above 0 months, its ramp at most as long, got {months!r}, {ramp_months!r}")
    if ramp_months == 0:
        return PiecewiseRate((0.0,), (num_subjects / months,))
    full = num_subjects / (months - ramp_months / 2)
    third = ramp_months / 3
    return PiecewiseRate(
        (0.0, third, 2 * third, ramp_months), tuple(full * share for share in (1 / 6, 3 / 6, 5 / 6, 1))
    )


def poisson_arrivals(generator: np.random.Generator, shape: tuple[int, int], enroll_rate: PiecewiseRate) -> Floats:
    """Calendar months of arrival of a Poisson process with this rate, (trials, patients), increasing."""
    return enroll_rate.time_at(np.cumsum(generator.standard_exponential(shape), axis=1))


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
    """Arms by permuted blocks within strata, (trials, patients), 1 experimental.

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
        sequence = order.reshape(num_trials, num_blocks * block_size)
        is_here = stratum == level
        place = np.maximum(np.cumsum(is_here, axis=1) - 1, 0)
        arms = np.where(is_here, np.take_along_axis(sequence, place, axis=1), arms)
    return arms
