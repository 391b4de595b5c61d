"""Whether synthetic images lie nearer to the training images than to real images that training did not see.

A model that remembers draws images whose nearest real image is one that it learned from. Were the twins made without
either, subjects of the training data and of the control could change places: who is the nearest is then as often of
the one as their numbers say, and what chance does is known by dealing the subjects anew (a permutation test). It is
asked in three spaces, the two of features and the one of patches (`image_search`); the worst of them is held against
what chance does to the worst of three. Source of the question: Meehan, Chaudhuri & Dasgupta 2020, AISTATS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.image_features import Encoded
from medtwin.check.image_search import SIZE, find_matches, local_contrast
from medtwin.check.pictures import Picture, stacked, subjects_of
from medtwin.check.resample import MIN_CONTROL
from medtwin.core.seeds import generator

WORST = "images.memory"
TITLES = {
    WORST: "Images nearer to training images than to others, beyond chance: the worst of the spaces (0: none, 1: all)",
    "images.memory_features": "Images nearer to training images than to others, beyond chance: features of the encoder",
    "images.memory_pixels": "Images nearer to training images than to others, beyond chance: local contrast",
    "images.memory_patches": "Images nearer to training images than to others, beyond chance: patches anywhere",
}
NUM_COMPONENTS = 64
MAX_IMAGES = 150
"""Synthetic images that are looked at, a random choice above: the search of patches costs most of a check of images."""
NUM_PERMUTATIONS = 500

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """The real subject whose image is nearest to each synthetic image, in one space.

    Attributes:
        subject: (images,).
    """

    subject: Ints


def nearest_in(features: Floats, real: Floats, subject: Ints) -> Nearest:
    """The nearest by Euclidean distance.

    Args:
        features: Of synthetic images, (images, numbers).
        real: Of real images, training and control, (real images, numbers).
        subject: Whose those are, (real images,).
    """
    squares = (real**2).sum(axis=1)[None] - 2 * features @ real.T
    return Nearest(subject[squares.argmin(axis=1)])


def excess(of_training: NDArray[np.bool_], expected: float) -> float:
    """Share of images nearest to training beyond what is expected, of what could be: 0 none, 1 all; may be negative.

    >>> excess(np.array([True, True, True, False]), 0.5)
    0.5
    """
    return (float(np.mean(of_training)) - expected) / (1 - expected)


def memory_measures(
    spaces: Mapping[str, Nearest], training: Ints, control: Ints, twins: Ints, *, seed: int, num_resamples: int
) -> list[Measure]:
    """The measure of each space, and of the worst.

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
    rows = {name: order[np.searchsorted(real, one.subject, sorter=order)] for name, one in spaces.items()}
    dealt = np.array([rng.permutation(len(real)) < len(training) for _ in range(NUM_PERMUTATIONS)])
    expected = len(training) / len(real)
    names = list(spaces)
    truth = np.arange(len(real)) < len(training)
    values = np.array([excess(truth[rows[name]], expected) for name in names])
    chance = np.array([[excess(one[rows[name]], expected) for name in names] for one in dealt])
    _, twin = np.unique(twins, return_inverse=True)
    drawn = rng.multinomial(twin.max() + 1, np.full(twin.max() + 1, 1 / (twin.max() + 1)), size=num_resamples)
    weights = drawn[:, twin] / np.maximum(drawn[:, twin].sum(axis=1, keepdims=True), 1)
    boot = np.stack([(weights @ truth[rows[name]] - expected) / (1 - expected) for name in names], axis=1)
    measures = [_measure(WORST, float(values.max()), boot.max(axis=1), chance.max(axis=1), len(twins))]
    for number, name in enumerate(names):
        measures.append(_measure(name, float(values[number]), boot[:, number], chance[:, number], len(twins)))
    return measures


def _measure(name: str, value: float, boot: Floats, chance: Floats, number: int) -> Measure:
    low, high = np.quantile(boot, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    worst = float(np.quantile(chance, LEVEL))
    estimate = Estimate(value, min(float(low), value), max(float(high), value), float(chance.mean()), worst)
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
        synthetic: The twins.
        control: Real images unseen in training.
        encoded: The three sides with features (`image_features.encode_sides`); None: no encoder was given.
        seed: Decides every draw.
        num_resamples: Bootstrap resamples of twins.
    """
    kinds, count = np.unique([one.modality for one in synthetic], return_counts=True)
    kind = str(kinds[count.argmax()])
    sides = [[one for one in side if one.modality == kind] for side in (real, synthetic, control)]
    subjects = [np.unique(subjects_of(side)) for side in sides]
    if len(subjects[2]) < MIN_CONTROL or not sides[0]:
        return unmeasured_memory(
            f"needs images of {MIN_CONTROL} real subjects that training did not see, there are {len(subjects[2])}"
        )
    chosen = np.sort(generator(seed, "check", "remembered images").permutation(len(sides[1]))[:MAX_IMAGES])
    twins = [sides[1][i] for i in chosen]
    owner = subjects_of([*sides[0], *sides[2]])
    images = [stacked(side, SIZE) for side in ([*sides[0], *sides[2]], twins)]
    of_real, of_twins = _components(images[0], images[1])
    spaces = {"images.memory_pixels": nearest_in(of_twins, of_real, owner)}
    match = find_matches(images[1], images[0], owner)
    spaces["images.memory_patches"] = Nearest(owner[match.training])
    if encoded is not None:
        kept = [one.where(lambda picture: picture.modality == kind) for one in encoded]
        by_id = {id(picture): row for picture, row in zip(kept[1].pictures, kept[1].features, strict=True)}
        if all(id(one) in by_id for one in twins):
            features = np.stack([by_id[id(one)] for one in twins])
            known = np.concatenate([kept[0].features, kept[2].features])
            of = np.concatenate([subjects_of(kept[0].pictures), subjects_of(kept[2].pictures)])
            spaces["images.memory_features"] = nearest_in(features, known, of)
    found = memory_measures(
        spaces, subjects[0], subjects[2], subjects_of(twins), seed=seed, num_resamples=num_resamples
    )
    missing = sorted(TITLES.keys() - {one.name for one in found})
    reason = "no encoder of images was given"
    return [*found, *(Measure(name, TITLES[name], None, 0, reason=reason) for name in missing)]


def _components(real: NDArray[np.float32], twins: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Principal components of local contrast, each of deviation 1 among the real images: real, then twins."""
    flat = [local_contrast(side).reshape(len(side), -1).astype(np.float64) for side in (real, twins)]
    mean = flat[0].mean(axis=0)
    _, scale, axes = np.linalg.svd(flat[0] - mean, full_matrices=False)
    kept = scale[:NUM_COMPONENTS] > 1e-6 * max(scale[0], 1e-12)
    basis = axes[:NUM_COMPONENTS][kept].T / scale[:NUM_COMPONENTS][kept] * np.sqrt(len(real))
    return (flat[0] - mean) @ basis, (flat[1] - mean) @ basis
