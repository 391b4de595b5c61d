"""Scores of membership that need the twins alone, or the twins and a reference of other real people."""

from __future__ import annotations

import numpy as np

from medtwin.check.attacks.table import Floats, People, Scales, nearest_distances
from medtwin.check.two_sample import boosted_trees, one_thread

_NO_DISTANCE = 1e-3  # attributes: nearer than this counts as the same


def nearest_twin_scores(people: People, synthetic: People) -> Floats:
    """Minus the distance of each person to the nearest twin, (people,). It misses most of what leaks.

    Source: Chen, Yu, Zhang & Fritz 2020, CCS '20, 343.
    """
    return -nearest_distances(people, synthetic, Scales.of(synthetic))


def neighbour_ratio_scores(people: People, synthetic: People, reference: People) -> Floats:
    """How much nearer the nearest twin is than the nearest reference person, as a logarithm, (people,).

    A ratio of densities by nearest neighbours, which follow single people; what is rare is far from both.

    Args:
        people: Whom to score.
        synthetic: The twins.
        reference: Real people who are neither members nor among those scored.

    Source: van Breugel, Sun, Qian & van der Schaar 2023, AISTATS, PMLR 206:3493 (density ratios as an attack);
    Loftsgaarden & Quesenberry 1965, Ann Math Stat 36:1049 (density by nearest neighbours).
    """
    scales = Scales.of(synthetic)
    far, near = (nearest_distances(people, side, scales) for side in (reference, synthetic))
    return np.asarray(np.log(far + _NO_DISTANCE) - np.log(near + _NO_DISTANCE))


def density_ratio_scores(people: People, synthetic: People, reference: People) -> Floats:
    """Logarithm of how much denser the twins are than reference people where each person is, (people,).

    The ratio is that of a classifier, gradient-boosted trees; a model that is over-fit to some people puts more twins
    near them than the law does.

    Args:
        people: Whom to score.
        synthetic: The twins.
        reference: Real people who are neither members nor among those scored.

    Source: van Breugel, Sun, Qian & van der Schaar 2023, AISTATS, PMLR 206:3493 (the attack); Sugiyama, Suzuki &
    Kanamori 2012, Density Ratio Estimation in Machine Learning (the classifier).
    """
    known = np.isfinite(np.concatenate([reference.values, synthetic.values])).any(axis=0)
    return density_ratio(*(side.values[:, known] for side in (people, synthetic, reference)))


def density_ratio(points: Floats, synthetic: Floats, reference: Floats) -> Floats:
    """Logarithm of how much denser the synthetic points are than the reference where each point is, (points,).

    Args:
        points: Where to ask, (points, columns).
        synthetic: (synthetic points, columns).
        reference: (reference points, columns).
    """
    sizes = [len(reference), len(synthetic)]
    weights = np.repeat([1 / n for n in sizes], sizes) * sizes[0]
    model = boosted_trees()
    with one_thread():
        model.fit(np.concatenate([reference, synthetic]), np.repeat([0, 1], sizes), sample_weight=weights)
        return np.asarray(model.decision_function(points), np.float64)
