"""Structural similarity of pairs of images at several scales: how alike the images of different subjects are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtwin.check.pictures import Pixels

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first. Source: Wang, Simoncelli & Bovik 2003, section 3.2."""
FILTER_SIZE = 11
FILTER_SIGMA = 1.5
K1, K2 = 0.01, 0.03
"""Source of these four: Wang, Bovik, Sheikh & Simoncelli 2004, IEEE Trans Image Process 13:600."""
BLOCK = 128

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def num_scales(size: int) -> int:
    """How many of the five scales fit images of this size; 0: not even one.

    >>> num_scales(64), num_scales(128), num_scales(256), num_scales(10)
    (3, 4, 5, 0)
    """
    return sum(size > (FILTER_SIZE - 1) * 2**scale for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim(images: Pixels, first: Ints, second: Ints) -> Floats:
    """Multi-scale structural similarity of pairs of images, (pairs,): 1 where they are equal, 0 where unlike.

    Where images are too small for five scales the coarsest are left out, and the exponents of the others are scaled to
    sum to 1. A negative similarity of a scale counts as 0. The filter stays inside the image; at the coarsest scale,
    where that would leave little of it, the image is reflected at its borders.

    Args:
        images: (images, size, size), 0 to 1.
        first: Number of an image, (pairs,).
        second: Of the other, (pairs,).

    Raises:
        ValueError: If the images are smaller than the filter.

    Source: Wang, Simoncelli & Bovik 2003, 37th Asilomar Conference on Signals, Systems and Computers, 1398.
    """
    scales = num_scales(images.shape[-1])
    if not scales:
        raise ValueError(f"images must be at least {FILTER_SIZE} pixels wide, got {images.shape[-1]}")
    exponents = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    product = np.ones(len(first))
    for scale, exponent in enumerate(exponents):
        if scale:
            images = _halved(images)
        product *= _similarity(images, first, second, is_coarsest=scale == scales - 1) ** exponent
    return product


def _halved(images: Pixels) -> Pixels:
    size = images.shape[-1] // 2
    fields = images[:, : 2 * size, : 2 * size].reshape(len(images), size, 2, size, 2)
    return np.asarray(fields.mean(axis=(2, 4)), np.float32)


def _similarity(images: Pixels, first: Ints, second: Ints, *, is_coarsest: bool) -> Floats:
    """Mean over an image of contrast and structure, at the coarsest scale also of luminance, (pairs,), at least 0."""
    rows = _filter(images.shape[-1], reflects=is_coarsest)
    mean = rows @ images @ rows.T
    variance = np.maximum(rows @ (images * images) @ rows.T - mean**2, 0)
    found = np.empty(len(first))
    for start in range(0, len(first), BLOCK):
        block = slice(start, start + BLOCK)
        a, b = first[block], second[block]
        covariance = rows @ (images[a] * images[b]) @ rows.T - mean[a] * mean[b]
        similarity = (2 * covariance + K2**2) / (variance[a] + variance[b] + K2**2)
        if is_coarsest:
            similarity *= (2 * mean[a] * mean[b] + K1**2) / (mean[a] ** 2 + mean[b] ** 2 + K1**2)
        found[block] = similarity.mean(axis=(1, 2), dtype=np.float64)
    return np.maximum(found, 0)


def _filter(size: int, *, reflects: bool) -> Pixels:
    """Rows of the Gaussian filter, where it lies inside the image, (size - 10, size), or everywhere, (size, size)."""
    reach = FILTER_SIZE // 2
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-(x**2) / (2 * FILTER_SIGMA**2))
    kernel /= kernel.sum()
    centres = np.arange(size) if reflects else np.arange(reach, size - reach)
    rows = np.zeros((len(centres), size), np.float32)
    for row, centre in zip(rows, centres, strict=True):
        place = np.abs(centre + x)
        np.add.at(row, np.where(place < size, place, 2 * (size - 1) - place), kernel)
    return rows
