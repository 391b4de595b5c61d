"""Ways to break images, as `controls` breaks records: each breaks one thing and leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medtwin.check.pictures import Picture

BLUR = 1.5
"""Standard deviation of the blur in pixels."""
LIGHT = 0.55
"""What is left of the light."""
GRAIN = 0.05
"""Standard deviation of the noise, of an intensity of 0 to 1."""
MEMORY_LIGHT, MEMORY_BLUR = 0.9, 0.5
"""What is left of the light, and deviation of the blur in pixels, where images are remembered."""
STOLEN = 0.1
"""Share of images that are replaced by real ones."""

Pictures: TypeAlias = "Sequence[Picture]"
ImageBreak: TypeAlias = Callable[[Pictures, Pictures, np.random.Generator], list[Picture]]


def with_pixels(one: Picture, pixels: NDArray[np.floating]) -> Picture:
    """The same picture with other pixels."""
    small = np.asarray(pixels, np.float32)
    return replace(one, pixels=small, digest=small.tobytes())


def blurred(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Every image blurred."""
    return [with_pixels(one, gaussian_filter(one.pixels, BLUR)) for one in images]


def darkened(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Every image with little of its light left."""
    return [with_pixels(one, one.pixels * LIGHT) for one in images]


def grainy(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Every image with noise."""
    return [with_pixels(one, one.pixels + GRAIN * rng.standard_normal(one.pixels.shape)) for one in images]


def one_image(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """The first image, as many times as there are images."""
    return [replace(one, pixels=images[0].pixels, digest=images[0].digest) for one in images]


def stolen(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """A share of the images replaced by real ones."""
    number = round(STOLEN * len(images))
    source = rng.permutation(len(real))[:number]
    copies = [
        replace(one, pixels=real[i].pixels, digest=real[i].digest)
        for one, i in zip(images[:number], source, strict=False)
    ]
    return [*copies, *images[len(copies) :]]


def remembered(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Every image a real one: mirrored, moved, a little darker and blurred."""
    source = rng.permutation(len(real))[np.arange(len(images)) % len(real)]
    return [
        with_pixels(one, MEMORY_LIGHT * gaussian_filter(np.roll(real[i].pixels[:, ::-1], 1, axis=1), MEMORY_BLUR))
        for one, i in zip(images, source, strict=True)
    ]


def dealt_labels(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Findings dealt anew over the images."""
    order = rng.permutation(len(images))
    return [replace(one, labels=images[i].labels) for one, i in zip(images, order, strict=True)]


def one_view(images: Pictures, real: Pictures, rng: np.random.Generator) -> list[Picture]:
    """Only the images of the commonest modality and view."""
    groups, count = np.unique([one.group for one in images], return_counts=True)
    return [one for one in images if one.group == groups[count.argmax()]]


IMAGE_BREAKS: Mapping[str, ImageBreak] = {
    "blurred images": blurred,
    "darkened images": darkened,
    "grainy images": grainy,
    "one image": one_image,
    "copied images": stolen,
    "remembered images": remembered,
    "random labels": dealt_labels,
    "one view": one_view,
}
"""Every fault by name; each takes the images to break, the real ones, and a generator."""
