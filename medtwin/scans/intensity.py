"""Pixel values to the scale of the network, -1 to 1, and back; the constants are stored with the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

HU_RANGE = (-1024.0, 3071.0)
"""What 12 bits hold of a CT in Hounsfield units; the map of a CT goes over it."""

HU_CENTER = 40.0
"""Soft tissue, about which the map of a CT is the steepest where it has a softening."""

PERCENTILES = (0.1, 99.9)
"""Of all training pixels of a projection or MR of one modality and bit depth: black and white of the network."""

BITS_WRITTEN = 12
"""The most that is written of what is no CT."""

_PROJECTIONS = frozenset({"CR", "DX"})
_PIXELS_PER_IMAGE = 1024
_Real = TypeVar("_Real", bound=np.floating[Any])


class Window(NamedTuple):
    """The modality values that become -1 and 1, and the bits they were stored in.

    Attributes:
        softening: None: what lies between is mapped linearly. A number of Hounsfield units: by the inverse hyperbolic
            sine of their distance from `HU_CENTER` over that number, linear within about it, logarithmic far beyond
            (Lupton, Gunn and Szalay, A Modified Magnitude System, 1999, gave the name).
    """

    low: float
    high: float
    bits: int
    softening: float | None = None

    def rise(self, values: NDArray[_Real]) -> NDArray[_Real]:
        """Modality values on the scale that is cut linearly between those of `low` and `high`."""
        return values if self.softening is None else np.arcsinh((values - HU_CENTER) / self.softening)

    def fall(self, risen: NDArray[_Real]) -> NDArray[_Real]:
        """The inverse of `rise`."""
        return risen if self.softening is None else HU_CENTER + self.softening * np.sinh(risen)

    @property
    def ends(self) -> tuple[float, float]:
        """What `rise` makes of `low` and `high`."""
        low, high = self.rise(np.array([self.low, self.high]))
        return float(low), float(high)


@dataclass(frozen=True)
class IntensityMap:
    """Increasing maps, one for each modality and bit depth of the training images: linear, or of a CT with a softening.

    Images of unlike bit depth come from unlike sources, so that each has its own black and white. Values outside the
    window are clipped to it: in training a thousandth on either side.

    Attributes:
        windows: By `<modality>/<bits>`.
        written: By modality, the window that most training images have: generated images are written with it.
    """

    windows: Mapping[str, Window]
    written: Mapping[str, str]

    @classmethod
    def fit(
        cls, images: Iterable[tuple[NDArray[np.float32], str, int]], *, hu_softening: float | None = None
    ) -> IntensityMap:
        """From training images: values, modality, bits stored.

        Args:
            images: The training images.
            hu_softening: Of the window of a CT.

        Raises:
            ValueError: If all images of a modality and bit depth are one constant, or the softening is not positive.
        """
        is_number = isinstance(hu_softening, int | float)
        if hu_softening is not None and not (is_number and 0 < hu_softening < np.inf):
            raise ValueError(f"hu_softening must be null or Hounsfield units above 0, got {hu_softening!r}")
        pixels: dict[str, list[NDArray[np.float32]]] = {}
        for values, modality, bits in images:
            flat = values.ravel()
            step = max(1, len(flat) // _PIXELS_PER_IMAGE)
            pixels.setdefault(f"{modality}/{bits}", []).append(flat[::step])
        windows = {name: _window(name, np.concatenate(parts), hu_softening) for name, parts in sorted(pixels.items())}
        counts = Counter({name: len(parts) for name, parts in sorted(pixels.items())})
        written: dict[str, str] = {}
        for name, _ in counts.most_common():
            written.setdefault(name.partition("/")[0], name)
        return cls(windows, written)

    def window(self, modality: str, bits: int) -> Window:
        """The window of a modality and bit depth; of an unseen depth, the modality's own, rescaled.

        Raises:
            KeyError: If no training image had the modality.
        """
        if (found := self.windows.get(f"{modality}/{bits}")) is not None:
            return found
        known = self.windows[self.written[modality]]
        factor = 1.0 if modality == "CT" else (2**bits - 1) / (2**known.bits - 1)
        return known._replace(low=known.low * factor, high=known.high * factor, bits=bits)

    def to_model(self, values: NDArray[np.float32], modality: str, bits: int) -> NDArray[np.float32]:
        """Modality values to -1 to 1."""
        window = self.window(modality, bits)
        low, high = window.ends
        values = window.rise(values)
        x: NDArray[np.float32] = np.clip((values - low) * np.float32(2 / (high - low)) - 1, -1, 1).astype(np.float32)
        return x

    def to_stored(self, x: NDArray[np.float32], modality: str) -> NDArray[np.int16] | NDArray[np.uint16]:
        """The scale of the network to what a DICOM writer takes.

        Hounsfield units (int16) for CT, else stored values of `bits_written` bits (uint16): those of the training
        images, or of a projection in more bits the same share of the full range. Rounded, and clipped to the window.

        Raises:
            KeyError: If no training image had the modality.
        """
        window = self.windows[self.written[modality]]
        low, high = window.ends
        values = window.fall(low + (np.clip(x.astype(np.float64), -1, 1) + 1) / 2 * (high - low))
        if modality == "CT":
            return np.rint(values).astype(np.int16)
        top = 2 ** self.bits_written(modality) - 1
        if modality in _PROJECTIONS or window.high > top:
            values = values * (top / (2**window.bits - 1))
        return np.rint(np.clip(values, 0, top)).astype(np.uint16)

    def bits_written(self, modality: str) -> int:
        """Bits of the stored values that `to_stored` gives: 12, and of a projection no more than it was learned from.

        Raises:
            KeyError: If no training image had the modality.
        """
        bits = self.windows[self.written[modality]].bits
        return min(bits, BITS_WRITTEN) if modality in _PROJECTIONS else BITS_WRITTEN

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "windows": {name: list(window) for name, window in self.windows.items()},
            "written": dict(self.written),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> IntensityMap:
        """The inverse of `to_json`."""
        return cls({name: Window(*window) for name, window in value["windows"].items()}, dict(value["written"]))


def _window(name: str, pixels: NDArray[np.float32], hu_softening: float | None) -> Window:
    modality, _, bits = name.partition("/")
    if modality == "CT":
        return Window(*HU_RANGE, int(bits), hu_softening)
    low, high = (float(p) for p in np.percentile(pixels, PERCENTILES))
    if not high > low:
        raise ValueError(f"the training images of {name} bits must not be one constant")
    return Window(low, high, int(bits))
