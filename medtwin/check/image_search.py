"""The training image that an image is, or is a part of: by correlation of patches, in the best of many positions.

A model that has memorised seldom repeats a pixel: it repeats an image a little blurred, brighter, elsewhere, mirrored
or cropped. So images are compared by their local contrast, which light does not change. The middle of each image,
mirrored or not and at several sizes, is laid on every place of a training image where it could come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from medtwin.check.pictures import Pixels

SIZE = 32
REACH = 4
"""Pixels by which an image of full size is moved at most, either way: an eighth of its width."""
ZOOMS = (0.75, 0.81, 0.87, 0.94, 1.0, 1.06)
"""Size of an image within the training image: 0.75 of one that was cropped to three quarters of the side."""
FINE_ZOOMS = (0.97, 1.03)
FINE_SHIFTS = (-0.5, 0.0, 0.5)
BORDER = 2
"""Pixels at the edge of an image that are not compared: what surrounds them is not known."""
FIELD = 2.0
"""Standard deviation in pixels of the surroundings whose mean is taken away; of those whose contrast is divided by,
half as much again."""
FLAT = 0.01
"""Contrast, of an intensity of 0 to 1, below which there is nothing but noise."""
BLOCK = 512

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """The training images that some images resemble most.

    Attributes:
        distance: 1 - correlation of local contrast with the nearest training image, (images,); 0 is equal.
        next_distance: With the nearest of another subject than that one's; infinite where there is none.
        training: Which training image is the nearest.
    """

    distance: Floats
    next_distance: Floats
    training: Ints

    @property
    def nearness(self) -> Floats:
        """Root of the distance times its share of the next subject's, (images,): 0 is equal.

        Source of that share: Lowe 2004, Int J Comput Vis 60:91, section 7.1.
        """
        ratio = np.where(np.isfinite(self.next_distance), self.distance / np.maximum(self.next_distance, 1e-9), 1.0)
        return np.asarray(np.sqrt(self.distance * np.minimum(ratio, 1)))


def find_matches(images: Pixels, training: Pixels, subject: Ints) -> Matches:
    """What each image resembles most in its best position.

    Args:
        images: (images, size, size), 0 to 1, of `SIZE`.
        training: (training images, size, size), at least one.
        subject: Whose the training images are, (training images,).
    """
    parts = [_find(images[at : at + BLOCK], training, subject) for at in range(0, len(images), BLOCK)]
    fields = [(one.distance, one.next_distance, one.training) for one in parts]
    empty = np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
    return Matches(*(np.concatenate(column) for column in zip(empty, *fields, strict=True)))


@dataclass(frozen=True)
class _View:
    """A position: mirrored or not, size, and pixels down and right within the training image."""

    mirrored: bool
    zoom: float
    down: int
    right: int

    @property
    def side(self) -> int:
        """Rows and columns that are compared."""
        return min(SIZE - 2 * REACH, 2 * (int(SIZE * self.zoom) // 2 - BORDER))


@cache
def _views() -> tuple[_View, ...]:
    found = []
    for zoom in ZOOMS:
        reach = REACH if zoom == 1 else max(round(SIZE * abs(1 - zoom) / 2), 1)
        places = range(-reach, reach + 1)
        found += [
            _View(mirrored, zoom, down, right) for mirrored in (False, True) for down in places for right in places
        ]
    return tuple(found)


@cache
def _by_place() -> dict[tuple[int, int, int], tuple[int, ...]]:
    """The views that look at one patch of the training images, by its side and place."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for number, view in enumerate(_views()):
        found.setdefault((view.side, view.down, view.right), []).append(number)
    return {place: tuple(numbers) for place, numbers in found.items()}


def similarities(images: Pixels, training: Pixels) -> Pixels:
    """Correlation of each image with each training image in its best position of whole pixels, (images, training).

    Args:
        images: (images, size, size), 0 to 1, of `SIZE`.
        training: (training images, size, size).
    """
    parts = [_best_views(images[at : at + BLOCK], local_contrast(training))[0] for at in range(0, len(images), BLOCK)]
    return np.concatenate([np.zeros((0, len(training)), np.float32), *parts])


def _best_views(images: Pixels, targets: Pixels) -> tuple[Pixels, NDArray[np.int16]]:
    """The correlation of each image with each target in its best view, and which that is, (images, targets)."""
    best = np.full((len(images), len(targets)), -1.0, np.float32)
    best_view = np.zeros(best.shape, np.int16)
    middles: dict[tuple[bool, float], Pixels] = {}
    for (side, down, right), numbers in _by_place().items():
        patches = _patch(targets, side, down, right)
        size = np.sqrt(np.maximum(patches.var(axis=1) * side * side, 1e-12))
        for number in numbers:
            view = _views()[number]
            key = view.mirrored, view.zoom
            if key not in middles:
                turned = images[:, :, ::-1] if view.mirrored else images
                middles[key] = _unit(_patch(local_contrast(_zoomed(turned, view.zoom)), side, 0, 0))
            similarity = middles[key] @ patches.T  # of rows of mean 0: the mean of the patch does not count
            similarity /= size
            is_better = similarity > best
            np.copyto(best, similarity, where=is_better)
            np.copyto(best_view, np.int16(number), where=is_better)
    return best, best_view


def _find(images: Pixels, training: Pixels, subject: Ints) -> Matches:
    targets = local_contrast(training)
    best, best_view = _best_views(images, targets)
    rows = np.arange(len(images))
    first = best.argmax(axis=1)
    others = np.where(subject[first][:, None] == subject[None], -1.0, best)
    second = others.argmax(axis=1)
    distances = []
    for place in (first, second):
        fine = _refined(images, targets[place], best_view[rows, place])
        distances.append(np.maximum(1 - np.maximum(fine, best[rows, place]), 0).astype(np.float64))
    return Matches(distances[0], np.where(others[rows, second] > -1, distances[1], np.inf), first)


def _refined(images: Pixels, targets: Pixels, views: NDArray[np.int16]) -> Pixels:
    """Correlation of each image with its target in the best position close to the one found, (images,).

    Parts of a pixel first, then the size.
    """
    found = np.full(len(images), -1.0, np.float32)
    chosen = [_views()[view] for view in views]
    for mirrored, zoom in sorted({(one.mirrored, one.zoom) for one in chosen}):
        rows = np.array([i for i, one in enumerate(chosen) if (one.mirrored, one.zoom) == (mirrored, zoom)])
        turned = images[rows][:, :, ::-1] if mirrored else images[rows]
        side = chosen[rows[0]].side
        patches = [_patch(targets[i : i + 1], side, chosen[i].down, chosen[i].right) for i in rows]
        found[rows] = _best_nearby(turned, _unit(np.concatenate(patches)), side, zoom)
    return found


def _best_nearby(images: Pixels, goal: Pixels, side: int, zoom: float) -> Pixels:
    best, place = np.full(len(images), -1.0, np.float32), np.zeros((len(images), 2))
    ones = np.ones(len(images))
    for shift in np.stack(np.meshgrid(FINE_SHIFTS, FINE_SHIFTS, indexing="ij"), -1).reshape(-1, 2):
        similarity = _correlation(images, goal, side, zoom * ones, ones[:, None] * shift)
        place[similarity > best] = shift
        np.maximum(best, similarity, out=best)
    for factor in FINE_ZOOMS:
        np.maximum(best, _correlation(images, goal, side, zoom * factor * ones, place), out=best)
    return best


def _correlation(images: Pixels, goal: Pixels, side: int, zoom: Floats, shift: Floats) -> Pixels:
    moved = _placed(images, zoom, shift[:, 0], shift[:, 1])
    return np.asarray((_unit(_patch(local_contrast(moved), side, 0, 0)) * goal).sum(axis=1), np.float32)


def _zoomed(images: Pixels, zoom: float) -> Pixels:
    if zoom == 1:
        return images
    count = len(images)
    return _placed(images, np.full(count, zoom), np.zeros(count), np.zeros(count))


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


def _patch(images: Pixels, side: int, down: int, right: int) -> Pixels:
    """A square of each image, so far from the middle, (images, pixels)."""
    top, left = (images.shape[-1] - side) // 2 + down, (images.shape[-1] - side) // 2 + right
    return images[:, top : top + side, left : left + side].reshape(len(images), side * side)


def _unit(rows: Pixels) -> Pixels:
    """Rows of mean 0 and length 1."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), np.float32)


def halves(images: Pixels, subject: Ints, rng: np.random.Generator, most: int = 300) -> Iterator[Matches]:
    """Some of one half of the subjects' images among the other half's, endlessly."""
    subjects, number = np.unique(subject, return_inverse=True)
    while True:
        chosen = (rng.permutation(len(subjects)) < len(subjects) // 2)[number]
        looked = rng.permutation(np.flatnonzero(chosen))[:most]
        yield find_matches(images[looked], images[~chosen], subject[~chosen])
