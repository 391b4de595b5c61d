"""How pools would differ, had other patients come: the bootstrap of a cohort's subjects, by their patterns of failure.

Subjects of the same pattern and the same groups are alike to every pool, so that a resampled cohort is a multinomial
draw of their numbers.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.attrition import Division
from medtwin.trials.population.failing import Patterns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_AT_ONCE = 100  # resampled cohorts in memory


@dataclass(frozen=True)
class ResampledPools:
    """What resampled cohorts would have been.

    Attributes:
        values: (resamples, criteria) sums of the shares of the subjects.
        compositions: Division to the share of each group in each pool, (resamples, pools, groups); nan of nobody.
    """

    values: Floats
    compositions: Mapping[str, Floats]


def resampled_pools(
    patterns: Patterns,
    shares: Floats,
    pools: Sequence[int],
    divisions: Mapping[str, Division],
    generator: np.random.Generator,
    num_resamples: int,
) -> ResampledPools:
    """Cohorts of as many subjects drawn with replacement.

    Args:
        patterns: Of failure of the subjects with a possible day.
        shares: (patterns, criteria) whose sums are wanted.
        pools: Masks of the criteria that each pool ignores.
        divisions: Of the cohort's subjects.
        generator: Draws.
        num_resamples: How many cohorts.
    """
    number = patterns.number
    admits = np.stack([patterns.admitted(each) for each in pools], axis=1).astype(np.float64)
    values = [drawn @ shares for drawn in _drawn(patterns.counts, generator, num_resamples)]
    compositions = {}
    for name, division in divisions.items():
        groups = len(division.labels)
        cells, count = np.unique(number * groups + division.number[patterns.subject], return_counts=True)
        admitting, group = admits[cells // groups], cells % groups
        blocks = []
        for drawn in _drawn(count, generator, num_resamples):
            blocks.append(np.stack([drawn[:, group == g] @ admitting[group == g] for g in range(groups)], axis=2))
        counts = np.concatenate(blocks)
        size = counts.sum(axis=2, keepdims=True)
        compositions[name] = np.divide(counts, size, out=np.full_like(counts, np.nan), where=size > 0)
    return ResampledPools(np.concatenate(values), compositions)


def _drawn(count: Ints, generator: np.random.Generator, num_resamples: int) -> Iterator[Floats]:
    """Subjects of each cell, (resamples, cells), some resampled cohorts at a time."""
    total = int(count.sum())
    for first in range(0, num_resamples, _AT_ONCE):
        size = min(_AT_ONCE, num_resamples - first)
        yield generator.multinomial(total, count / max(total, 1), size=size).astype(np.float64)
