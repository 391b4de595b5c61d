"""Images by their features: Frechet and kernel distance, neighbourhoods, and whether a classifier tells them apart.

All of it compares equal numbers of images on both sides, whole subjects at a time: the Frechet distance of few images
is large whatever they show, and so real images are compared with as many real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.neighbours import neighbour_measures
from medtwin.check.pictures import Picture, Pixels, common_size, stacked, subjects_of
from medtwin.check.two_sample import (
    MIN_ROWS,
    EqualDraws,
    Sample,
    bootstrap_weights,
    draw_equal,
    linear_c2st_measure,
    one_thread,
)
from medtwin.core.seeds import generator

NUM_FEATURES = 64
"""Features of a distance: of more, so many random combinations, which keep distances (Johnson & Lindenstrauss 1984)."""
SMALLEST_SCALE = 0.1
"""A feature is divided by its real standard deviation, at least by this times the median one: a pixel that is black in
every real image would else outweigh all others."""
MAX_ROWS = 750
MIN_SUBJECTS = 10
NUM_HALVES = 30
DEGREE = 3
"""Of the polynomial kernel. Source: Binkowski et al. 2018, section 4."""
TITLES = {
    "images.frechet": "Features of images: Frechet distance of as many twins as real images",
    "images.kid": "Features of images: kernel distance (KID), unbiased",
}

Encode = Callable[[Pixels], NDArray[np.float64]]
Floats = NDArray[np.float64]
Distance = Callable[[Floats, Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Encoded:
    """Pictures with their features, (pictures, features), scaled by the spread of the real ones."""

    pictures: Sequence[Picture]
    features: Floats

    def sample(self) -> Sample:
        """The features and whose they are."""
        return Sample(self.features, subjects_of(self.pictures))

    def where(self, keep: Callable[[Picture], bool]) -> Encoded:
        """Some of them."""
        rows = [number for number, one in enumerate(self.pictures) if keep(one)]
        return Encoded([self.pictures[row] for row in rows], self.features[rows])


def encode_sides(encode: Encode, *sides: Sequence[Picture]) -> list[Encoded]:
    """The features of the sides, the first of which is the real one that sets location and scale.

    All images are brought to the size of the smallest first: a difference of resolution is no difference of content.

    Raises:
        ValueError: If the encoder does not give one row of finite numbers per image.
    """
    size = common_size(*sides)
    features = []
    for side in sides:
        found = np.asarray(encode(stacked(side, size)), np.float64) if side else np.zeros((0, 0))
        if found.ndim != 2 or len(found) != len(side) or not np.isfinite(found).all():
            raise ValueError(f"encode must give ({len(side)}, features) finite numbers, got {found.shape}")
        features.append(found)
    mean, scale = features[0].mean(axis=0), _scale(features[0])
    return [
        Encoded(side, (found - mean) / scale if len(side) else np.zeros((0, len(mean))))
        for side, found in zip(sides, features, strict=True)
    ]


def _scale(features: Floats) -> Floats:
    spread = features.std(axis=0)
    least = SMALLEST_SCALE * float(np.median(spread))
    return np.maximum(spread, least) if least > 0 else np.where(spread > 0, spread, 1.0)


def projected(sides: Sequence[Encoded], seed: int) -> list[Encoded]:
    """The sides with at most `NUM_FEATURES` features: random orthogonal combinations, of the same scale on average."""
    width = sides[0].features.shape[1]
    if width <= NUM_FEATURES:
        return list(sides)
    gaussian = generator(seed, "check", "image projection").standard_normal((width, NUM_FEATURES))
    basis = np.linalg.qr(gaussian)[0] * np.sqrt(width / NUM_FEATURES)
    return [Encoded(side.pictures, side.features @ basis) for side in sides]


def frechet(first: Floats, second: Floats) -> float:
    """The squared Frechet distance of two samples as if they were Gaussian: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    Args:
        first: (rows, numbers), at least 2 rows.
        second: The same of the other.

    Sources: Dowson & Landau 1982, J Multivariate Anal 12:450; Heusel et al. 2017, NeurIPS (as a measure of images).

    >>> frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [9.0]]))
    33.0
    """
    ones = np.ones((1, len(first))), np.ones((1, len(second)))
    return float(_frechet(first, second, *ones)[0])


def _frechet(first: Floats, second: Floats, first_weights: Floats, second_weights: Floats) -> Floats:
    """The distance, (draws,), of samples whose rows count (draws, rows) times.

    The trace of (C1 C2)^1/2 is the sum of the square roots of the eigenvalues of C1^1/2 C2 C1^1/2, which is symmetric:
    no square root of an unsymmetric matrix, which is slow and comes out complex where covariances lack rank.
    """
    found = []
    for mine, theirs in zip(first_weights, second_weights, strict=True):
        (mean, covariance), (other_mean, other) = _moments(first, mine), _moments(second, theirs)
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        middle = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
        found.append(np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other) - 2 * middle)
    return np.array(found)


def _moments(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of rows that count so many times each."""
    total = weights.sum()
    mean = weights @ rows / total
    centred = rows - mean
    return mean, (centred * weights[:, None]).T @ centred / max(total - 1, 1)


def kid(first: Floats, second: Floats, first_subject: NDArray[np.int64], second_subject: NDArray[np.int64]) -> float:
    """The kernel distance: unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3; may be negative.

    Pairs of images of one subject are left out. It is the mean over all subsets of equal size, so that none is drawn.

    Args:
        first: (rows, d), of at least 2 subjects.
        second: The same of the other.
        first_subject: Whose they are, (rows,).
        second_subject: The same of the other.

    Sources: Binkowski et al. 2018, ICLR; Gretton et al. 2012, J Mach Learn Res 13:723, lemma 6.

    >>> one, other = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    >>> kid(one, other, np.arange(2), np.arange(2))  # 1 + 27 - 2 (1 + 1 + 8 + 27) / 4
    9.5
    """
    weights = np.ones((1, len(first))), np.ones((1, len(second)))
    return float(_kid_of(first_subject, second_subject)(first, second, *weights)[0])


def _kid_of(first_subject: NDArray[np.int64], second_subject: NDArray[np.int64]) -> Distance:
    def distance(first: Floats, second: Floats, first_weights: Floats, second_weights: Floats) -> Floats:
        within = _mean_kernel(first, first_subject, first_weights), _mean_kernel(second, second_subject, second_weights)
        between = _kernel(first, second)
        cross = np.einsum("ij,ij->i", first_weights @ between, second_weights)
        cross = cross / (first_weights.sum(axis=1) * second_weights.sum(axis=1))
        return np.asarray(within[0] + within[1] - 2 * cross)

    return distance


def _kernel(first: Floats, second: Floats) -> Floats:
    return np.asarray((first @ second.T / first.shape[1] + 1) ** DEGREE)


def _mean_kernel(rows: Floats, subject: NDArray[np.int64], weights: Floats) -> Floats:
    """Mean of the kernel over pairs of rows of two subjects, (draws,)."""
    is_fair = (subject[:, None] != subject[None]).astype(np.float64)
    total = np.einsum("ij,ij->i", weights @ (is_fair * _kernel(rows, rows)), weights)
    return np.asarray(total / np.maximum(np.einsum("ij,ij->i", weights @ is_fair, weights), 1))


def feature_measures(
    real: Encoded, synthetic: Encoded, control: Encoded, *, seed: int, num_resamples: int
) -> list[Measure]:
    """Frechet distance, KID, precision, recall, density, coverage, diversity (Vendi) and C2ST of `projected` images."""
    samples = [side.sample() for side in (real, synthetic, control)]
    third = samples[2] if samples[2].num_rows else None
    estimates = distance_estimates((samples[0], samples[1], third), seed=seed, num_resamples=num_resamples)
    reason = (
        "" if estimates else f"needs {2 * MIN_ROWS} real and {MIN_ROWS} synthetic images of {MIN_SUBJECTS} subjects"
    )
    number = len(real.pictures), len(synthetic.pictures)
    measures = [
        Measure(name, title, estimates.get(name), sum(number) if estimates else 0, "lower", reason)
        for name, title in TITLES.items()
    ]
    title = "Features of images"
    measures += neighbour_measures(
        samples[0], samples[1], third, family="images", title=title, seed=seed, num_resamples=num_resamples
    )
    # Logistic regression: it tells a slight blur or noise of radiographs, which boosted trees of so few images do not.
    test = linear_c2st_measure(
        samples[0], samples[1], third, family="images", title=title, seed=seed, num_resamples=num_resamples
    )
    return [*measures, replace(test, name="images.c2st")]


def unmeasured_features(reason: str, *, applicable: bool) -> list[Measure]:
    """The measures of features without an estimate."""
    titles = {
        **TITLES,
        **{f"images.{name}": f"Features of images: {name}" for name in ("precision", "recall", "density", "coverage")},
        "images.vendi": "Features of images: diversity (Vendi score)",
        "images.c2st": "Features of images: how well a classifier tells twins from real",
    }
    lower = {*TITLES, "images.c2st"}
    return [
        Measure(name, title, None, 0, "lower" if name in lower else "higher", reason, applicable)
        for name, title in titles.items()
    ]


def frechet_estimate(
    real: Sample, synthetic: Sample, control: Sample | None, *, seed: int, num_resamples: int, purpose: str
) -> Estimate | None:
    """Frechet distance of the features of some images; None where there are too few."""
    sides = real, synthetic, control
    found = distance_estimates(sides, ("images.frechet",), seed=seed, num_resamples=num_resamples, purpose=purpose)
    return found.get("images.frechet")


def distance_estimates(
    sides: tuple[Sample, Sample, Sample | None],
    names: Sequence[str] = tuple(TITLES),
    *,
    seed: int,
    num_resamples: int,
    purpose: str = "all",
) -> dict[str, Estimate]:
    """Frechet distance and KID of reference, twins and control; empty where there are too few images."""
    real, synthetic, control = sides
    draws = draw_equal(
        real, synthetic, control, max_rows=MAX_ROWS, num_halves=NUM_HALVES, seed=seed,
        purpose=f"image distances {purpose}",
    )  # fmt: skip
    if draws is None or min(len(np.unique(one.subject)) for one in (real, synthetic)) < MIN_SUBJECTS:
        return {}
    rng = generator(seed, "check", "image distances", purpose)
    with one_thread():
        return {
            name: _estimate(real, synthetic, control, draws, rng, num_resamples, is_kid=name == "images.kid")
            for name in names
        }


def _estimate(
    real: Sample,
    synthetic: Sample,
    control: Sample | None,
    draws: EqualDraws,
    rng: np.random.Generator,
    num_resamples: int,
    *,
    is_kid: bool,
) -> Estimate:
    """The value is the mean over `NUM_HALVES` real samples; its interval is from resampling the subjects of one.

    Resampling repeats rows, which moves a Frechet distance up; so the draws are shifted to have their middle there.
    """

    def between(first: Sample, a: NDArray[np.int64], second: Sample, b: NDArray[np.int64]) -> float:
        rows = _dense(first)[a], _dense(second)[b]
        return kid(*rows, first.subject[a], second.subject[b]) if is_kid else frechet(*rows)

    twins = draws.synthetic
    value = float(np.mean([between(real, pair[0], synthetic, twins) for pair in draws.halves]))
    subjects = real.subject[draws.real], synthetic.subject[twins]
    weights = [bootstrap_weights(one, num_resamples, rng)[1:] for one in subjects]
    distance = _kid_of(*subjects) if is_kid else _frechet
    bootstrap = distance(_dense(real)[draws.real], _dense(synthetic)[twins], weights[0], weights[1])
    halves = np.array([between(real, a, real, b) for a, b in draws.halves])
    of_control = None
    if control is not None and draws.control is not None:
        others = draws.control[1]
        pairs = [(between(real, a, control, others), between(real, a, real, b)) for a, b in draws.control_halves]
        of_control = float(np.mean(halves) + np.mean([one - other for one, other in pairs]))
    shifted = bootstrap - np.median(bootstrap) + value
    if not is_kid:
        shifted = np.maximum(shifted, 0)
    return equal_estimate(np.concatenate([[value], shifted]), halves, of_control)


def _dense(sample: Sample) -> Floats:
    return np.asarray(sample.features, np.float64)


def equal_estimate(bootstrap: Floats, halves: Floats, control: float | None = None) -> Estimate:
    """The estimate of draws of equal size: nothing is scaled.

    Args:
        bootstrap: (1 + resamples,) the value itself first.
        halves: (halves,) real with real. The bound that a further such value stays within with 95 % probability is from
            Student's t, as there are few.
        control: Control with real.
    """
    value, number = float(bootstrap[0]), len(halves)
    low, high = np.quantile(bootstrap, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    spread = float(np.std(halves, ddof=1) * stats.t.ppf(LEVEL, number - 1) * np.sqrt(1 + 1 / number))
    baseline = float(np.mean(halves))
    return Estimate(value, min(float(low), value), max(float(high), value), baseline, baseline + spread, control)
