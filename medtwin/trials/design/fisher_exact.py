"""Fisher's exact test of two rates: its power, and the patients it needs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom

from medtwin.trials.design.rates import RatesTest

Floats = NDArray[np.float64]
_SAME = 1e-7  # relative: tables no more likely than the observed one, up to rounding


def fisher_power(rates: tuple[float, float], sizes: tuple[int, int], alpha: float) -> float:
    """Unconditional power of the two-sided test, whose p value sums the tables that are no more likely.

    Args:
        rates: Under the alternative, experimental and control.
        sizes: Patients, experimental and control.
        alpha: Two-sided.

    Raises:
        ValueError: If the rates are no shares or an arm is empty.

    Source: Bennett & Hsu 1960, Biometrika 47:393.

    >>> round(fisher_power((0.5, 0.2), (44, 43), 0.05), 4)
    0.8168
    """
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"rates must be between 0 and 1, got {rates!r}")
    if min(sizes) < 1:
        raise ValueError(f"sizes must be 1 or more, got {sizes!r}")
    first, second = (binom.pmf(np.arange(n + 1), n, rate) for n, rate in zip(sizes, rates, strict=True))
    ways, other_ways, all_ways = (_log_choices(n) for n in (*sizes, sum(sizes)))
    power = 0.0
    for events in range(sum(sizes) + 1):
        x = np.arange(max(0, events - sizes[1]), min(sizes[0], events) + 1)
        likelihood = np.exp(ways[x] + other_ways[events - x] - all_ways[events])
        ordered = np.sort(likelihood)
        up_to = np.searchsorted(ordered, likelihood * (1 + _SAME), side="right")
        rejected = np.cumsum(ordered)[up_to - 1] <= alpha
        power += float(first[x[rejected]] @ second[events - x[rejected]])
    return power


def _log_choices(n: int) -> Floats:
    """Logarithm of the ways to choose 0..n of n."""
    k = np.arange(n + 1)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def fisher_arms(subjects: int, allocation_ratio: float = 1.0) -> tuple[int, int]:
    """Patients of the experimental and the control arm, of so many in all; a half goes to the even number."""
    experimental = round(subjects * allocation_ratio / (1 + allocation_ratio))
    return experimental, subjects - experimental


def fisher_subjects(rates: tuple[float, float], alpha: float, power: float, allocation_ratio: float = 1.0) -> int:
    """The least number of patients in all from which on every number has the power.

    The power goes up and down with the number, as the test can spend more or less of alpha. The search comes down
    from well above the approximation with a correction for continuity, where the power is past its ups and downs.

    Args:
        rates: Under the alternative, experimental and control.
        alpha: Two-sided.
        power: That is wanted.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the rates are equal or no shares, or the power is none.

    Source: of the approximation, Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, 4.2.

    >>> fisher_subjects((0.9, 0.2), 0.05, 0.8)
    17
    """
    if not 0 < power < 1:
        raise ValueError(f"power must be between 0 and 1, got {power!r}")
    r = allocation_ratio
    control = RatesTest(*rates, allocation_ratio=r).subjects(alpha / 2, power) / (1 + r)
    corrected = control / 4 * (1 + math.sqrt(1 + 2 * (1 + r) / (control * r * abs(rates[0] - rates[1])))) ** 2

    def enough(subjects: int) -> bool:
        sizes = fisher_arms(subjects, r)
        return min(sizes) > 0 and fisher_power(rates, sizes, alpha) >= power

    subjects = math.ceil(1.15 * (1 + r) * corrected) + 10
    while not enough(subjects):
        subjects *= 2
    while enough(subjects - 1):
        subjects -= 1
    return subjects
