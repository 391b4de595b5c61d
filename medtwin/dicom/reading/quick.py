"""A fast look at a header without fault: what pydicom would say of the attributes that are read, or nothing at all.

pydicom converts and checks each value by its general rules, which costs most of the time of listing a large folder.
Here a file is walked once and only wanted values are taken, and only if each of them is exactly as PS3.5 has it. With
the least doubt (another byte order, deflate, an unknown VR, a value in the wrong form, text beyond ASCII, elements out
of order, functional groups) the answer is None, and pydicom reads the file; so there are never two opinions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import pydicom.uid as uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from medtwin.dicom.values import Values

_FIRST_BYTES = 1 << 14
_MOST_BYTES = 1 << 22
"""A header that is longer is left to pydicom."""

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""FloatPixelData, DoubleFloatPixelData, PixelData."""

_DELIMITERS = 0xFFFE
_BEFORE_DATASET = 0x0007FFFF
"""An image begins with group 8: groups 0, 2 and 4 are of commands, of file meta information and of DICOMDIR."""

_MAX_DEPTH = 16
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_ALL_VRS = _SHORT_VRS | _LONG_VRS
_EXPLICIT = struct.Struct("<HH2sH")
_IMPLICIT = struct.Struct("<HHL")
_LENGTH = struct.Struct("<L")

# The VRs of PS3.5-2023, Table 6.2-1, in their plainest form; trailing spaces are taken off before.
_FORMS = {
    b"CS": re.compile(rb"[A-Z0-9_][A-Z0-9_ ]{0,15}(\\[A-Z0-9_][A-Z0-9_ ]{0,15})*"),
    b"UI": re.compile(rb"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))*"),
    b"LO": re.compile(rb"[!-\[\]-~]([ -\[\]-~]{0,63})"),
    b"SH": re.compile(rb"[!-\[\]-~]([ -\[\]-~]{0,15})"),
    b"AS": re.compile(rb"\d{3}[DWMY]"),
    b"DA": re.compile(rb"\d{8}"),
    b"TM": re.compile(rb"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    b"DS": re.compile(rb"[+-]?\d{1,8}(\.\d{0,12})?([eE][+-]?\d\d?)?(\\[+-]?\d{1,8}(\.\d{0,12})?([eE][+-]?\d\d?)?)*"),
    b"IS": re.compile(rb"[+-]?\d{1,9}(\\[+-]?\d{1,9})*"),
}
_DS_LENGTH = 16
_PLAIN_CHARSETS = frozenset({None, "ISO_IR 6", "ISO_IR 100", "ISO_IR 192"})
_WANTED = {
    b"CS": "SpecificCharacterSet Modality PatientSex BodyPartExamined ViewPosition PhotometricInterpretation "
    "BurnedInAnnotation",
    b"UI": "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID",
    b"LO": "PatientID Manufacturer RescaleType",
    b"SH": "TimezoneOffsetFromUTC",
    b"AS": "PatientAge",
    b"DA": "PatientBirthDate StudyDate",
    b"TM": "StudyTime",
    b"DS": "ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing "
    "EstimatedRadiographicMagnificationFactor RescaleSlope RescaleIntercept SliceThickness KVP",
    b"IS": "InstanceNumber NumberOfFrames PixelAspectRatio",
    b"US": "SamplesPerPixel Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation",
    b"SQ": "ModalityLUTSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence",
}
_BY_TAG = {
    int(tag_for_keyword(keyword) or 0): (keyword, vr)
    for vr, keywords in _WANTED.items()
    for keyword in keywords.split()
}
_TRANSFER_SYNTAX_ELEMENT = 0x0010
_META = {0: b"UL", 1: b"OB", 2: b"UI", 3: b"UI", 0x10: b"UI", 0x12: b"UI", 0x13: b"SH", 0x16: b"AE"}
"""Elements of group 2 that are usual, with their VR (PS3.10-2023, Table 7.1-1)."""

_SYNTAXES = frozenset(map(str, uid.AllTransferSyntaxes)) - {uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian}


class _DoubtError(Exception):
    """The file is not as plain as it must be here."""


Plain = tuple[Any, ...]
"""The values of an attribute: strings, or whole numbers."""

_EMPTY = Dataset()


class PlainValues(Values):
    """The values of a header without fault, by keyword; none can be malformed."""

    def __init__(self, plain: dict[str, Plain]) -> None:
        super().__init__(_EMPTY)
        self._plain = plain

    def has(self, keyword: str) -> bool:
        """Whether an attribute is present with a value."""
        return keyword in self._plain

    def text(self, keyword: str) -> str | None:
        """A text without outer spaces; None where it is absent."""
        values = self._plain.get(keyword)
        if values is None:
            return None
        return str(values[0]) if len(values) == 1 else "\\".join([str(value).strip() for value in values])

    def integer(self, keyword: str) -> int | None:
        """One whole number."""
        values = self._plain.get(keyword)
        return values[0] if values is not None and type(values[0]) is int else super().integer(keyword)

    def missing(self, keywords: tuple[str, ...]) -> list[str]:
        """Those of some attributes that are absent."""
        return [keyword for keyword in keywords if keyword not in self._plain]

    def numbers(self, keyword: str, count: int = 1) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers; None (and counted, unless absent) otherwise."""
        return super().numbers(keyword, count) if keyword in self._plain else None

    def key(self, keywords: tuple[str, ...]) -> tuple[Plain | None, ...]:
        """What distinguishes two headers as to some attributes."""
        return tuple([self._plain.get(keyword) for keyword in keywords])

    def _values(self, keyword: str) -> list[Any]:
        return list(self._plain.get(keyword, ()))


@dataclass(frozen=True, slots=True)
class QuickHeader:
    """A header that was read fast.

    Attributes:
        values: The wanted values. syntax: Transfer syntax UID.
        pixel_tag, pixel_length, pixel_offset: The element of the pixels: where its value begins.
    """

    values: PlainValues
    syntax: str
    pixel_tag: int
    pixel_length: int
    pixel_offset: int


def read_quickly(stream: BinaryIO, size: int) -> QuickHeader | None:
    """The wanted values of a plain file up to its pixels; None where pydicom must read it.

    Args:
        stream: At its beginning.
        size: Bytes of the file.
    """
    for most in (_FIRST_BYTES, _MOST_BYTES):
        stream.seek(0)
        data = stream.read(most)
        try:
            return _read(data, size)
        except (struct.error, IndexError):
            if len(data) < most:
                return None
        except (_DoubtError, ValueError):
            return None
    return None


def ends_whole(stream: BinaryIO, offset: int, size: int, is_implicit: bool) -> bool:
    """Whether elements follow each other from an offset up to the end of the file, without a gap.

    Args:
        stream: The file, little endian.
        offset: Where an element or the end should be.
        size: Bytes of the file.
        is_implicit: Whether its elements have no VR.
    """
    stream.seek(offset)
    data = stream.read(_MOST_BYTES)
    try:
        for _, _, length, start in _elements(data, 0, is_implicit):
            if length == _UNDEFINED or start + length > size - offset:
                return False
    except (_DoubtError, struct.error, IndexError):
        return False
    return offset + len(data) == size


def _read(data: bytes, size: int) -> QuickHeader:
    if data[128:132] != b"DICM":
        raise _DoubtError
    syntax, start = _read_meta(data)
    if syntax not in _SYNTAXES:
        raise _DoubtError
    plain: dict[str, Plain] = {}
    tag, length, offset = _take(data, start, size, plain, syntax == uid.ImplicitVRLittleEndian)
    _check_plain(plain)
    return QuickHeader(PlainValues(plain), syntax, tag, length, offset)


def _take(data: bytes, offset: int, size: int, plain: dict[str, Plain], is_implicit: bool) -> tuple[int, int, int]:
    """Tag, length and offset of the pixels' value; the wanted values before it go to `plain`.

    As `_elements`, without the cost of a generator: this loop is most of the time of listing a folder.
    """
    last, end = _BEFORE_DATASET, len(data)
    unpack, wanted_of, is_short = _EXPLICIT.unpack_from, _BY_TAG.get, _SHORT_VRS.__contains__
    while offset < end:
        if is_implicit:
            tag, vr, length, start = _element(data, offset, is_implicit)
        else:
            group, number, vr, length = unpack(data, offset)
            tag, start = group << 16 | number, offset + 8
            if not is_short(vr):
                tag, vr, length, start = _element(data, offset, is_implicit)
        if tag <= last or tag >> 16 == _DELIMITERS:
            raise _DoubtError
        last = tag
        wanted = wanted_of(tag)
        if wanted is not None:
            if length:
                plain[wanted[0]] = _wanted_value(data, (start, length, size), vr, wanted[1])
        elif tag in PIXEL_TAGS:
            return tag, length, start
        if length == _UNDEFINED:
            offset = _skip_sequence(data, start, is_implicit, 0)
            continue
        offset = start + length
        if offset > size:
            raise _DoubtError
    raise IndexError if len(data) < size else _DoubtError


def _wanted_value(data: bytes, where: tuple[int, int, int], vr: bytes, wanted_vr: bytes) -> Plain:
    start, length, size = where
    if length == _UNDEFINED or start + length > size or vr not in (wanted_vr, b""):
        raise _DoubtError
    if start + length > len(data):
        raise IndexError
    return _plain_value(data[start : start + length], wanted_vr)


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax, and where the dataset begins."""
    offset, syntax, last = 132, "", -1
    while True:
        group, element, vr, length = _EXPLICIT.unpack_from(data, offset)
        if group != 2:
            break
        if element <= last or _META.get(element) != vr:
            raise _DoubtError
        last, start = element, offset + 8
        if vr in _LONG_VRS:
            (length,) = _LENGTH.unpack_from(data, start)
            start += 4
        if vr == b"UI":
            (text,) = _plain_value(data[start : start + length], vr)
            syntax = text if element == _TRANSFER_SYNTAX_ELEMENT else syntax
        offset = start + length
    return syntax, offset


def _elements(data: bytes, offset: int, is_implicit: bool) -> Iterator[tuple[int, bytes, int, int]]:
    """Tag, VR (empty where implicit), length and offset of the value of each element, up to and with the pixels."""
    last = _BEFORE_DATASET
    end = len(data)
    unpack, short = _EXPLICIT.unpack_from, _SHORT_VRS
    while offset < end:
        if is_implicit:
            tag, vr, length, start = _element(data, offset, is_implicit)
        else:
            group, number, vr, length = unpack(data, offset)
            tag, start = group << 16 | number, offset + 8
            if vr not in short:
                tag, vr, length, start = _element(data, offset, is_implicit)
        if tag <= last or tag >> 16 == _DELIMITERS:
            raise _DoubtError
        last = tag
        yield tag, vr, length, start
        offset = _skip_sequence(data, start, is_implicit, 0) if length == _UNDEFINED else start + length
    if offset > end:
        raise IndexError


def _element(data: bytes, offset: int, is_implicit: bool) -> tuple[int, bytes, int, int]:
    if is_implicit:
        group, element, length = _IMPLICIT.unpack_from(data, offset)
        if data[offset + 4 : offset + 6] in _ALL_VRS:
            raise _DoubtError  # it looks explicit, against what the file says
        return group << 16 | element, b"", length, offset + 8
    group, element, vr, length = _EXPLICIT.unpack_from(data, offset)
    tag = group << 16 | element
    if group == _DELIMITERS:
        return tag, b"", vr[0] | vr[1] << 8 | length << 16, offset + 8
    if vr in _SHORT_VRS:
        return tag, vr, length, offset + 8
    if vr not in _LONG_VRS:
        raise _DoubtError
    (length,) = _LENGTH.unpack_from(data, offset + 8)
    if length == _UNDEFINED and vr != b"SQ" and tag not in PIXEL_TAGS:
        raise _DoubtError  # UN of undefined length is implicit inside (PS3.5 6.2.2)
    return tag, vr, length, offset + 12


def _skip_sequence(data: bytes, offset: int, is_implicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends."""
    if depth > _MAX_DEPTH:
        raise _DoubtError
    while True:
        tag, _, length, offset = _element(data, offset, is_implicit)
        if tag == _SEQUENCE_END and length == 0:
            return offset
        if tag != _ITEM:
            raise _DoubtError
        offset = _skip_item(data, offset, is_implicit, depth) if length == _UNDEFINED else offset + length


def _skip_item(data: bytes, offset: int, is_implicit: bool, depth: int) -> int:
    while True:
        tag, _, length, offset = _element(data, offset, is_implicit)
        if tag == _ITEM_END and length == 0:
            return offset
        offset = _skip_sequence(data, offset, is_implicit, depth + 1) if length == _UNDEFINED else offset + length


@lru_cache(maxsize=4096)
def _plain_value(raw: bytes, vr: bytes) -> Plain:
    """The values of an element; kept, as most elements of a series are the same."""
    if vr == b"US":
        if len(raw) != 2:
            raise _DoubtError
        return (raw[0] | raw[1] << 8,)
    form = _FORMS.get(vr)
    if form is None:
        raise _DoubtError
    text = raw.removesuffix(b"\0") if vr == b"UI" else raw.rstrip(b" ")
    if not form.fullmatch(text):
        raise _DoubtError
    values = tuple(text.decode("ascii").split("\\"))
    if vr == b"DS" and any(len(value) > _DS_LENGTH for value in values):
        raise _DoubtError
    return values


def _check_plain(plain: dict[str, Plain]) -> None:
    """Doubts a header without class, in a code that is not a superset of ASCII, or of more than one frame."""
    if "SOPClassUID" not in plain or plain.get("NumberOfFrames", ("1",)) != ("1",):
        raise _DoubtError
    charsets = plain.get("SpecificCharacterSet", (None,))
    if len(charsets) != 1 or charsets[0] not in _PLAIN_CHARSETS:
        raise _DoubtError
