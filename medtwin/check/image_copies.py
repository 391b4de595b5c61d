"""Copies among images: synthetic ones that are a training image, however lit, moved, mirrored or cropped; repetitions.

How near is too near (`image_search`) is what real images of other subjects never reach: the same search among real
images gives the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from medtwin.check.findings import CopyRow
from medtwin.check.image_search import SIZE, find_matches, halves
from medtwin.check.pictures import Picture, Pixels, stacked, subjects_of
from medtwin.core.seeds import generator

QUANTILE = 0.01
CLOSER = 0.6
"""A copy is near to a training image, and much nearer than to the next subject's: its nearness is below `CLOSER` times
what 99 % of real images of its modality have. Not 100 %: one patient who stands in the data under two names
must not lift the bound for everybody. What is found and what is called a copy wrongly: docs/results/scans_copies.md."""
TOLERATED = 0.01
"""Share of images so near that chance explains it."""
NUM_HALVES = 2
SMALLEST = 1e-4
MIN_SUBJECTS = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Group:
    """The training images of one modality, all views: what was learned in one may be drawn as another.

    Attributes:
        usual: Nearness of real images to those of other subjects. scale: What 99 % of them have.
    """

    images: Pixels
    subject: Ints
    usual: Floats
    scale: float


@dataclass(frozen=True)
class NearnessLimits:
    """How near real images are to training images of other subjects, by modality."""

    groups: Mapping[str, _Group]

    def shares(self, images: Pixels, names: Sequence[str]) -> Floats:
        """Nearness of images over what 99 % of real images of their modality have, (images,); NaN of an unknown one.

        Args:
            images: (images, SIZE, SIZE), 0 to 1.
            names: The modality of each.
        """
        found = np.full(len(images), np.nan)
        for name, group in self.groups.items():
            rows = np.flatnonzero(np.array(names, object) == name)
            found[rows] = find_matches(images[rows], group.images, group.subject).nearness / group.scale
        return found


def nearness_limits(real: Sequence[Picture], control: Sequence[Picture], seed: int) -> NearnessLimits:
    """The limits of training images, from their halves and from real images of other subjects.

    Modalities of fewer than `MIN_SUBJECTS` subjects have none.
    """
    groups: dict[str, _Group] = {}
    for name in sorted({one.modality for one in real}):
        training, others = ([one for one in side if one.modality == name] for side in (real, control))
        images, subject = stacked(training, SIZE), subjects_of(training)
        if len(np.unique(subject)) < MIN_SUBJECTS:
            continue
        rng = generator(seed, "check", "image copies", name)
        usual = [one.nearness for one in islice(halves(images, subject, rng), NUM_HALVES)]
        usual.append(find_matches(stacked(others, SIZE), images, subject).nearness)
        nearness = np.concatenate(usual)
        groups[name] = _Group(images, subject, nearness, max(float(np.quantile(nearness, QUANTILE)), SMALLEST))
    return NearnessLimits(groups)


def image_copies(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], seed: int
) -> list[CopyRow]:
    """Copies of training images, and repetitions among the synthetic ones."""
    limits = nearness_limits(real, control, seed)
    names = [one.modality for one in synthetic]
    near = limits.shares(stacked(synthetic, SIZE), names)
    found = near[np.isfinite(near)]
    usual = [limits.groups[name].usual / limits.groups[name].scale for name in sorted({*names} & {*limits.groups})]
    reference = np.concatenate([np.zeros(0), *usual])
    digests = {one.digest for one in real}
    exact = sum(one.digest in digests for one in synthetic)
    num_near = int(np.sum(found < CLOSER))
    return [
        CopyRow(
            "copies.images_near",
            "Images that are a training image, however lit, moved, mirrored or cropped",
            CLOSER,
            num_near,
            len(found),
            num_near / max(len(found), 1),
            float(np.mean(reference < CLOSER)) if len(reference) else 0.0,
            "nearness, over what 99 % of real images of the modality have",
            TOLERATED,
        ),
        CopyRow(
            "duplicates.images",
            "Images equal to another synthetic image to the pixel",
            1.0,
            _num_repeated(synthetic),
            len(synthetic),
            _num_repeated(synthetic) / max(len(synthetic), 1),
            _num_repeated(real) / max(len(real), 1),
        ),
        CopyRow(
            "copies.images",
            "Images that are a training image to the pixel",
            1.0,
            exact,
            len(synthetic),
            exact / max(len(synthetic), 1),
            float(np.mean([one.digest in digests for one in control])) if control else 0.0,
        ),
    ]


def _num_repeated(pictures: Iterable[Picture]) -> int:
    _, count = np.unique([one.digest for one in pictures], return_counts=True)
    return int(count[count > 1].sum())
