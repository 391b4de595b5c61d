"""Builds a de-identified image from an allow-list: what is not listed here does not get out.

DICOM PS3.15-2023 Annex E, Basic Application Level Confidentiality Profile, with the options Retain Longitudinal
Temporal Information with Modified Dates (E.3.6) and Retain Patient Characteristics (E.3.5), and stricter: no text,
sequence, private element, overlay or curve is copied; a code string only if it is a term of a closed list; a number
only if it lies in the range of its attribute. Compressed pixels are decoded, because a codestream can hold comments;
the stored values stay equal, and native pixels stay equal bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.core.errors import SourceError
from medtwin.core.images import ImageRow, accession_number, image_path
from medtwin.core.pseudonyms import SUBJECT_SYSTEM, Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.dicom import terms
from medtwin.dicom.checks.tables import load_tables
from medtwin.dicom.classic import MAMMOGRAPHY_CLASSES, state_classic, state_mammogram
from medtwin.dicom.reading.decode import DECODE_ERRORS
from medtwin.dicom.reading.enhanced import frame_dataset
from medtwin.dicom.reading.series import Instance, Series, Stored, iter_raw, used_bits
from medtwin.dicom.values import PARSE_ERRORS, Values, format_age, format_ds, parse_age, parse_offset, quiet
from medtwin.dicom.writing.encode import code_item, file_dataset, region_items, set_pixels

NUMBERS: dict[str, tuple[int, float, float]] = {
    # General Image, Series and Patient Study: PS3.3 C.7.2.2, C.7.3.1, C.7.6.1
    "InstanceNumber": (1, 0, 99_999),
    "SeriesNumber": (1, 0, 99_999),
    "AcquisitionNumber": (1, 0, 99_999),
    "PatientSize": (1, 0, 3),
    "PatientWeight": (1, 0, 700),
    # Image Plane: C.7.6.2
    "PixelSpacing": (2, 1e-4, 100),
    "ImageOrientationPatient": (6, -1.01, 1.01),
    "ImagePositionPatient": (3, -10_000, 10_000),
    "SliceThickness": (1, 0, 1_000),
    "SpacingBetweenSlices": (1, -1_000, 1_000),
    "SliceLocation": (1, -10_000, 10_000),
    # Modality LUT, VOI LUT, Image Pixel: C.11.1, C.11.2, C.7.6.3
    "RescaleIntercept": (1, -1e6, 1e6),
    "RescaleSlope": (1, -1e6, 1e6),
    "PixelAspectRatio": (2, 1, 100_000),
    "PixelPaddingValue": (1, -32_768, 65_535),
    "LossyImageCompressionRatio": (1, 0, 1_000),
    # CR, DX and X-ray acquisition: C.8.1, C.8.7.2, C.8.11
    "ImagerPixelSpacing": (2, 1e-4, 100),
    "NominalScannedPixelSpacing": (2, 1e-4, 100),
    "PixelIntensityRelationshipSign": (1, -1, 1),
    "EstimatedRadiographicMagnificationFactor": (1, 0, 10),
    "DistanceSourceToDetector": (1, 0, 10_000),
    "DistanceSourceToPatient": (1, 0, 10_000),
    "KVP": (1, 0, 1_000),
    "ExposureTime": (1, 0, 100_000),
    "XRayTubeCurrent": (1, 0, 10_000),
    "Exposure": (1, 0, 100_000),
    # CT: C.8.2.1
    "DataCollectionDiameter": (1, 0, 5_000),
    "ReconstructionDiameter": (1, 0, 5_000),
    "GantryDetectorTilt": (1, -90, 90),
    "TableHeight": (1, -5_000, 5_000),
    "RevolutionTime": (1, 0, 1_000),
    "SingleCollimationWidth": (1, 0, 1_000),
    "TotalCollimationWidth": (1, 0, 1_000),
    "SpiralPitchFactor": (1, 0, 100),
    "CTDIvol": (1, 0, 10_000),
    # MR: C.8.3.1
    "RepetitionTime": (1, 0, 100_000),
    "EchoTime": (1, 0, 10_000),
    "InversionTime": (1, 0, 100_000),
    "EchoTrainLength": (1, 0, 10_000),
    "EchoNumbers": (1, 0, 10_000),
    "FlipAngle": (1, -360, 360),
    "MagneticFieldStrength": (1, 0, 100_000),
    "NumberOfAverages": (1, 0, 10_000),
    "ImagingFrequency": (1, 0, 10_000),
    "PixelBandwidth": (1, 0, 100_000),
    # PET: C.8.9.1, C.8.9.4
    "NumberOfSlices": (1, 0, 65_535),
    "ImageIndex": (1, 0, 65_535),
    "ActualFrameDuration": (1, 0, 1e9),
    "FrameReferenceTime": (1, -1e9, 1e9),
    "DecayFactor": (1, 0, 1e9),
    "DoseCalibrationFactor": (1, 0, 1e12),
    "ScatterFractionFactor": (1, 0, 1),
}
"""Attribute to number of values, smallest and largest."""

DATES = {
    "StudyDate": "StudyTime",
    "SeriesDate": "SeriesTime",
    "AcquisitionDate": "AcquisitionTime",
    "ContentDate": "ContentTime",
}
"""Dates that are shifted, each with the time of day that is kept."""

_LOSSY_SYNTAXES = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless})
"""Always lossy (PS3.5 A.4); JPEG 2000 is, unless the file says that it is not."""

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_GENERAL_TYPE_2 = ["Manufacturer"]
"""Wanted by every class but Secondary Capture, where it does no harm (C.7.5.1)."""
_PLANE_TYPE_2 = ["PatientPosition", "PositionReferenceIndicator"]
"""General Series (2C of CT and MR), Frame of Reference C.7.4.1."""

_DX_CLASSES = frozenset({uid.DigitalXRayImageStorageForPresentation, uid.DigitalXRayImageStorageForProcessing})
_ORIENTATION_LETTERS = frozenset("APRLHF")
_MIN_HEAD_SLICES = 10
"""Fewer slices of a head do not render a face."""

_BASIC_PROFILE = Code("113100", "DCM", "Basic Application Confidentiality Profile")
_FULL_DATES = Code("113106", "DCM", "Retain Longitudinal Temporal Information Full Dates Option")
_MODIFIED_DATES = Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option")
_CHARACTERISTICS = Code("113108", "DCM", "Retain Patient Characteristics Option")


@dataclass(frozen=True)
class _Target:
    """Whose image it becomes: every instance of a series shares it."""

    pseudonyms: Pseudonyms
    subject_id: int
    shift: timedelta
    study_uid: str
    series_uid: str
    birth_date: date | None


def deidentify_series(
    series: Series,
    pseudonyms: Pseudonyms,
    subject_id: int,
    birth_date: date | None = None,
    ledger: Ledger | None = None,
) -> Iterator[FileDataset]:
    """The images of a series, sorted, without identity; Explicit VR Little Endian, ready for `write_series`.

    Args:
        series: As read.
        pseudonyms: The same as for the FHIR side: UIDs and the date shift of the subject.
        subject_id: Whose images these are: `pseudonyms.subject_id(series.identity)` unless an alias says otherwise.
        birth_date: PatientBirthDate to write, already shifted; None leaves it empty.
        ledger: Counts as `DICOM.` flags what was dropped, annotations burned in, and possible faces.

    Raises:
        SourceError: If a file is gone or has changed since it was read.
    """
    target = _Target(
        pseudonyms=pseudonyms,
        subject_id=subject_id,
        shift=pseudonyms.shift(subject_id),
        study_uid=pseudonyms.uid(series.header.study_uid),
        series_uid=pseudonyms.uid(series.source_uid),
        birth_date=birth_date,
    )
    flags: Counter[str] = Counter(privacy_flags(series))
    headers = _Headers()
    for instance, cells in _with_cells(series.instances):
        yield _deidentify(instance, cells, headers.of(instance), target, flags)
    if ledger is not None:
        ledger.flags.update({f"DICOM.{name}": count for name, count in flags.items()})


def privacy_flags(series: Series) -> list[str]:
    """What the pixels themselves may reveal, which no header rule removes.

    `burned-in-annotation`: the file says that text is burned in; `recognisable-head`: a volume of a body part with a
    face; `head-not-excluded`: a volume whose files do not name a body part. Two more are known only when the images
    are read, and stand in the ledger: `annotation-not-excluded`, of a Secondary Capture or colour image that does not
    say whether text is burned in, and `recognisable-features`, where an image says so.
    """
    flags = ["burned-in-annotation"] if series.header.burned_in_annotation == "YES" else []
    is_volume = series.header.modality not in terms.PROJECTION_MODALITIES
    if is_volume and series.geometry.num_slices >= _MIN_HEAD_SLICES:
        if series.header.body_part is None:
            flags.append("head-not-excluded")
        elif series.header.body_part in terms.HEAD_BODY_PARTS:
            flags.append("recognisable-head")
    return flags


def series_to_image_row(
    series: Series, pseudonyms: Pseudonyms, subject_id: int, labels: list[str] | None = None
) -> ImageRow:
    """The row of the image table for a de-identified series.

    Its time is StudyDate with StudyTime, shifted like every date of the subject: UTC where the file states
    TimezoneOffsetFromUTC, else floating; None without a date.
    """
    header, geometry = series.header, series.geometry
    first = series.instances[0]
    series_uid = pseudonyms.uid(series.source_uid)
    return ImageRow(
        subject_id=subject_id,
        time=_shifted_time(header.study_time, pseudonyms.shift(subject_id)),
        modality=header.modality,
        body_part=header.body_part,
        view=header.view,
        rows=geometry.rows,
        columns=geometry.columns,
        num_slices=geometry.num_slices,
        pixel_spacing_row_mm=geometry.pixel_spacing_row_mm,
        pixel_spacing_column_mm=geometry.pixel_spacing_column_mm,
        spacing_source=geometry.spacing_source,
        slice_spacing_mm=geometry.slice_spacing_mm,
        slice_thickness_mm=header.slice_thickness_mm,
        intensity_unit=header.intensity_unit,
        photometric=first.photometric,
        bits_stored=max(instance.pixel.bits_stored for instance in series.instances),
        sex=header.sex,
        age_years=header.age_years,
        labels=labels,
        study_uid=pseudonyms.uid(header.study_uid),
        series_uid=series_uid,
        path=image_path(subject_id, series_uid),
    )


def _shifted_time(time: datetime | None, shift: timedelta) -> datetime | None:
    if time is None:
        return None
    try:
        return time.replace(tzinfo=None) + shift
    except OverflowError:
        return None


class _Headers:
    """The headers of images; that of a multi-frame file is parsed once for all its frames."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._dataset = Dataset()

    def of(self, instance: Instance) -> Dataset:
        """The header of an image, of a frame as a single-frame image would have it; call within `quiet`.

        Raises:
            SourceError: If the file is gone or garbled.
        """
        try:
            with quiet():
                if instance.path != self._path:
                    self._dataset = pydicom.dcmread(instance.path, stop_before_pixels=True, force=True)
                    self._path = instance.path
                return self._dataset if instance.frame is None else frame_dataset(self._dataset, instance.frame)
        except (*PARSE_ERRORS, *DECODE_ERRORS) as error:
            raise SourceError(f"{instance.file}: cannot be read any more ({type(error).__name__})") from error


def _with_cells(instances: Sequence[Instance]) -> Iterator[tuple[Instance, Stored]]:
    """Each image with its pixel cells, in order; a compressed multi-frame file is decoded in one go."""
    if all(instance.frame is None or instance.pixel.offset is not None for instance in instances):
        for instance in instances:
            yield instance, instance.raw()
        return
    cells = dict(iter_raw(instances))
    for index, instance in enumerate(instances):
        yield instance, cells.pop(index)


def _deidentify(
    instance: Instance, cells: Stored, source: Dataset, target: _Target, flags: Counter[str]
) -> FileDataset:
    with quiet():
        values = Values(source)
        dataset = Dataset()
        dataset.SOPClassUID = values.text("SOPClassUID")
        dataset.SOPInstanceUID = target.pseudonyms.uid(instance.sop_uid)
        _set_identity(dataset, target)
        _copy_terms(dataset, values)
        _copy_numbers(dataset, values, instance)
        _copy_dates(dataset, values, target.shift)
        _copy_rest(dataset, values, target)
        _note_what_shows(dataset, instance, flags)
        if instance.frame is not None:
            state_classic(dataset, values)
        if instance.conversion is not None:
            _state_conversion(dataset, instance, source)
        _complete(dataset)
        _set_stored(dataset, instance, cells, flags)
    flags.update({f"dropped.{keyword}": count for keyword, count in values.bad.items()})
    return file_dataset(dataset)


def _note_what_shows(dataset: Dataset, instance: Instance, flags: Counter[str]) -> None:
    """Notes, once for a series, what an image says that its pixels show, whichever of the images says so."""
    if dataset.get("BurnedInAnnotation") == "YES":
        flags["burned-in-annotation"] = 1
    elif "BurnedInAnnotation" not in dataset and (
        dataset.SOPClassUID == uid.SecondaryCaptureImageStorage or instance.conversion == "grey"
    ):
        flags["annotation-not-excluded"] = 1
    if dataset.get("RecognizableVisualFeatures") == "YES":
        flags["recognisable-features"] = 1


def _state_conversion(dataset: Dataset, instance: Instance, source: Dataset) -> None:
    """What follows from pixels that are no longer those of the file: a colour made grey, a look-up table applied."""
    kept = [str(value) for value in dataset.get("ImageType") or []]
    dataset.ImageType = ["DERIVED", *(kept[1:] or ["SECONDARY"])]
    dataset.pop("PixelPaddingValue", None)
    if instance.conversion != "modality-lut":
        return
    unit = (Values(source.ModalityLUTSequence[0]).text("ModalityLUTType") or "").upper()
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    dataset.RescaleType = "HU" if unit in terms.HOUNSFIELD_SPELLINGS else unit if unit in terms.RESCALE_TYPES else "US"


def _set_identity(dataset: Dataset, target: _Target) -> None:
    dataset.StudyInstanceUID = target.study_uid
    dataset.SeriesInstanceUID = target.series_uid
    dataset.AccessionNumber = accession_number(target.study_uid)
    dataset.PatientID, dataset.IssuerOfPatientID = str(target.subject_id), SUBJECT_SYSTEM
    dataset.PatientName = f"Subject^{target.subject_id}"
    dataset.PatientBirthDate = target.birth_date.strftime("%Y%m%d") if target.birth_date else ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "medtwin attribute allow-list"
    is_shifted = bool(target.shift)
    codes = (_BASIC_PROFILE, _MODIFIED_DATES if is_shifted else _FULL_DATES, _CHARACTERISTICS)
    dataset.DeidentificationMethodCodeSequence = [code_item(code) for code in codes]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if is_shifted else "UNMODIFIED"


def _copy_terms(dataset: Dataset, values: Values) -> None:
    for keyword, allowed in terms.SINGLE_TERMS.items():
        term = values.term(keyword, allowed)
        if term is not None:
            setattr(dataset, keyword, term)
    for keyword, allowed in terms.MULTIPLE_TERMS.items():
        kept = _leading_terms(values, keyword, allowed)
        if kept:
            setattr(dataset, keyword, kept)


def _leading_terms(values: Values, keyword: str, allowed: frozenset[str]) -> list[str]:
    kept: list[str] = []
    for term in (values.text(keyword) or "").upper().split("\\"):
        if term in allowed:
            kept.append(term)
            continue
        if term:
            values.bad[keyword] += 1
        break
    return kept


def _copy_numbers(dataset: Dataset, values: Values, instance: Instance) -> None:
    for keyword, (count, low, high) in NUMBERS.items():
        numbers = values.numbers(keyword, count)
        if numbers is None:
            continue
        vr = dictionary_VR(keyword)
        if vr == "US or SS":
            vr = "SS" if instance.pixel.is_signed else "US"
        is_whole = vr not in ("DS", "FD", "FL")
        if not all(low <= number <= high and (number.is_integer() or not is_whole) for number in numbers):
            values.bad[keyword] += 1
            continue
        written = [int(number) if is_whole else format_ds(number) if vr == "DS" else number for number in numbers]
        dataset[keyword] = DataElement(keyword, vr, written if count > 1 else written[0])


def _copy_dates(dataset: Dataset, values: Values, shift: timedelta) -> None:
    for date_keyword, time_keyword in DATES.items():
        day, moment = values.date(date_keyword), values.time(time_keyword)
        if day is None:
            continue
        try:
            shifted = day + shift
        except OverflowError:
            values.bad[date_keyword] += 1
            continue
        setattr(dataset, date_keyword, shifted.strftime("%Y%m%d"))
        if moment is not None:
            text = moment.strftime("%H%M%S.%f" if moment.microsecond else "%H%M%S")
            setattr(dataset, time_keyword, text)
    offset = values.text("TimezoneOffsetFromUTC")
    if offset is not None and parse_offset(offset) is not None:
        dataset.TimezoneOffsetFromUTC = offset.strip()


def _copy_rest(dataset: Dataset, values: Values, target: _Target) -> None:
    """Age, maker, frame of reference, window, orientation and unit: each by its own rule."""
    age = values.text("PatientAge")
    years = values.age_years()
    if years is not None:
        is_plain = age is not None and parse_age(age)[1] and years < 90
        dataset.PatientAge = age if is_plain else format_age(years)
        values.bad.pop("PatientAge", None)
    frame = values.text("FrameOfReferenceUID")
    if frame is not None:
        dataset.FrameOfReferenceUID = target.pseudonyms.uid(frame)
    dataset.Manufacturer = terms.manufacturer_of(values.text("Manufacturer") or "") or ""
    letters = (values.text("PatientOrientation") or "").split("\\")
    if len(letters) == 2 and all(0 < len(text) <= 3 and _ORIENTATION_LETTERS.issuperset(text) for text in letters):
        dataset.PatientOrientation = letters
    unit = (values.text("RescaleType") or "").upper()
    if unit in terms.HOUNSFIELD_SPELLINGS:
        dataset.RescaleType = "HU"
    elif unit in terms.RESCALE_TYPES:
        dataset.RescaleType = unit
    elif unit:
        values.bad["RescaleType"] += 1
    _copy_window(dataset, values)


def _copy_window(dataset: Dataset, values: Values) -> None:
    """The first window of several: the explanations that tell them apart are free text."""
    center, width = (values.first_number(keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or abs(center) > 1e6 or not 0 < width <= 1e6:
        return
    dataset.WindowCenter, dataset.WindowWidth = format_ds(center), format_ds(width)


def _complete(dataset: Dataset) -> None:
    """Adds what the SOP class wants present, empty where unknown; and Laterality only where it has a meaning."""
    body_part = dataset.get("BodyPartExamined")
    sop_class = str(dataset.SOPClassUID)
    if sop_class in _DX_CLASSES:
        dataset.AnatomicRegionSequence = region_items(body_part)
    if sop_class in MAMMOGRAPHY_CLASSES:
        state_mammogram(dataset)
    if sop_class in _DX_CLASSES | MAMMOGRAPHY_CLASSES and len(dataset.get("ImageType") or []) == 2:
        dataset.ImageType = [*dataset.ImageType, ""]  # value 3 is there, if only empty (C.8.11.3.1.1)
    is_plane = "ImageOrientationPatient" in dataset
    conditional = _PLANE_TYPE_2 if is_plane else ["PatientOrientation"]
    conditional = [*conditional, *(["RepetitionTime"] if sop_class == uid.MRImageStorage else [])]
    for keyword in [*_GENERAL_TYPE_2, *load_tables().required(sop_class, "2"), *conditional]:
        if keyword not in dataset:
            setattr(dataset, keyword, [] if dictionary_VR(keyword) == "SQ" else None)
    if any(spacing in dataset for spacing in _SPACINGS):
        dataset.pop("PixelAspectRatio", None)  # stands for a spacing that is unknown (C.7.6.3.1.7)
    if "PatientOrientationCodeSequence" in dataset:
        dataset.pop("PatientPosition", None)  # one of the two (C.7.3.1)
    if body_part in terms.UNPAIRED_BODY_PARTS:
        dataset.pop("Laterality", None)
    elif "ImageLaterality" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""


def _set_stored(dataset: Dataset, instance: Instance, raw: Stored, flags: Counter[str]) -> None:
    stored = used_bits(raw, instance.pixel.bits_stored)
    mask = (1 << instance.pixel.bits_stored) - 1
    if not np.array_equal(raw, stored) and not np.array_equal(raw, stored & mask):
        flags["overlay-bits-cleared"] += 1  # neither zero nor the sign: an overlay of before 2004 (PS3.5 8.1.2)
        raw = stored
    set_pixels(dataset, raw, bits_stored=instance.pixel.bits_stored, photometric=instance.photometric)
    syntax = uid.UID(instance.transfer_syntax)
    is_lossy = syntax in (uid.JPEG2000, uid.HTJ2K) and dataset.get("LossyImageCompression") != "00"
    if is_lossy or syntax in _LOSSY_SYNTAXES:
        dataset.LossyImageCompression = "01"
