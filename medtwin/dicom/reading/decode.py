"""Pixel cells of a file that pydicom must decode: compressed or deflated, in colour, or behind a Modality LUT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medtwin.dicom.values import quiet

Cells = NDArray[np.integer[Any]]

Conversion = Literal["grey", "modality-lut"]
"""What is done to the cells after decoding: colour to grey, or the look-up in the file's Modality LUT."""

DECODE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    MemoryError,
)
"""What pydicom and the codecs raise on pixel data that cannot be decoded."""

COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
"""Values of PhotometricInterpretation that can be converted to grey."""

_TABLE_BITS = range(8, 17)


def decode_file(path: Path, conversion: Conversion | None = None) -> Cells:
    """The cells of a single-frame file, (rows, columns).

    Raises:
        Exception: One of `DECODE_ERRORS` where the pixels cannot be decoded.
    """
    with quiet():
        dataset = pydicom.dcmread(path, force=True)
        if conversion == "grey":
            return grey_cells(dataset)
        cells: Cells = dataset.pixel_array
        if conversion == "modality-lut":
            return ModalityLut.of(dataset).look_up(_used_bits(cells, int(dataset.BitsStored)))
    return cells


def decode_frames(path: Path, syntax: str, frames: Sequence[int]) -> Iterator[Cells]:
    """The cells of some frames of a multi-frame file, (rows, columns) each, in the order of `frames`.

    Raises:
        Exception: One of `DECODE_ERRORS` where the pixels cannot be decoded.
    """
    with quiet():
        # pydicom finds the frames of a compressed file without reading the others, but inflates a deflated one whole.
        source = pydicom.dcmread(path, force=True) if syntax == DeflatedExplicitVRLittleEndian else path
        if len(frames) == 1:
            yield pixel_array(source, index=frames[0], raw=True)
            return
        yield from iter_pixels(source, indices=frames, raw=True)


def grey_cells(dataset: Dataset) -> Cells:
    """Luminance of a colour image, 0.299 R + 0.587 G + 0.114 B, rounded half up; where R = G = B that is their value.

    Source: PS3.3-2023 C.7.6.3.1.2, YBR_FULL: ITU-R BT.601 luma of full range.
    """
    is_palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    colour = apply_color_lut(dataset.pixel_array, dataset) if is_palette else pixel_array(dataset)
    red, green, blue = (colour[..., index].astype(np.uint32) for index in range(3))
    grey: Cells = ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(colour.dtype)
    return grey


class ModalityLut:
    """Stored value to modality value by a table (PS3.3-2023 C.11.1.1).

    Attributes:
        bits: Bits of an output value, 8 to 16; outputs are unsigned.
    """

    def __init__(self, first: int, outputs: NDArray[np.uint16], bits: int) -> None:
        self._first, self._outputs, self.bits = first, outputs, bits

    @classmethod
    def of(cls, dataset: Dataset) -> ModalityLut:
        """The table of an image.

        Raises:
            ValueError: If the file gives several tables, or one that does not agree with its descriptor.
        """
        if len(dataset.ModalityLUTSequence) != 1:
            raise ValueError("ModalityLUTSequence must have one item")
        item = dataset.ModalityLUTSequence[0]
        entries, first, bits = (int(value) for value in item.LUTDescriptor)
        # US by pydicom's choice where the file does not say; the sign of the first value is that of the pixels.
        is_signed = int(dataset.PixelRepresentation) == 1
        first = (first + 32768) % 65536 - 32768 if is_signed else first % 65536
        outputs = _table(item.LUTData, dataset.original_encoding[1] is not False)
        entries = entries or 65536
        if bits not in _TABLE_BITS or outputs.size != entries or int(outputs.max()) >> bits:
            raise ValueError("LUTData must have the entries and bits that LUTDescriptor says")
        return cls(first, outputs, bits)

    def look_up(self, stored: Cells) -> Cells:
        """The outputs for stored values; below the first and above the last of the table they are its ends'."""
        index = np.clip(stored.astype(np.int32) - self._first, 0, len(self._outputs) - 1)
        outputs: Cells = self._outputs[index]
        return outputs.astype(np.uint8) if self.bits == 8 else outputs


def _table(data: bytes | Sequence[int] | int, is_little_endian: bool) -> NDArray[np.uint16]:
    if isinstance(data, bytes):
        return np.frombuffer(data, "<u2" if is_little_endian else ">u2").astype(np.uint16)
    values = list(data) if isinstance(data, MultiValue | list | tuple) else [data]
    return (np.array(values, np.int64) & 0xFFFF).astype(np.uint16)


def _used_bits(cells: Cells, bits_stored: int) -> Cells:
    shift = cells.dtype.itemsize * 8 - bits_stored
    return cells if shift == 0 else (cells << shift) >> shift
