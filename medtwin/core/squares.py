"""Images of any shape as squares of one size, never stretched: resampled to one spacing, then padded or cropped.

Every room that looks at images as squares does it here, so that real and synthetic ones are seen in one geometry.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Fit = Literal["pad", "crop"]
FITS: tuple[Fit, ...] = ("pad", "crop")
Floats = NDArray[np.float32]


class Square(NamedTuple):
    """A square image.

    Attributes:
        values: (size, size). step: Length of a side of its pixels, in the unit of the lengths that were given.
    """

    values: Floats
    step: float


def fit_square(image: Floats, pixel: tuple[float, float], size: int, fit: Fit = "pad") -> Square:
    """The image on a square grid whose pixels are square, its middle in the middle.

    `pad`: the longer side fills the grid, what lies beyond the shorter one is the image's darkest value. `crop`: the
    shorter side fills it, the ends of the longer one are cut off. Each new pixel is the mean of the area that it covers
    where the grid is coarser than the image, which does not alias, and is interpolated linearly where it is finer.
    The two axes have the same step to the last digit: no side is rounded to whole pixels.

    Args:
        image: (rows, columns), finite.
        pixel: Length of a pixel down and across; their ratio counts, and the unit is that of the step.
        size: Rows and columns of the grid.
        fit: pad or crop.

    Raises:
        ValueError: If the image is empty or not two-dimensional, or a length, the size or the fit is out of its range.

    >>> fit_square(np.ones((2, 4), np.float32), (1.0, 1.0), 2)
    Square(values=array([[1., 1.],
           [1., 1.]], dtype=float32), step=2.0)
    """
    if image.ndim != 2 or not image.size:
        raise ValueError(f"image must be (rows, columns), 1 or more of each, got {image.shape}")
    if not all(np.isfinite(length) and length > 0 for length in pixel):
        raise ValueError(f"pixel must be two positive lengths, got {pixel!r}")
    if size < 1 or fit not in FITS:
        raise ValueError(f"size must be 1 or more and fit {' or '.join(FITS)}, got {size!r} and {fit!r}")
    extent = [number * length for number, length in zip(image.shape, pixel, strict=True)]
    step = (max(extent) if fit == "pad" else min(extent)) / size
    dark = image.min()
    both = zip(image.shape, pixel, strict=True)
    rows, columns = (axis_weights(number, length / step, size) for number, length in both)
    values = rows @ (image.astype(np.float64) - dark) @ columns.T + dark
    return Square(np.clip(values, dark, image.max()).astype(np.float32), step)


def axis_weights(number: int, length: float, size: int) -> NDArray[np.float64]:
    """What each pixel of the grid takes of each pixel of an axis, (size, number); the middle lies in the middle.

    The mean of what it covers where the grid is coarser, linear between the nearest two where it is finer. A pixel of
    the grid that the axis does not reach takes nothing.

    Args:
        number: Pixels of the image.
        length: Of one, in pixels of the grid.
        size: Pixels of the grid.

    >>> axis_weights(4, 0.5, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    start = (size - number * length) / 2
    if length > 1:  # finer than the image: between the two nearest, the border repeated within half a pixel of it
        place = (np.arange(size) + 0.5 - start) / length - 0.5
        inside = (place > -0.5) & (place < number - 0.5)
        distance = np.abs(np.clip(place, 0, number - 1)[:, None] - np.arange(number))
        return np.asarray(np.maximum(1 - distance, 0) * inside[:, None])
    edges = start + np.arange(number + 1) * length
    low, high = np.arange(size)[:, None], np.arange(1, size + 1)[:, None]
    return np.asarray(np.maximum(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0))
