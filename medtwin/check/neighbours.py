"""Nearest neighbours of two samples: are the twins where real rows are, and is every real row met; and how diverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from medtwin.check.estimates import Measure
from medtwin.check.resample import NUM_RESAMPLES
from medtwin.check.two_sample import (
    MIN_ROWS,
    EqualDraws,
    EqualValues,
    Pair,
    Sample,
    bootstrap_weights,
    draw_equal,
    one_thread,
)
from medtwin.core.seeds import generator

MAX_ROWS = 1000
"""Rows per side; twice as many real ones for the baseline."""
MAX_VENDI_ROWS = 500
"""Rows per side of the Vendi score, whose cost grows with their third power: the first of those drawn."""
NUM_HALVES = 20
"""Pairs of disjoint real samples behind a baseline."""
ONE_SIDED = 2**0.5
"""Halves of one pool are each other's rest. A number that goes by one of them, as precision does by outliers whose
neighbourhoods are wide, varies half as much (in variance) as between independent samples, as it does when half of a
finite population is drawn. One that goes by the difference of the halves, as a ratio of diversities, varies as much."""
NUM_NEIGHBOURS = 5
"""k of the neighbourhoods. Source: Naeem et al. 2020, ICML, section 4."""

Floats = NDArray[np.float64]
WHAT = {
    "precision": "share of twins that lie where real rows do",
    "recall": "share of real rows that lie where twins do",
    "density": "how many real neighbourhoods a twin lies in, against what is expected",
    "coverage": "share of real rows with a twin in their neighbourhood",
    "vendi": "diversity of the twins (Vendi score) over that of the real rows",
}


@dataclass(frozen=True, slots=True)
class Prdc:
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Floats, synthetic: Floats, k: int = NUM_NEIGHBOURS) -> Prdc:
    """Precision, recall, density and coverage of the synthetic rows.

    A row's neighbourhood is the ball that reaches to its k-th nearest other row of its own side; its surface belongs
    to it. Precision: the share of synthetic rows in any real neighbourhood. Recall: the reverse. Density: real
    neighbourhoods per synthetic row, over k; 1 is expected of equal laws, and it may be more. Coverage: the share of
    real rows with a synthetic row in their neighbourhood.

    Args:
        real: (rows, numbers), more than k rows.
        synthetic: (other rows, numbers), more than k rows.
        k: Neighbours, 1 or more.

    Raises:
        ValueError: If a side has k rows or fewer.

    Source: Kynkaanniemi et al. 2019, NeurIPS (precision, recall); Naeem et al. 2020, ICML (density, coverage).

    >>> side = np.arange(8.0)[:, None]
    >>> prdc(side, side + 100)
    Prdc(precision=0.0, recall=0.0, density=0.0, coverage=0.0)
    """
    if k < 1 or min(len(real), len(synthetic)) <= k:
        raise ValueError(f"prdc needs k of 1 or more and more rows than k, got {k}, {len(real)} and {len(synthetic)}")
    hits = _hits(cdist(real, real), cdist(real, synthetic), cdist(synthetic, synthetic), k)
    return Prdc(*(float(np.mean(hits[name])) for name in ("precision", "recall", "density", "coverage")))


def _hits(within_real: Floats, between: Floats, within_synthetic: Floats, k: int) -> dict[str, Floats]:
    """What each row contributes: (synthetic rows,) to precision and density, (real rows,) to recall and coverage.

    Args:
        within_real: Distances of real rows.
        within_synthetic: Distances of synthetic rows.
        between: (real rows, synthetic rows) distances.
        k: Neighbours.
    """
    in_real = between <= _radii(within_real, k)[:, None]
    in_synthetic = between <= _radii(within_synthetic, k)[None, :]
    return {
        "precision": in_real.any(axis=0).astype(np.float64),
        "recall": in_synthetic.any(axis=1).astype(np.float64),
        "density": in_real.sum(axis=0) / k,
        "coverage": in_real.any(axis=1).astype(np.float64),
    }


def _radii(distance: Floats, k: int) -> Floats:
    """Distance of each row to its k-th nearest other, (rows,); the row itself is the nearest of all."""
    return np.asarray(np.partition(distance, k, axis=1)[:, k])


def vendi(features: Floats, *, bandwidth: float) -> float:
    """The Vendi score: the effective number of different rows, 1 (all the same) to the number of rows.

    The exponential of the entropy of the eigenvalues of the kernel matrix over the number of rows; the kernel is
    exp(-d^2 / (2 bandwidth^2)) of the Euclidean distance d.

    Args:
        features: (rows, numbers), at least 1 row; cost grows with the third power of the rows.
        bandwidth: Above 0.

    Raises:
        ValueError: If the bandwidth is not above 0.

    Source: Friedman & Dieng 2023, Transactions on Machine Learning Research.

    >>> round(vendi(np.array([[0.0], [0.0], [1e3], [1e3]]), bandwidth=1.0), 9)
    2.0
    """
    if bandwidth <= 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth!r}")
    return float(np.exp(_entropy(cdist(features, features), bandwidth)))


def _entropy(distance: Floats, bandwidth: float) -> float:
    """Entropy in nats of the eigenvalues of the kernel matrix over the number of rows."""
    share = np.maximum(np.linalg.eigvalsh(_kernel(distance, bandwidth)), 0)
    return float(-np.sum(share * _log(share)))


def _entropy_influence(distance: Floats, bandwidth: float) -> tuple[float, Floats]:
    """The entropy, and how much it rises with the weight of each row, (rows,); that is 0 on average.

    Of eigenvalues l_j and eigenvectors u_j of the kernel matrix over its n rows, the influence of row i on
    -sum_j l_j log l_j is -n sum_j u_ij^2 l_j log l_j less the entropy.

    Source: Bach 2023, IEEE Trans Inf Theory 69:752 (the entropy as one of a covariance operator); Efron 1982, The
    Jackknife, the Bootstrap and Other Resampling Plans, SIAM, chapter 6 (infinitesimal jackknife).
    """
    share, vectors = np.linalg.eigh(_kernel(distance, bandwidth))
    share = np.maximum(share, 0)
    terms = -share * _log(share)
    entropy = float(terms.sum())
    return entropy, np.asarray(len(distance) * (vectors**2 @ terms) - entropy)


def _kernel(distance: Floats, bandwidth: float) -> Floats:
    return np.asarray(np.exp(-((distance / bandwidth) ** 2) / 2) / len(distance))


def _log(share: Floats) -> Floats:
    return np.asarray(np.log(np.where(share > 0, share, 1.0)))


def compared_rows(
    real: Sample, synthetic: Sample, control: Sample | None, *, family: str, seed: int
) -> EqualDraws | None:
    """The rows that `neighbour_measures` of this family and seed compares; None: too few.

    Where the features are themselves learned from data, learn them from as many rows of both sides, `draws.real` and
    `draws.synthetic`: components fitted to real rows only follow what is particular to those, which then look more
    diverse than others of the same law. (On halves of 800 intensive care stays, a third of recalls then lay below the
    baseline's bound.)

    Args:
        real: Of which only the subjects count here.
        synthetic: The same of the twins.
        control: The same of the control.
        family: Names the measures.
        seed: Decides the draws.
    """
    return draw_equal(
        real, synthetic, control, max_rows=MAX_ROWS, num_halves=NUM_HALVES, seed=seed, purpose=f"neighbours.{family}"
    )


def neighbour_measures(
    real: Sample,
    synthetic: Sample,
    control: Sample | None,
    *,
    family: str,
    title: str,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> list[Measure]:
    """`{family}.precision .recall .density .coverage .vendi` of rows whose Euclidean distance means something.

    Samples are of equal size, at most `MAX_ROWS` rows per side and at most half of the real ones. The Vendi score is
    given as the twins' over that of as many real rows; the bandwidth is the median distance of real rows.

    The interval is from resampling subjects while the neighbourhoods stay, and widened for what they add
    (`EqualValues.estimate`): of the twins for precision and density, of the real rows for recall and coverage, of both
    for the Vendi score (by its derivative by the weight of a row). The baseline is between `NUM_HALVES` pairs of
    disjoint real samples; the control is compared with real.

    Args:
        real: The reference, dense features without NaN.
        synthetic: The twins.
        control: Real rows unseen in training; None: there are none.
        family: Names the measures.
        title: What the rows are, in words.
        seed: Decides the draws.
        num_resamples: Of the bootstrap.
    """
    draws = compared_rows(real, synthetic, control, family=family, seed=seed)
    if draws is None:
        reason = f"neighbours need {2 * MIN_ROWS} real and {MIN_ROWS} synthetic rows"
        return [
            Measure(f"{family}.{name}", f"{title}: {what}", None, 0, "higher", reason, real.num_rows > 0)
            for name, what in WHAT.items()
        ]
    rng = generator(seed, "check", "neighbours", family)
    with one_thread():
        values = _values((real, synthetic, control), draws, rng, num_resamples)
    most = {"density": np.inf, "vendi": np.inf}
    return [
        Measure(
            f"{family}.{name}",
            f"{title}: {what}",
            values[name].estimate(is_higher_better=True, most=most.get(name, 1.0)),
            2 * draws.size,
            "higher",
        )
        for name, what in WHAT.items()
    ]


def _values(
    sides: tuple[Sample, Sample, Sample | None], draws: EqualDraws, rng: np.random.Generator, num_resamples: int
) -> dict[str, EqualValues]:
    real, synthetic, control = sides
    place = np.zeros(real.num_rows, np.int64)
    place[draws.pool] = np.arange(len(draws.pool))
    pool, twins = real.features[draws.pool], synthetic.features[draws.synthetic]
    within = cdist(pool, pool)
    own = within[: draws.size, : draws.size]  # the first rows of the pool are those that are compared
    bandwidth = _bandwidth(own)
    compared = own, cdist(pool[: draws.size], twins), cdist(twins, twins)
    subjects = real.subject[draws.real], synthetic.subject[draws.synthetic]
    bootstrap = _bootstrap(compared, bandwidth, [bootstrap_weights(one, num_resamples, rng) for one in subjects])
    a, b = (place[rows] for rows in draws.halves[0])
    subjects = real.subject[draws.halves[0][0]], real.subject[draws.halves[0][1]]
    first = within[np.ix_(a, a)], within[np.ix_(a, b)], within[np.ix_(b, b)]
    of_first = _bootstrap(first, bandwidth, [bootstrap_weights(one, num_resamples, rng) for one in subjects])

    def of_halves(pairs: tuple[Pair, ...]) -> list[dict[str, float]]:
        found = []
        for pair in pairs:
            a, b = place[pair[0]], place[pair[1]]
            found.append(_compared(within[np.ix_(a, a)], within[np.ix_(a, b)], within[np.ix_(b, b)], bandwidth))
        return found

    halves = control_halves = of_halves(draws.halves)
    of_control: dict[str, float] = {}
    if control is not None and draws.control is not None:
        a, others = place[draws.control[0]], control.features[draws.control[1]]
        distances = within[np.ix_(a, a)], cdist(pool[a], others), cdist(others, others)
        of_control = _compared(*distances, bandwidth)
        if draws.control_halves is not draws.halves:
            control_halves = of_halves(draws.control_halves)
    return {
        name: EqualValues(
            bootstrap[name],
            np.array([one[name] for one in halves]),
            of_first[name],
            of_control.get(name),
            np.array([one[name] for one in control_halves]),
            ONE_SIDED if name != "vendi" else 1.0,
        )
        for name in WHAT
    }


def _bandwidth(distance: Floats) -> float:
    """The median distance between different rows; where that is 0, the mean; where that is 0, 1."""
    others = distance[np.triu_indices(len(distance), 1)]
    return float(np.median(others)) or float(np.mean(others)) or 1.0


def _compared(within_real: Floats, between: Floats, within_synthetic: Floats, bandwidth: float) -> dict[str, float]:
    hits = _hits(within_real, between, within_synthetic, NUM_NEIGHBOURS)
    entropies = [_entropy(_corner(side), bandwidth) for side in (within_real, within_synthetic)]
    return {
        **{name: float(np.mean(hit)) for name, hit in hits.items()},
        "vendi": float(np.exp(entropies[1] - entropies[0])),
    }


def _corner(distance: Floats) -> Floats:
    return distance[:MAX_VENDI_ROWS, :MAX_VENDI_ROWS]


def _bootstrap(
    distances: tuple[Floats, Floats, Floats], bandwidth: float, weights: Sequence[Floats]
) -> dict[str, Floats]:
    """Values when rows count by weights (draws, rows) of either side while the neighbourhoods stay, (draws,) each."""
    within_real, between, within_synthetic = distances
    hits = _hits(within_real, between, within_synthetic, NUM_NEIGHBOURS)
    found = {
        name: _means(weights[0] if name in ("recall", "coverage") else weights[1], hit) for name, hit in hits.items()
    }
    moved = []
    for side, weight in ((within_real, weights[0]), (within_synthetic, weights[1])):
        entropy, influence = _entropy_influence(_corner(side), bandwidth)
        moved.append(entropy + _means(weight[:, : len(influence)], influence))
    return {**found, "vendi": np.exp(moved[1] - moved[0])}


def _means(weights: Floats, values: Floats) -> Floats:
    """Weighted means of the rows' values, (draws,)."""
    return np.asarray(weights @ values / np.maximum(weights.sum(axis=1), 1e-12))
