"""Copies among images: synthetic ones that are a training image, however lit, moved, zoomed or mirrored; repetitions.

A model that has memorised seldom repeats a pixel: it repeats an image a little blurred, brighter or elsewhere. So
images are compared by their local contrast, which light does not change, in the best of many positions. How near is too
near is what real images of other subjects never reach: the same search among real images gives the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from medtwin.check.findings import CopyRow
from medtwin.check.pictures import Picture, Pixels, stacked, subjects_of
from medtwin.core.seeds import generator

SIZE = 32
MARGIN = 2
"""Pixels by which an image is moved at most, either way, and that are left out at its border."""
ZOOMS = (0.94, 1.0, 1.06)
FINE_ZOOMS = (0.97, 1.03)
FINE_SHIFTS = (-0.5, 0.0, 0.5)
FIELD = 2.0
"""Standard deviation in pixels of the surroundings whose mean is taken away; of those whose contrast is divided by,
half as much again."""
FLAT = 0.01
"""Contrast, of an intensity of 0 to 1, below which there is nothing but noise."""
QUANTILE = 0.01
CLOSER = 0.6
"""A copy is near to a training image, and much nearer than to the next subject's: its nearness is below `CLOSER` times
what 99 % of real images of its modality and view have. Not 100 %: one patient who stands in the data under two names
must not lift the bound for everybody. How often others are called copies: docs/results/encoders.md."""
TOLERATED = 0.01
"""Share of images so near that chance explains it."""
NUM_HALVES = 3
SMALLEST = 1e-4
MIN_SUBJECTS = 4
BLOCK = 512

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def image_copies(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], seed: int
) -> list[CopyRow]:
    """Copies of training images, and repetitions among the synthetic ones."""
    near: list[Floats] = []
    ordinary: list[Floats] = []
    for name in sorted({one.group for one in synthetic} & {one.group for one in real}):
        sides = [[one for one in side if one.group == name] for side in (real, synthetic, control)]
        subject = subjects_of(sides[0])
        if len(np.unique(subject)) < MIN_SUBJECTS:
            continue
        images = [stacked(side, SIZE) for side in sides]
        usual = _ordinary(images[0], subject, generator(seed, "check", "image copies", name))
        if len(images[2]):
            usual = np.append(usual, nearness(images[2], images[0], subject))
        scale = max(float(np.quantile(usual, QUANTILE)), SMALLEST)
        near.append(nearness(images[1], images[0], subject) / scale)
        ordinary.append(usual / scale)
    digests = {one.digest for one in real}
    exact = sum(one.digest in digests for one in synthetic)
    found, reference = (np.concatenate([np.zeros(0), *parts]) for parts in (near, ordinary))
    num_near = int(np.sum(found < CLOSER))
    return [
        CopyRow(
            "copies.images_near",
            "Images that are a training image, however lit, moved, zoomed or mirrored",
            CLOSER,
            num_near,
            len(found),
            num_near / max(len(found), 1),
            float(np.mean(reference < CLOSER)) if len(reference) else 0.0,
            "nearness, over what 99 % of real images of the modality and view have",
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


def _ordinary(images: Pixels, subject: Ints, rng: np.random.Generator) -> Floats:
    """One half of the real subjects' images among the other half's, several times."""
    subjects, number = np.unique(subject, return_inverse=True)
    found = []
    for _ in range(NUM_HALVES):
        chosen = (rng.permutation(len(subjects)) < len(subjects) // 2)[number]
        found.append(nearness(images[chosen], images[~chosen], subject[~chosen]))
    return np.concatenate(found)


def nearness(images: Pixels, training: Pixels, subject: Ints) -> Floats:
    """How near each image is to a training image, in its best position, (images,): 0 is equal.

    The root of the distance (1 - correlation of local contrast) to the nearest times its share of the distance to the
    nearest of another subject. Source of that share: Lowe 2004, Int J Comput Vis 60:91, section 7.1.

    Args:
        images: (images, size, size), 0 to 1.
        training: (training images, size, size).
        subject: Whose the training images are, (training images,).
    """
    blocks = range(0, len(images), BLOCK)
    return np.concatenate([np.zeros(0), *(_nearness(images[at : at + BLOCK], training, subject) for at in blocks)])


def _nearness(images: Pixels, training: Pixels, subject: Ints) -> Floats:
    targets = _unit(_inside(local_contrast(training), 0, 0))
    best = np.full((len(images), len(training)), -1.0, np.float32)
    best_view = np.zeros(best.shape, np.int16)
    views = list(_coarse_views())
    made: tuple[bool, float] | None = None
    for number, (mirrored, zoom, down, right) in enumerate(views):
        if made != (mirrored, zoom):
            made = mirrored, zoom
            contrast = local_contrast(_moved(images, mirrored=mirrored, zoom=zoom))
        similarity = _unit(_inside(contrast, down, right)) @ targets.T
        is_better = similarity > best
        best[is_better], best_view[is_better] = similarity[is_better], number
    rows = np.arange(len(images))
    first = best.argmax(axis=1)
    others = np.where(subject[first][:, None] == subject[None], -1.0, best)
    second = others.argmax(axis=1)
    distances = []
    for place in (first, second):
        chosen = np.array([views[view] for view in best_view[rows, place]])
        fine = _refined(images, targets[place], chosen)
        distances.append(np.maximum(1 - np.maximum(fine, best[rows, place]), 0).astype(np.float64))
    ratio = np.where(others[rows, second] > -1, distances[0] / np.maximum(distances[1], 1e-9), 1.0)
    return np.asarray(np.sqrt(distances[0] * np.minimum(ratio, 1)))


def _coarse_views() -> Iterator[tuple[bool, float, int, int]]:
    """Mirrored or not, zoom, and pixels down and right."""
    for mirrored in (False, True):
        for zoom in ZOOMS:
            reach = MARGIN if zoom == 1 else 1
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    yield mirrored, zoom, down, right


def _refined(images: Pixels, targets: Pixels, views: NDArray[np.float64]) -> Pixels:
    """Correlation of each image with its target in the best position close to the one found, (images,).

    Parts of a pixel first, then the zoom.
    """
    mirrored = np.where((views[:, 0] > 0)[:, None, None], images[:, :, ::-1], images)
    best, place = np.full(len(images), -1.0, np.float32), views[:, 1:].copy()
    for down in FINE_SHIFTS:
        for right in FINE_SHIFTS:
            tried = views[:, 1:] + [0, down, right]
            similarity = _similarity(mirrored, targets, tried)
            place[similarity > best] = tried[similarity > best]
            np.maximum(best, similarity, out=best)
    for zoom in FINE_ZOOMS:
        np.maximum(best, _similarity(mirrored, targets, place * [zoom, 1, 1]), out=best)
    return best


def _similarity(images: Pixels, targets: Pixels, place: Floats) -> Pixels:
    """Correlation of each image, zoomed and moved, with its target, (images,)."""
    moved = _placed(images, place[:, 0], place[:, 1], place[:, 2])
    return np.asarray((_unit(_inside(local_contrast(moved), 0, 0)) * targets).sum(axis=1), np.float32)


def _moved(images: Pixels, *, mirrored: bool, zoom: float) -> Pixels:
    turned = images[:, :, ::-1] if mirrored else images
    if zoom == 1:
        return turned
    count = len(images)
    return _placed(turned, np.full(count, zoom), np.zeros(count), np.zeros(count))


def _placed(images: Pixels, zoom: Floats, down: Floats, right: Floats) -> Pixels:
    """Each image zoomed about its centre, then moved, (images, size, size); its border is drawn out."""
    rows, columns = (_weights(images.shape[-1], zoom, shift) for shift in (down, right))
    return np.asarray(rows @ images @ columns.transpose(0, 2, 1), np.float32)


def _weights(size: int, zoom: Floats, shift: Floats) -> Pixels:
    """What each new row takes of each old one, (images, size, size): linear interpolation."""
    middle = (size - 1) / 2
    place = (np.arange(size) - middle - shift[:, None]) / zoom[:, None] + middle
    distance = np.abs(np.clip(place, 0, size - 1)[:, :, None] - np.arange(size))
    return np.asarray(np.maximum(1 - distance, 0), np.float32)


def local_contrast(images: Pixels) -> Pixels:
    """Images less the mean of the surroundings, over their contrast, (images, size, size): light does not change it."""
    identity = np.eye(images.shape[-1])
    near, wide = (gaussian_filter1d(identity, width).astype(np.float32) for width in (FIELD, 1.5 * FIELD))
    rest = images - near @ images @ near.T
    return np.asarray(rest / (np.sqrt(np.maximum(wide @ (rest * rest) @ wide.T, 0)) + FLAT), np.float32)


def _inside(images: Pixels, down: int, right: int) -> Pixels:
    """What lies inside the margin after moving, (images, pixels)."""
    size = images.shape[-1] - 2 * MARGIN
    top, left = MARGIN - down, MARGIN - right
    return images[:, top : top + size, left : left + size].reshape(len(images), size * size)


def _unit(rows: Pixels) -> Pixels:
    """Rows of mean 0 and length 1."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), np.float32)
