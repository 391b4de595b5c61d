"""One DICOM file: is it an image that we can carry, and if not, why not. Pixels are located, not read."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pydicom.uid as uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from medtwin.dicom import terms
from medtwin.dicom.reading.archive import HEAD_BYTES
from medtwin.dicom.reading.decode import COLOURS, DECODE_ERRORS, Conversion, ModalityLut
from medtwin.dicom.reading.enhanced import SINGLE_FRAME_CLASS, frame_dataset, num_groups
from medtwin.dicom.reading.faults import NotDicomError, NotImageError, UnfitError
from medtwin.dicom.reading.media import DICOM_SUFFIXES, begins_like_dicom
from medtwin.dicom.reading.pixel_checks import (
    PixelElement,
    check_decodes,
    check_has_pixels,
    converted_format,
    has_loose_end,
    pixel_format,
)
from medtwin.dicom.reading.quick import PIXEL_TAGS, Plain, PlainValues, read_quickly
from medtwin.dicom.reading.series import Header, Instance, PixelFormat
from medtwin.dicom.values import PARSE_ERRORS, Values, quiet

Colour = Literal["refuse", "grey"]
"""What becomes of a colour image: it is rejected, or read as its luminance."""

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
"""Single-frame image storage classes that are read; `enhanced.SINGLE_FRAME_CLASS` lists the multi-frame ones."""

MAX_FRAMES = 65_536
"""More frames than any scan has: a file that says so is rejected before that many images are made."""

_UNDEFINED = 0xFFFFFFFF
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
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


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What a file says of one image: pixels, header, and how often which value was malformed.

    Attributes:
        spacing_mm: Row and column spacing; None where unknown. spacing_source: The attribute it is from.
        aspect_ratio: Height to width of a pixel where the spacing is unknown.
        magnification: EstimatedRadiographicMagnificationFactor where the spacing is that of a detector.
    """

    instance: Instance
    header: Header
    spacing_mm: tuple[float, ...] | None
    spacing_source: str | None
    aspect_ratio: tuple[float, ...] | None = None
    magnification: float | None = None
    flags: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A file up to its pixels; the dataset is None where the values were read fast."""

    values: Values
    element: PixelElement | None
    dataset: FileDataset | None
    media_class: str


def read_image_file(path: Path, file: str, colour: Colour = "refuse") -> list[ImageFile]:
    """What a DICOM file says about its image, or about each of its frames.

    Args:
        path: The file.
        file: Its name in messages, relative to the source.
        colour: Whether a colour image is rejected or read as its luminance.

    Raises:
        NotDicomError: If it does not begin like DICOM, or cannot be opened and is not named so.
        UnfitError: If it is corrupt, or an image that cannot be carried.
        NotImageError: If it is an intact DICOM object without an image.
    """
    try:
        with path.open("rb") as stream:
            quick = _parse_quickly(stream)
            if quick is not None:
                return _images(stream, quick, path, file, colour)
            if not begins_like_dicom(stream.read(HEAD_BYTES), path.suffix.lower()):
                raise NotDicomError
            stream.seek(0)
            with quiet() as caught:
                images = _images(stream, _parse(stream), path, file, colour)
    except _FILE_ERRORS as error:
        if isinstance(error, OSError) and path.suffix.lower() not in DICOM_SUFFIXES and not os.access(path, os.R_OK):
            raise NotDicomError from error
        raise UnfitError("unreadable-file", f"the file is garbled ({type(error).__name__})") from error
    if caught:
        images[0].flags["malformed-value"] += len(caught)
    return images


def _parse_quickly(stream: BinaryIO) -> _Parsed | None:
    header = read_quickly(stream, os.fstat(stream.fileno()).st_size)
    if header is None:
        stream.seek(0)
        return None
    is_implicit = header.syntax == uid.ImplicitVRLittleEndian
    where = (header.pixel_tag, header.pixel_length, header.pixel_offset)
    element = PixelElement(*where, header.syntax, is_big_endian=False, is_implicit=is_implicit)
    return _Parsed(header.values, element, None, "")


def _parse(stream: BinaryIO) -> _Parsed:
    found: list[tuple[int, int, int]] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            found.append((int(tag), length, stream.tell()))
        return tag in PIXEL_TAGS

    dataset = read_partial(stream, stop_when=at_pixels, force=True)
    is_implicit, is_little_endian = dataset.original_encoding
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    element = PixelElement(*found[0], syntax, not is_little_endian, bool(is_implicit)) if found else None
    _check_whole(stream, dataset, element)
    media_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    return _Parsed(Values(dataset), element, dataset, media_class)


def _images(stream: BinaryIO, parsed: _Parsed, path: Path, file: str, colour: Colour) -> list[ImageFile]:
    values = parsed.values
    _check_class(values, parsed.media_class)
    element = check_has_pixels(parsed.element)
    conversion = _check_header(values, colour)
    frames = _num_frames(parsed, conversion)
    samples = 3 if conversion == "grey" and values.integer("SamplesPerPixel") == 3 else 1
    pixel = pixel_format(stream, element, values, frames or 1, samples)
    if frames is None:
        image = _image_file(path, file, values, pixel, element.syntax)
        images = [image if conversion is None else _converted(image, conversion, parsed.dataset)]
    else:
        images = _frames(path, file, parsed.dataset, pixel, frames, element.syntax)
    if pixel.offset is None and conversion is None:
        check_decodes([image.instance for image in images])
    for keyword, count in values.bad.items():
        images[0].flags[f"bad-value.{keyword}"] += count
    if has_loose_end(stream, element):
        images[0].flags["loose-end"] += 1
    return images


def _check_class(values: Values, media_class: str) -> None:
    sop_class = values.text("SOPClassUID") or media_class
    if not sop_class or sop_class in IMAGE_CLASSES or sop_class in SINGLE_FRAME_CLASS:
        return
    name = uid.UID(sop_class).name
    if name != sop_class and "Image Storage" not in name and sop_class not in _OTHER_IMAGES:
        raise NotImageError(name)
    shown = name if name != sop_class else "a private SOP class"
    why = _NOT_READ.get(sop_class, "it is not an image of CT, MR, CR, DX, MG or PT")
    raise UnfitError("sop-class", f"{shown} is not read: {why}")


_OTHER_IMAGES = frozenset({uid.SegmentationStorage, uid.ParametricMapStorage, uid.RTDoseStorage})
_DISPLAY = "its values are for display, of moments in time, and no measurement of a place"
_NOT_READ: dict[str, str] = {
    uid.UltrasoundImageStorage: _DISPLAY,
    uid.UltrasoundMultiFrameImageStorage: _DISPLAY,
    uid.XRayAngiographicImageStorage: _DISPLAY,
    uid.XRayRadiofluoroscopicImageStorage: _DISPLAY,
    uid.NuclearMedicineImageStorage: "its frames are energy windows, detectors and phases, not places",
    uid.BreastTomosynthesisImageStorage: "its planes are no slices of measured values",
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage: "one bit is no grey value",
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage: "frames in colour have no modality value",
    uid.SegmentationStorage: "it says what others' pixels show, and is no image of a patient",
    uid.ParametricMapStorage: "it is computed from images, and none itself",
    uid.RTDoseStorage: "it is a plan of dose, and no image of a patient",
}


def _check_whole(stream: BinaryIO, dataset: FileDataset, element: PixelElement | None) -> None:
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


def _check_header(values: Values, colour: Colour) -> Conversion | None:
    """What must be done to the cells."""
    missing = values.missing(_REQUIRED)
    if missing:
        raise UnfitError("missing-attribute", f"{', '.join(missing)} must be present and not empty")
    photometric = values.text("PhotometricInterpretation") or ""
    samples = values.integer("SamplesPerPixel")
    is_grey = samples == 1 and photometric in _MONOCHROME
    is_colour = photometric in COLOURS and samples == (1 if photometric == "PALETTE COLOR" else 3)
    if not is_grey and (colour == "refuse" or not is_colour):
        reason = "a colour image has no modality value: PhotometricInterpretation must be MONOCHROME"
        raise UnfitError("colour", f"{reason}, or colour=grey read its luminance" if is_colour else reason)
    if values.term("Modality", terms.MODALITIES) is None:
        raise UnfitError("modality", f"Modality must be one of {', '.join(sorted(terms.MODALITIES))}")
    has_table = values.has("ModalityLUTSequence")
    if has_table and (is_colour or values.has("RescaleSlope") or values.has("RescaleIntercept")):
        raise UnfitError("modality-lut", "a Modality LUT must stand alone, without rescale and without colour")
    return "grey" if is_colour else "modality-lut" if has_table else None


def _num_frames(parsed: _Parsed, conversion: Conversion | None) -> int | None:
    """The number of frames of a multi-frame class; None for one of single frames."""
    values = parsed.values
    count = values.integer("NumberOfFrames")
    if values.text("SOPClassUID") not in SINGLE_FRAME_CLASS:
        if count not in (None, 1):
            raise UnfitError(
                "multi-frame", "a single-frame class must have one frame, but NumberOfFrames says otherwise"
            )
        return None
    if count is None or not 0 < count <= MAX_FRAMES:
        raise UnfitError("multi-frame", f"NumberOfFrames must be 1 to {MAX_FRAMES} in a multi-frame class")
    if conversion is not None:
        raise UnfitError("multi-frame", "frames in colour or behind a Modality LUT are not read: export single frames")
    groups = num_groups(parsed.dataset) if parsed.dataset is not None else None
    if groups not in (None, count):
        raise UnfitError("functional-groups", "PerFrameFunctionalGroupsSequence must have one item for each frame")
    return count


def _frames(
    path: Path, file: str, dataset: Dataset | None, pixel: PixelFormat, count: int, syntax: str
) -> list[ImageFile]:
    images = []
    for frame in range(count):
        values = Values(frame_dataset(dataset or Dataset(), frame))
        offset = None if pixel.offset is None else pixel.offset + frame * pixel.num_bytes
        image = _image_file(path, f"{file}#{frame + 1}", values, replace(pixel, offset=offset), syntax)
        sop_uid = f"{image.instance.sop_uid}#{frame + 1}"
        instance = replace(image.instance, sop_uid=sop_uid, frame=frame)
        flags = Counter({f"bad-value.{keyword}": bad for keyword, bad in values.bad.items()})
        images.append(replace(image, instance=instance, flags=flags))
    images[0].flags["multi-frame-file"] += 1
    return images


def _converted(image: ImageFile, conversion: Conversion, dataset: Dataset | None) -> ImageFile:
    """The image as its conversion gives it: the format, and MONOCHROME2 for a colour image."""
    bits = None
    if conversion == "modality-lut":
        try:
            bits = ModalityLut.of(dataset or Dataset()).bits
        except DECODE_ERRORS as error:
            reason = "ModalityLUTSequence must have one table, of the entries and bits (8 to 16) of its descriptor"
            raise UnfitError("modality-lut", reason) from error
    pixel = converted_format(image.instance, conversion, bits)
    photometric = "MONOCHROME2" if conversion == "grey" else image.instance.photometric
    instance = replace(image.instance, pixel=pixel, conversion=conversion, photometric=photometric)
    flag = "colour-to-grey" if conversion == "grey" else "modality-lut-applied"
    return replace(image, instance=instance, flags=Counter({flag: 1}))


def _image_file(path: Path, file: str, values: Values, pixel: PixelFormat, syntax: str) -> ImageFile:
    modality = (values.text("Modality") or "").upper()
    spacing, source = _spacing(values, modality)
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
        transfer_syntax=syntax,
    )
    magnification = None
    if source == "ImagerPixelSpacing":
        magnification = _positive(values, "EstimatedRadiographicMagnificationFactor")
    aspect = _aspect_ratio(values) if spacing is None else None
    if isinstance(values, PlainValues):
        header, bad = _plain_header(values.key(_HEADER_KEYWORDS))
        values.bad.update(bad)
    else:
        header = _header(values, slope, intercept)
    return ImageFile(instance, header, spacing, source, aspect, magnification)


def _spacing(values: Values, modality: str) -> tuple[tuple[float, ...] | None, str | None]:
    """Row and column spacing in mm and where it stands: at the detector for a projection (PS3.3 10.7.1.3)."""
    is_projection = modality in terms.PROJECTION_MODALITIES
    keywords = ("ImagerPixelSpacing", "PixelSpacing") if is_projection else ("PixelSpacing",)
    for keyword in (*keywords, "NominalScannedPixelSpacing"):
        spacing = values.numbers(keyword, 2)
        if spacing is not None and min(spacing) <= 0:
            values.bad[keyword] += 1
        elif spacing is not None:
            return spacing, keyword
    return None, None


def _aspect_ratio(values: Values) -> tuple[float, ...] | None:
    """Vertical to horizontal size of a pixel (PS3.3 C.7.6.3.1.7)."""
    ratio = values.numbers("PixelAspectRatio", 2)
    if ratio is not None and min(ratio) <= 0:
        values.bad["PixelAspectRatio"] += 1
        return None
    return ratio


def _positive(values: Values, keyword: str) -> float | None:
    number = values.number(keyword)
    if number is not None and number <= 0:
        values.bad[keyword] += 1
        return None
    return number


_HEADER_KEYWORDS = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "Modality", "BodyPartExamined"),
    *("ViewPosition", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "StudyTime"),
    *("TimezoneOffsetFromUTC", "SliceThickness", "KVP", "Manufacturer", "BurnedInAnnotation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
)
"""What `_header` reads."""


@lru_cache(maxsize=64)
def _plain_header(key: tuple[Plain | None, ...]) -> tuple[Header, Counter[str]]:
    """The header that some values make, and which of them were bad; most slices of a series have the same."""
    pairs = zip(_HEADER_KEYWORDS, key, strict=True)
    values = PlainValues({keyword: value for keyword, value in pairs if value is not None})
    header = _header(values, values.number("RescaleSlope"), values.number("RescaleIntercept"))
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        values.bad.pop(keyword, None)  # counted with the image
    return header, values.bad


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
