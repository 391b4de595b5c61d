"""Numbers of samples of patients, with what they would be had a twentieth of the patients not been there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medtwin.check.estimates import LEVEL

NUM_GROUPS = 20
"""Groups of subjects, of which one is left out at a time."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Jackknifed:
    """A number of a sample.

    A bootstrap would not do where models are fitted: they take a subject who is drawn twice for a law. (Its intervals
    were twice too wide, on 150 patients.)

    Attributes:
        value: Of everybody.
        own: Without each group of the sample's subjects, (groups,).
        shared: Without each group of the subjects that all samples are judged by, (groups,); the value itself where
            there are none.

    Source: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM, chapters 2 and 3; in groups:
    Kott 2001, J Off Stat 17:521.
    """

    value: float
    own: Floats
    shared: Floats

    @staticmethod
    def of(values: Floats, shared: Floats | None = None) -> Jackknifed:
        """From values in the order of `group_weights`: of everybody, then without each group.

        Args:
            values: By the sample's subjects, (1 + groups,).
            shared: By those that all samples are judged by, (1 + groups,); None: there are none.
        """
        value = float(values[0])
        return Jackknifed(value, values[1:], np.full(NUM_GROUPS, value) if shared is None else shared[1:])

    def minus(self, other: Jackknifed) -> Difference:
        """The difference of two samples that share no subject, and are judged by the same others."""
        return Difference(
            self.value - other.value,
            float(np.sqrt(_variance(self.own) + _variance(other.own) + _variance(self.shared - other.shared))),
        )

    def interval(self) -> tuple[float, float]:
        """Student's t interval at `LEVEL`."""
        return Difference(self.value, float(np.sqrt(_variance(self.own) + _variance(self.shared)))).interval()


@dataclass(frozen=True, slots=True)
class Difference:
    """A number with its standard error, from leaving out groups of subjects."""

    value: float
    standard_error: float

    def interval(self) -> tuple[float, float]:
        """Student's t interval at `LEVEL`."""
        reach = float(stats.t.isf((1 - LEVEL) / 2, NUM_GROUPS - 1)) * self.standard_error
        return self.value - reach, self.value + reach


def _variance(values: Floats) -> float:
    return (len(values) - 1) / len(values) * float(np.sum((values - np.mean(values)) ** 2))


def group_weights(number: int) -> Floats:
    """Weights of so many subjects, in random order, (1 + groups, number): everybody, then without each group."""
    weights = np.ones((1 + NUM_GROUPS, number))
    weights[1 + np.arange(number) % NUM_GROUPS, np.arange(number)] = 0
    return weights
