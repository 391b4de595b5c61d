"""Whether synthetic images lie nearer to the training images than to real images that training did not see.

A model that remembers draws images that are nearer to one patient that it learned from than to anybody else. Each image
counts by how much nearer: 1 less the distance of the nearest subject over that of the next. Of what counts, the share
whose nearest subject is one of training is held against the share of training among the real subjects. Were the twins
made without either side, subjects of training and control could change places: what chance does is known by
dealing them anew, however few there are (a permutation test). It is asked in two spaces of features and by patches
wherever they lie (`image_search`). The space that is furthest beyond its own chance tells, and what chance does to the
furthest of three is its bound (the largest standardised statistic of Westfall & Young 1993, chapter 2).

Sources: the question, Meehan, Chaudhuri & Dasgupta 2020, AISTATS; the ratio, Lowe 2004, Int J Comput Vis 60:91,
section 7.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.image_features import Encoded
from medtwin.check.image_search import SIZE, local_contrast, similarities
from medtwin.check.pictures import Picture, stacked, subjects_of
from medtwin.check.resample import MIN_CONTROL
from medtwin.core.seeds import generator

WORST = "images.memory"
FEATURES, PIXELS, PATCHES = "images.memory_features", "images.memory_pixels", "images.memory_patches"
_TITLE = "Nearer to a training image than to other real images, beyond chance (0: none, 1: all)"
TITLES = {
    WORST: f"{_TITLE}: the space that tells most",
    FEATURES: f"{_TITLE}: features of the encoder",
    PIXELS: f"{_TITLE}: local contrast",
    PATCHES: f"{_TITLE}: patches anywhere",
}
NUM_COMPONENTS = 64
MAX_IMAGES = 150
"""Synthetic images that are looked at, a random choice above: the search of patches costs most of a check of images."""
NUM_PERMUTATIONS = 500
SMALLEST_CHANCE = 0.02
"""What chance does to a space is at least taken for so much."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """The real subject that each synthetic image is nearest to, in one space.

    Attributes:
        subject: (images,).
        distinct: 1 less the distance of that subject over that of the next one, (images,): 0 as near, 1 equal.
    """

    subject: Ints
    distinct: Floats


def nearest_of(distances: Floats, owner: Ints) -> Nearest:
    """The nearest subject by the distances to images.

    Args:
        distances: 0 or more, (images, real images); at least two subjects.
        owner: Whose the real images are, (real images,).
    """
    rows = np.arange(len(distances))
    first = distances.argmin(axis=1)
    others = np.where(owner[first][:, None] == owner, np.inf, distances).min(axis=1)
    return Nearest(owner[first], 1 - distances[rows, first] / np.maximum(others, 1e-12))


def memory_measures(
    spaces: Mapping[str, Nearest], training: Ints, control: Ints, twins: Ints, *, seed: int, num_resamples: int
) -> list[Measure]:
    """The measure of the space that tells most, and of each.

    Args:
        spaces: The nearest subjects by the name of the measure, each (images,).
        training: Subjects of the training images, each once.
        control: Subjects that training did not see, each once.
        twins: Whose the synthetic images are, (images,).
        seed: Decides the permutations and the resampling of twins.
        num_resamples: Bootstrap resamples of twins.
    """
    rng = generator(seed, "check", "image memory")
    real = np.concatenate([training, control])
    order = np.argsort(real)
    expected = len(training) / len(real)
    truth = np.arange(len(real)) < len(training)
    deals = np.stack([truth, *(rng.permutation(truth) for _ in range(NUM_PERMUTATIONS))])
    _, twin = np.unique(twins, return_inverse=True)
    drawn = rng.multinomial(twin.max() + 1, np.full(twin.max() + 1, 1 / (twin.max() + 1)), size=num_resamples)
    values, boot = [], []
    for one in spaces.values():
        row = order[np.searchsorted(real, one.subject, sorter=order)]
        values.append(excess(deals[:, row], one.distinct[None], expected))
        boot.append(excess(truth[row][None], drawn[:, twin] * one.distinct, expected))
    usual = [max(float(np.quantile(one[1:], LEVEL)), SMALLEST_CHANCE) for one in values]
    beyond = np.array(values) / np.array(usual)[:, None]
    most = int(beyond[:, 0].argmax())
    worst = float(np.quantile(beyond[:, 1:].max(axis=0), LEVEL)) * usual[most]
    found = [_measure(WORST, values[most], boot[most], len(twins), worst)]
    found += [_measure(name, values[i], boot[i], len(twins), usual[i]) for i, name in enumerate(spaces)]
    return found


def excess(of_training: NDArray[np.bool_], weights: Floats, expected: float) -> Floats:
    """Weighted share of what is nearest to training beyond what is expected, of what could be, (draws,).

    0 none, 1 all; negative where the control is nearer, and 0 where nothing has a weight.

    Args:
        of_training: (draws or 1, images).
        weights: 0 or more, (draws or 1, images).
        expected: The share of training among the real subjects, below 1.

    >>> excess(np.array([[True, True, True, False]]), np.ones((1, 4)), 0.5).tolist()
    [0.5]
    """
    total = weights.sum(axis=1)
    share = (of_training * weights).sum(axis=1) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, (share - expected) / (1 - expected), 0.0))


def _measure(name: str, values: Floats, boot: Floats, number: int, worst: float) -> Measure:
    """Of the value, first, and what deals have; of resamples; and what chance does at most."""
    value, chance = float(values[0]), float(values[1:].mean())
    low, high = np.quantile(boot, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    estimate = Estimate(value, min(float(low), value), max(float(high), value), chance, worst)
    return Measure(name, TITLES[name], estimate, number)


def unmeasured_memory(reason: str, *, applicable: bool = True) -> list[Measure]:
    """The measures without an estimate."""
    return [Measure(name, title, None, 0, "lower", reason, applicable) for name, title in TITLES.items()]


def image_memory(
    real: Sequence[Picture],
    synthetic: Sequence[Picture],
    control: Sequence[Picture],
    encoded: Sequence[Encoded] | None,
    *,
    seed: int,
    num_resamples: int,
) -> list[Measure]:
    """Everything of this page, of the commonest modality of the synthetic images.

    Args:
        real: The training images.
        synthetic: The twins, at least one.
        control: Real images unseen in training.
        encoded: The three sides with features (`image_features.encode_sides`); None: no encoder was given.
        seed: Decides every draw.
        num_resamples: Bootstrap resamples of twins.
    """
    kinds, count = np.unique([one.modality for one in synthetic], return_counts=True)
    kind = str(kinds[count.argmax()])
    sides = [[one for one in side if one.modality == kind] for side in (real, synthetic, control)]
    training, unseen = (np.unique(subjects_of(sides[side])) for side in (0, 2))
    if len(unseen) < MIN_CONTROL or not len(training):
        needed = f"needs images of {MIN_CONTROL} real subjects that training did not see"
        return unmeasured_memory(f"{needed}, there are {len(unseen)}" if len(training) else f"no {kind} in training")
    chosen = np.sort(generator(seed, "check", "remembered images").permutation(len(sides[1]))[:MAX_IMAGES])
    twins = [sides[1][i] for i in chosen]
    spaces = spaces_of([*sides[0], *sides[2]], twins)
    if (features := _features(encoded, twins)) is not None:
        spaces[FEATURES] = features
    found = memory_measures(spaces, training, unseen, subjects_of(twins), seed=seed, num_resamples=num_resamples)
    reason = "no encoder of images was given" if encoded is None else f"{kind} has too few images for features"
    measures = {one.name: one for one in found}
    return [measures.get(name) or Measure(name, TITLES[name], None, 0, reason=reason) for name in TITLES]


def spaces_of(real: Sequence[Picture], twins: Sequence[Picture]) -> dict[str, Nearest]:
    """The nearest of the real subjects by local contrast and by patches."""
    owner, images = subjects_of(real), [stacked(side, SIZE) for side in (real, twins)]
    of_real, of_twins = components(images[0], images[1])
    patches = np.maximum(1 - similarities(images[1], images[0]).astype(np.float64), 0)
    return {PIXELS: nearest_of(cdist(of_twins, of_real), owner), PATCHES: nearest_of(patches, owner)}


def _features(encoded: Sequence[Encoded] | None, twins: Sequence[Picture]) -> Nearest | None:
    """The nearest of the real subjects by features; None where not all of the twins have some."""
    if encoded is None:
        return None
    row = {id(picture): number for number, picture in enumerate(encoded[1].pictures)}
    if not all(id(one) in row for one in twins):
        return None
    kind = twins[0].modality
    known = [encoded[side].where(lambda picture: picture.modality == kind) for side in (0, 2)]
    owner = np.concatenate([subjects_of(side.pictures) for side in known])
    features = encoded[1].features[[row[id(one)] for one in twins]]
    return nearest_of(cdist(features, np.concatenate([side.features for side in known])), owner)


def components(real: NDArray[np.float32], twins: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Local contrast on the principal components of the real images: real, then twins."""
    flat = [local_contrast(side).reshape(len(side), -1).astype(np.float64) for side in (real, twins)]
    mean = flat[0].mean(axis=0)
    basis = np.linalg.svd(flat[0] - mean, full_matrices=False)[2][:NUM_COMPONENTS].T
    return (flat[0] - mean) @ basis, (flat[1] - mean) @ basis
