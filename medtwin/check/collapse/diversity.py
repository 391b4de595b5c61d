"""How many different patients there are, and whether every real one has a twin near, generation by generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from medtwin.check.collapse.jackknife import Jackknifed, group_weights
from medtwin.check.neighbours import NUM_NEIGHBOURS, vendi
from medtwin.check.records import Records
from medtwin.check.summaries import patient_summaries, scaled_summaries, summary_keys
from medtwin.check.two_sample import one_thread

MAX_ROWS = 250
"""Rows per side: the cost grows with their third power, and with every resample."""

VENDI, COVERAGE = "Vendi score", "coverage"


def diversities(real: Records, others: Sequence[Records]) -> list[dict[str, Jackknifed]]:
    """Of each of the others the log of its Vendi score, and its coverage, by name.

    Of `summaries.patient_summaries` as points that are scaled by the real ones. Coverage: the share of real rows with
    one of the others in their neighbourhood, which stays what it is when some of the others are left out.

    Args:
        real: The reference, more than `NUM_NEIGHBOURS` subjects; of more than `MAX_ROWS` the first.
        others: Generations of twins, or other real subjects; as many of each are compared.

    Source: Friedman & Dieng 2023, Transactions on Machine Learning Research (Vendi score); Naeem et al. 2020, ICML
    (coverage).
    """
    size = min(MAX_ROWS, real.num_subjects, *(one.num_subjects for one in others))
    keys = summary_keys(real)
    rows = [patient_summaries(one.take(np.arange(size)), keys) for one in (real, *others)]
    found = []
    kept = [np.flatnonzero(weights) for weights in group_weights(size)]
    with one_thread():
        points = scaled_summaries(rows, rows[0])
        own = cdist(points[0], points[0])
        radius = np.partition(own, NUM_NEIGHBOURS, axis=1)[:, NUM_NEIGHBOURS]
        bandwidth = float(np.median(own[np.triu_indices(size, 1)])) or 1.0
        for side in points[1:]:
            near = cdist(points[0], side) <= radius[:, None]
            scores = np.array([np.log(vendi(side[rows], bandwidth=bandwidth)) for rows in kept])
            coverage = np.array([near[:, rows].any(axis=1).mean() for rows in kept])
            found.append({VENDI: Jackknifed.of(scores), COVERAGE: Jackknifed.of(coverage)})
    return found
