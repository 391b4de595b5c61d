"""The element that holds the pixels: is it whole, how is it stored, can it be decoded. Native pixels are not read."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import pydicom.uid as uid
from pydicom.pixels.decoders.base import get_decoder

from medtwin.core.errors import SourceError
from medtwin.dicom.reading.decode import DECODE_ERRORS, Conversion, decode_file
from medtwin.dicom.reading.faults import UnfitError
from medtwin.dicom.reading.quick import ends_whole
from medtwin.dicom.reading.series import Instance, PixelFormat, iter_raw
from medtwin.dicom.values import Values

_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixels stand in a file, and how they are encoded.

    Attributes:
        tag, length, offset: Of the element; the offset is that of its value.
        syntax: Transfer syntax UID; empty where the file has none.
        is_big_endian: Byte order of the dataset. is_implicit: Whether its elements have no VR.
    """

    tag: int
    length: int
    offset: int
    syntax: str
    is_big_endian: bool
    is_implicit: bool


def check_has_pixels(element: PixelElement | None) -> PixelElement:
    """The element of integer pixels.

    Raises:
        UnfitError: If there is none.
    """
    if element is None:
        raise UnfitError("no-pixel-data", "the image has no PixelData: export it again with pixels")
    if element.tag != _PIXEL_DATA:
        raise UnfitError("float-pixels", "floating-point pixel data is not read: export integer pixel data")
    return element


def pixel_format(stream: BinaryIO, element: PixelElement, values: Values, frames: int, samples: int) -> PixelFormat:
    """How the pixels are stored, with the offset of the first frame where they can be read as they stand.

    Raises:
        UnfitError: If the attributes contradict each other or the element, or the element is cut.
    """
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    numbers = [values.integer(keyword) for keyword in keywords]
    rows, columns, allocated, stored, representation = (0 if number is None else number for number in numbers)
    is_sound = allocated in (8, 16) and 0 < stored <= allocated and 0 < rows <= 0xFFFF and 0 < columns <= 0xFFFF
    if not is_sound or representation not in (0, 1) or values.integer("HighBit") != stored - 1:
        raise UnfitError("pixel-format", "BitsAllocated must be 8 or 16, and HighBit BitsStored - 1")
    pixel = PixelFormat(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        is_signed=representation == 1,
        is_big_endian=element.is_big_endian,
        offset=element.offset,
    )
    if element.syntax == uid.DeflatedExplicitVRLittleEndian:
        return replace(pixel, offset=None)
    if element.length == _UNDEFINED:
        _check_syntax(uid.UID(element.syntax))
        _check_fragments(stream, element.offset)
        return replace(pixel, offset=None)
    _check_native(stream, pixel.num_bytes * frames * samples, element, values)
    return pixel


def has_loose_end(stream: BinaryIO, element: PixelElement) -> bool:
    """Whether native pixels are followed by something that is neither elements nor the end of the file."""
    if element.length == _UNDEFINED or element.syntax == uid.DeflatedExplicitVRLittleEndian or element.is_big_endian:
        return False
    end, size = element.offset + element.length, os.fstat(stream.fileno()).st_size
    return end != size and not ends_whole(stream, end, size, element.is_implicit)


def converted_format(instance: Instance, conversion: Conversion, bits: int | None = None) -> PixelFormat:
    """The format of the cells after a conversion, unsigned.

    Args:
        instance: With the format of the file.
        conversion: What is done to its cells.
        bits: Those that the outputs of the table have; None: all of a grey value.

    Raises:
        UnfitError: If the pixels cannot be decoded and converted.
    """
    try:
        cells = decode_file(instance.path, conversion)
    except DECODE_ERRORS as error:
        what = "colours cannot be converted to grey" if conversion == "grey" else "Modality LUT cannot be applied"
        raise UnfitError("undecodable", f"the {what} ({type(error).__name__})") from error
    allocated = cells.dtype.itemsize * 8
    pixel = replace(instance.pixel, bits_allocated=allocated, bits_stored=bits or allocated, is_signed=False)
    return replace(pixel, offset=None, is_big_endian=False)


def check_decodes(instances: Sequence[Instance]) -> None:
    """Decodes every image once, one at a time.

    Raises:
        UnfitError: If one cannot be decoded.
    """
    try:
        for _ in iter_raw(instances):
            pass
    except SourceError as error:
        raise UnfitError("undecodable", "the pixel data cannot be decoded to Rows x Columns") from error


def _check_native(stream: BinaryIO, num_bytes: int, element: PixelElement, values: Values) -> None:
    present = os.fstat(stream.fileno()).st_size - element.offset
    if values.text("PhotometricInterpretation") == "YBR_FULL_422":
        num_bytes = num_bytes // 3 * 2  # two pixels share their colour (PS3.3 C.7.6.3.1.2)
    if present < element.length and present < num_bytes + num_bytes % 2:
        raise UnfitError("truncated", f"the file ends after {present} of {num_bytes} bytes of pixels")
    if element.length not in (num_bytes, num_bytes + num_bytes % 2):
        reason = f"PixelData has {element.length} bytes, where the size, frames and bits make {num_bytes}"
        raise UnfitError("pixel-length", reason)


def _check_syntax(syntax: uid.UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnfitError("transfer-syntax", "the file states no transfer syntax for images that is known") from error
    if not decoder.is_available:
        raise UnfitError("transfer-syntax", f"no decoder for {syntax.name}: pip install 'medtwin[codecs]'")


def _check_fragments(stream: BinaryIO, offset: int) -> None:
    """Walks the items of encapsulated pixel data (PS3.5 A.4) up to their delimiter."""
    size = os.fstat(stream.fileno()).st_size
    while offset + 8 <= size:
        stream.seek(offset)
        group, element, length = struct.unpack("<HHL", stream.read(8))
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise UnfitError("pixel-length", "the compressed pixel data is not a sequence of fragments")
        offset += 8 + length
    raise UnfitError("truncated", "the file ends within its compressed pixel data: transfer it again")
