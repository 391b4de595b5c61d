"""What segmentations and reports have in common: they are made from the images of a series and belong to its study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom.values import Values
from medtwin.dicom.writing.encode import file_dataset
from medtwin.dicom.writing.study import Origin, mark_synthetic

SCHEMES = {"SNOMED": "SCT", "LOINC": "LN", "ICD10CM": "I10C", "ICD10": "I10", "ICD9CM": "I9C", "DCM": "DCM"}
"""Our name of a code system to its Coding Scheme Designator (PS3.16 section 8); any other becomes private: 99 first."""

_OF_THE_STUDY = (
    *("IssuerOfPatientID", "TimezoneOffsetFromUTC", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified"),
)
"""What highdicom may not carry over from the images."""

_DATES = ("StudyDate", "StudyTime", "ContentDate", "ContentTime", "PatientBirthDate")
_MAX_SH, _MAX_LO = 16, 64


@dataclass(frozen=True)
class Maker:
    """What made an object from images.

    Attributes:
        model: Name of the software or model. software_version: Of it.
        origin: Of what is written about synthetic images: as `Study.origin`. Objects about real images are not marked.
        series_number: Of the new series; not one of the images.
        description: SeriesDescription, after SYNTHETIC where the images are.
        time: When the content was made, where the images have no date: ContentDate may not be empty.
    """

    model: str = "medtwin"
    software_version: str = "0"
    origin: Origin = "synthetic"
    series_number: int = 100
    description: str = ""
    time: datetime | None = None

    def __post_init__(self) -> None:
        if not self.model or not self.software_version:
            raise ValueError("model and software_version must not be empty")
        if not all(map(_is_plain, (self.model, self.software_version, self.description))):
            raise ValueError("model, software_version and description must have no backslash and no control character")
        if self.series_number < 1:
            raise ValueError(f"series_number must be 1 or more, got {self.series_number}")


def check_sources(sources: Sequence[Dataset]) -> None:
    """Refuses what is not the images of one series.

    Raises:
        ValueError: If there are none, or they are of several series, or one is there twice.
    """
    if not sources:
        raise ValueError("sources must be the images of a series, got none")
    if len({source.get("SeriesInstanceUID") for source in sources}) > 1:
        raise ValueError("sources must be of one series")
    if len({source.get("SOPInstanceUID") for source in sources}) != len(sources):
        raise ValueError("sources must be different images")


def content_time(source: Dataset, maker: Maker) -> tuple[str, str]:
    """ContentDate and ContentTime: those of the image or its study, else `maker.time`; never the clock.

    Raises:
        ValueError: If neither has a date.
    """
    values = Values(source)
    for name in ("Content", "Series", "Study"):
        day, moment = values.date(f"{name}Date"), values.time(f"{name}Time")
        if day is not None:
            return day.strftime("%Y%m%d"), moment.strftime("%H%M%S") if moment else "000000"
    if maker.time is None:
        raise ValueError("the images have no date: give maker.time, since ContentDate may not be empty")
    time = maker.time if maker.time.tzinfo is None else maker.time.astimezone(UTC)
    return time.strftime("%Y%m%d"), time.strftime("%H%M%S")


def finish(made: Dataset, source: Dataset, maker: Maker) -> FileDataset:
    """The object ready for `write_series`: what it shares with the images, its mark, and nothing of clock or chance."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        made.pop(keyword, None)
    for keyword in _DATES:
        if keyword in made:
            setattr(made, keyword, str(made[keyword].value or ""))  # highdicom's types are not equal to their text
    for keyword in _OF_THE_STUDY:
        if keyword in source:
            made[keyword] = source[keyword]
    if source.get("SyntheticData") == "YES":
        mark_synthetic(made, maker.origin, maker.model, maker.software_version, maker.description)
    else:
        made.Manufacturer, made.ManufacturerModelName = "medtwin", maker.model[:_MAX_LO]
        made.SoftwareVersions = maker.software_version[:_MAX_LO]
        made.SeriesDescription = maker.description[:_MAX_LO]
    return file_dataset(made)


def code_of(code: str, meaning: str | None = None) -> Code:
    """A code `SYSTEM//code` as DICOM names it.

    Args:
        code: As in the event table and in image labels.
        meaning: Its words, cut after 64 characters. Where there are none, or CodeMeaning cannot hold them (backslashes,
            control characters), the code stands for itself.

    Raises:
        ValueError: If it has no system or no code, or one that no attribute can hold.

    >>> code_of("SNOMED//233604007", "Pneumonia")
    Code(value='233604007', scheme_designator='SCT', meaning='Pneumonia', scheme_version=None)
    """
    system, separator, value = code.partition("//")
    if not (system and separator and value.strip() and _is_plain(value)):
        raise ValueError("a code must have the form SYSTEM//code, without backslash and control characters")
    words = meaning.strip() if meaning and _is_plain(meaning) else ""
    private = "99" + "".join(each for each in system.upper() if each.isascii() and each.isalnum())
    return Code(value, SCHEMES.get(system, private[:_MAX_SH]), (words or value)[:_MAX_LO].strip())


def _is_plain(text: str) -> bool:
    """Whether LO and SH can hold it: a backslash parts values (PS3.5 6.2)."""
    return "\\" not in text and not any(ord(each) < 32 or ord(each) == 127 for each in text)
