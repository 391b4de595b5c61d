"""One DICOM file: is it an image that we can carry, and if not, why not. Pixels are located, not read."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pydicom.uid as uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag

from medtwin.core.errors import SourceError
from medtwin.dicom import terms
from medtwin.dicom.reading.series import Header, Instance, PixelFormat
from medtwin.dicom.values import PARSE_ERRORS, Values, quiet

IMAGE_CLASSES = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.SecondaryCaptureImageStorage,
    }
)
"""Single-frame image storage classes that are read; multi-frame ones are rejected by name."""

_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_FILE_ERRORS = (*PARSE_ERRORS, EOFError, OSError, struct.error, zlib.error, InvalidDicomError, RecursionError)
_REQUIRED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""Type 1 by PS3.3 (PatientID is Type 2, but without it there is nobody to join the image to)."""


class UnfitError(Exception):
    """A file that cannot be carried: a stable rule name, and a reason without values of the record."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


class NotImageError(Exception):
    """A DICOM object without an image, such as a report or a DICOMDIR; its message names the SOP class."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What one file says: the image, the header, and how often which value was malformed."""

    instance: Instance
    header: Header
    spacing_mm: tuple[float, ...] | None
    spacing_source: str | None
    flags: Counter[str]


@dataclass(frozen=True, slots=True)
class _PixelElement:
    tag: int
    length: int
    offset: int


def read_image_file(path: Path, file: str) -> ImageFile:
    """What a DICOM file says about its image.

    Args:
        path: The file, known to begin like DICOM.
        file: Its name in messages, relative to the source.

    Raises:
        UnfitError: If it is corrupt, or an image that cannot be carried.
        NotImageError: If it is an intact DICOM object without an image.
    """
    with quiet() as caught:
        try:
            with path.open("rb") as stream:
                dataset, element = _read_until_pixels(stream)
                _check_whole(stream, dataset, element)
                values = Values(dataset)
                _check_class(dataset, values)
                _check_has_pixels(element)
                _check_header(values)
                pixel = _pixel_format(stream, dataset, element, values)
        except _FILE_ERRORS as error:
            raise UnfitError("unreadable-file", f"the file is garbled ({type(error).__name__})") from error
        image = _image_file(path, file, values, pixel)
        if pixel.offset is None:
            _check_decodes(image.instance)
    flags = Counter({f"bad-value.{keyword}": count for keyword, count in values.bad.items()})
    flags["malformed-value"] += len(caught)
    return ImageFile(image.instance, image.header, image.spacing_mm, image.spacing_source, +flags)


def _read_until_pixels(stream: BinaryIO) -> tuple[FileDataset, _PixelElement | None]:
    found: list[_PixelElement] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            found.append(_PixelElement(int(tag), length, stream.tell()))
        return tag in _PIXEL_TAGS

    dataset = read_partial(stream, stop_when=at_pixels, force=True)
    return dataset, found[0] if found else None


def _check_class(dataset: FileDataset, values: Values) -> None:
    sop_class = values.text("SOPClassUID") or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class or sop_class in IMAGE_CLASSES:
        return
    name = uid.UID(sop_class).name
    if name != sop_class and "Image Storage" not in name:
        raise NotImageError(name)
    shown = name if name != sop_class else "a private SOP class"
    raise UnfitError("sop-class", f"{shown} is not read: export single-frame images of CT, MR, CR, DX, MG or PT")


def _check_whole(stream: BinaryIO, dataset: FileDataset, element: _PixelElement | None) -> None:
    """Whether the last element is as long as it says, and the file ends there or at the pixels.

    Nothing may have been converted before: a converted element has forgotten its length.
    """
    last: Any = dataset.get_item(max(dataset.keys())) if dataset else None
    if last is not None and (not isinstance(last, RawDataElement) or last.length == _UNDEFINED):
        return
    is_cut = last is None or last.length > len(last.value or b"")
    is_deflated = dataset.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian
    if element is None and last is not None and not is_deflated:
        is_cut |= last.value_tell + last.length < os.fstat(stream.fileno()).st_size
    if is_cut:
        raise UnfitError("truncated", "the file ends within its header: transfer it again")


def _check_has_pixels(element: _PixelElement | None) -> None:
    if element is None:
        raise UnfitError("no-pixel-data", "the image has no PixelData: export it again with pixels")
    if element.tag != _PIXEL_DATA:
        raise UnfitError("float-pixels", "floating-point pixel data is not read: export integer pixel data")


def _check_header(values: Values) -> None:
    missing = [keyword for keyword in _REQUIRED if values.text(keyword) is None]
    if missing:
        raise UnfitError("missing-attribute", f"{', '.join(missing)} must be present and not empty")
    if values.integer("SamplesPerPixel") != 1 or values.text("PhotometricInterpretation") not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise UnfitError("colour", "a colour image has no modality value: PhotometricInterpretation must be MONOCHROME")
    if (values.integer("NumberOfFrames") or 1) != 1:
        raise UnfitError("multi-frame", "multi-frame images are not read yet: export single-frame images")
    if values.term("Modality", terms.MODALITIES) is None:
        raise UnfitError("modality", f"Modality must be one of {', '.join(sorted(terms.MODALITIES))}")
    if values.has("ModalityLUTSequence"):
        raise UnfitError("modality-lut", "a Modality LUT is not read: the file must give RescaleSlope and Intercept")


def _pixel_format(stream: BinaryIO, dataset: FileDataset, element: _PixelElement | None, values: Values) -> PixelFormat:
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    numbers = [values.integer(keyword) for keyword in keywords]
    rows, columns, allocated, stored, representation = (0 if number is None else number for number in numbers)
    is_sound = allocated in (8, 16) and 0 < stored <= allocated and rows > 0 and columns > 0
    if not is_sound or representation not in (0, 1) or values.integer("HighBit") != stored - 1:
        raise UnfitError("pixel-format", "BitsAllocated must be 8 or 16, and HighBit BitsStored - 1")
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    _, is_little_endian = dataset.original_encoding
    pixel = PixelFormat(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        is_signed=representation == 1,
        is_big_endian=not is_little_endian,
        offset=element.offset if element else None,
    )
    if element is None or syntax == uid.DeflatedExplicitVRLittleEndian:
        return replace(pixel, offset=None)
    if element.length == _UNDEFINED:
        _check_syntax(syntax)
        _check_fragments(stream, element.offset)
        return replace(pixel, offset=None)
    _check_native(stream, pixel, element)
    return pixel


def _check_native(stream: BinaryIO, pixel: PixelFormat, element: _PixelElement) -> None:
    present = os.fstat(stream.fileno()).st_size - element.offset
    if present < min(element.length, pixel.num_bytes):
        raise UnfitError("truncated", f"the file ends after {present} of {pixel.num_bytes} bytes of pixels")
    if element.length not in (pixel.num_bytes, pixel.num_bytes + pixel.num_bytes % 2):
        reason = f"PixelData has {element.length} bytes, where Rows, Columns and BitsAllocated make {pixel.num_bytes}"
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


def _check_decodes(instance: Instance) -> None:
    try:
        instance.raw()
    except SourceError as error:
        raise UnfitError("undecodable", "the compressed pixel data cannot be decoded to Rows x Columns") from error


def _image_file(path: Path, file: str, values: Values, pixel: PixelFormat) -> ImageFile:
    modality = values.text("Modality") or ""
    spacing, source = _spacing(values, modality.upper())
    slope, intercept = values.number("RescaleSlope"), values.number("RescaleIntercept")
    if slope == 0:
        values.bad["RescaleSlope"] += 1
    instance = Instance(
        path=path,
        file=file,
        sop_uid=values.text("SOPInstanceUID") or "",
        instance_number=values.integer("InstanceNumber"),
        position=values.numbers("ImagePositionPatient", 3),
        orientation=values.numbers("ImageOrientationPatient", 6),
        pixel=pixel,
        slope=slope or 1.0,
        intercept=intercept or 0.0,
        photometric=values.text("PhotometricInterpretation") or "",
        view=values.term("ViewPosition", terms.SINGLE_TERMS["ViewPosition"]),
    )
    return ImageFile(instance, _header(values, slope, intercept), spacing, source, Counter())


def _spacing(values: Values, modality: str) -> tuple[tuple[float, ...] | None, str | None]:
    """Row and column spacing in mm and where it stands: at the detector for a projection (PS3.3 10.7.1.3)."""
    is_projection = modality in terms.PROJECTION_MODALITIES
    for keyword in ("ImagerPixelSpacing", "PixelSpacing") if is_projection else ("PixelSpacing",):
        spacing = values.numbers(keyword, 2)
        if spacing is not None and min(spacing) <= 0:
            values.bad[keyword] += 1
        elif spacing is not None:
            return spacing, keyword
    return None, None


def _header(values: Values, slope: float | None, intercept: float | None) -> Header:
    modality = (values.text("Modality") or "").upper()
    manufacturer = values.text("Manufacturer")
    thickness = values.number("SliceThickness")
    return Header(
        patient_id=values.text("PatientID") or "",
        study_uid=values.text("StudyInstanceUID") or "",
        series_uid=values.text("SeriesInstanceUID") or "",
        sop_class_uid=values.text("SOPClassUID") or "",
        modality=modality,
        body_part=values.term("BodyPartExamined", terms.BODY_PARTS),
        view=values.term("ViewPosition", terms.SINGLE_TERMS["ViewPosition"]),
        sex=values.term("PatientSex", terms.SINGLE_TERMS["PatientSex"]),
        age_years=values.age_years(),
        study_time=values.study_time(),
        intensity_unit=_intensity_unit(values, modality, slope, intercept),
        slice_thickness_mm=thickness if thickness and thickness > 0 else None,
        tube_kv=values.number("KVP"),
        manufacturer=terms.manufacturer_of(manufacturer) if manufacturer else None,
        burned_in_annotation=values.term("BurnedInAnnotation", terms.SINGLE_TERMS["BurnedInAnnotation"]),
    )


def _intensity_unit(values: Values, modality: str, slope: float | None, intercept: float | None) -> str | None:
    """HU for a CT whose rescale is given and whose RescaleType is absent or says so (PS3.3 C.8.2.1.1.2)."""
    if modality != "CT" or slope is None or intercept is None:
        return None
    stated = values.text("RescaleType")
    return "HU" if stated is None or stated.upper() in terms.HOUNSFIELD_SPELLINGS else None
