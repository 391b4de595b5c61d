"""Who an image is of and what it belongs to: the modules that every image has, and the mark of what is synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

import pydicom.uid as uid
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from medtwin.core.pseudonyms import SUBJECT_SYSTEM
from medtwin.dicom import terms
from medtwin.dicom.values import format_age
from medtwin.dicom.writing.encode import code_item

Origin = Literal["synthetic", "simulated", "real"]

_SYNTHESIZING = Code("109100", "DCM", "Synthesizing Equipment")
_DERIVATION = {
    "synthetic": "Sampled from a generative model; no patient was imaged",
    "simulated": "Computed from a phantom; no patient was imaged",
    "real": "Wrapped from an image file without a DICOM header",
}
_MAX_LO, _MAX_SH = 64, 16


@dataclass(frozen=True)
class Patient:
    """Who the image is of; the same identity as the FHIR Patient.

    Attributes:
        patient_id: Patient.identifier of type MR.
        name: PN form, `Family^Given`; None: `Subject^<patient_id>`.
        sex: M, F, O or None. age_years: At imaging; written as 90 if it is more.
        issuer: Who gave the number, `system` of that identifier; None: not said.
    """

    patient_id: str
    name: str | None = None
    sex: str | None = None
    birth_date: date | None = None
    age_years: float | None = None
    issuer: str | None = SUBJECT_SYSTEM

    def __post_init__(self) -> None:
        _check_text("patient_id", self.patient_id, _MAX_LO)
        if not self.patient_id.strip():
            raise ValueError("patient_id must have 1 to 64 characters, not all of them spaces")
        if self.issuer is not None:
            _check_text("issuer", self.issuer, _MAX_LO)
        if self.name is not None:
            _check_name(self.name)
        if self.sex not in (None, "M", "F", "O"):
            raise ValueError(f"sex must be M, F, O or None, got {self.sex!r}")


@dataclass(frozen=True)
class Study:
    """The series that an image belongs to, and what made it.

    Attributes:
        study_uid: The same as in the FHIR ImagingStudy. series_uid: From `synthetic_uid(run, subject, series)`.
        time: Aware: an instant, written in UTC with its offset; naive: floating; at midnight: a date; None: unknown.
        origin: Of the pixels; `real` are images that came without a DICOM header.
        model: Name of what made the pixels; not written for `real`.
        body_part: A term of `terms.BODY_PARTS` or None. description: Follows SYNTHETIC in SeriesDescription.
        accession_number: At most 16 characters, as `core.images.accession_number` gives it; empty: none.
    """

    study_uid: str
    series_uid: str
    origin: Origin
    time: datetime | None = None
    model: str = "medtwin"
    body_part: str | None = None
    description: str = ""
    series_number: int = 1
    accession_number: str = ""
    software_version: str = "0"

    def __post_init__(self) -> None:
        if self.origin not in _DERIVATION:
            raise ValueError(f"origin must be one of {', '.join(_DERIVATION)}, got {self.origin!r}")
        if self.body_part is not None and self.body_part not in terms.BODY_PARTS:
            raise ValueError(f"body_part must be a term of terms.BODY_PARTS, got {self.body_part!r}")
        for name in ("study_uid", "series_uid"):
            if not uid.UID(getattr(self, name), validation_mode=config.IGNORE).is_valid:
                raise ValueError(f"{name} must be a UID: numbers and dots, at most 64 characters")
        _check_text("accession_number", self.accession_number, _MAX_SH)
        for name in ("model", "description", "software_version"):
            _check_text(name, getattr(self, name))


def study_dataset(sop_class: uid.UID, modality: str, patient: Patient, study: Study) -> Dataset:
    """Modules Patient, General Study, General Series, General Equipment, General Image and SOP Common."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = modality
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.study_uid, study.series_uid
    dataset.StudyID, dataset.SeriesNumber = "1", study.series_number
    dataset.AccessionNumber, dataset.ReferringPhysicianName = study.accession_number, ""
    _set_time(dataset, study.time)
    _set_patient(dataset, patient)
    if study.body_part is not None or modality == "CR":
        dataset.BodyPartExamined = study.body_part or ""
    dataset.DerivationDescription = _DERIVATION[study.origin]
    if study.origin == "real":
        dataset.Manufacturer = ""
        dataset.SeriesDescription = study.description[:_MAX_LO]
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "medtwin: no header was carried over"
    else:
        mark_synthetic(dataset, study.origin, study.model, study.software_version, study.description)
    return dataset


def mark_synthetic(dataset: Dataset, origin: Origin, model: str, software_version: str, description: str) -> None:
    """Says in every way that old and new software reads that no patient was imaged (PS3.3 C.12.1, DESIGN section 6).

    Args:
        dataset: Is changed: SyntheticData, ContentQualification, the maker, SeriesDescription, the equipment.
        origin: `synthetic` or `simulated`.
        model: What made the content.
        software_version: Of it.
        description: Follows SYNTHETIC in SeriesDescription.
    """
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.Manufacturer, dataset.ManufacturerModelName = "medtwin", model[:_MAX_LO]
    dataset.SoftwareVersions = software_version[:_MAX_LO]
    dataset.SeriesDescription = f"SYNTHETIC {description}".strip()[:_MAX_LO]
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code_item(_SYNTHESIZING)]
    equipment.Manufacturer, equipment.ManufacturerModelName = "medtwin", model[:_MAX_LO]
    equipment.SoftwareVersions = software_version[:_MAX_LO]
    equipment.ContributionDescription = f"{origin} image, not for clinical use"
    dataset.ContributingEquipmentSequence = [equipment]


def set_laterality(dataset: Dataset, laterality: str | None) -> None:
    """Laterality (2C): empty if unknown, absent for a body part of which there is one.

    Raises:
        ValueError: If there is one and it has a side.
    """
    if dataset.get("BodyPartExamined") in terms.UNPAIRED_BODY_PARTS:
        if laterality is not None:
            raise ValueError("laterality must be None for an unpaired body part")
        return
    dataset.Laterality = laterality or ""


def _set_patient(dataset: Dataset, patient: Patient) -> None:
    dataset.PatientID = patient.patient_id
    if patient.issuer:
        dataset.IssuerOfPatientID = patient.issuer
    dataset.PatientName = patient.name or f"Subject^{patient.patient_id}"[:_MAX_LO]
    # Years before 1000 need their zeros, which strftime leaves out.
    dataset.PatientBirthDate = patient.birth_date.isoformat().replace("-", "") if patient.birth_date else ""
    dataset.PatientSex = patient.sex or ""
    if patient.age_years is not None:
        dataset.PatientAge = format_age(patient.age_years)


def _set_time(dataset: Dataset, time: datetime | None) -> None:
    if time is not None and time.tzinfo is not None:
        time = time.astimezone(UTC)
        dataset.TimezoneOffsetFromUTC = "+0000"
    is_date = time is None or (time.tzinfo is None and time.time() == datetime.min.time())
    day = time.date().isoformat().replace("-", "") if time else ""
    clock = "" if time is None or is_date else time.strftime("%H%M%S.%f" if time.microsecond else "%H%M%S")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = clock


def _check_text(name: str, text: str, longest: int | None = None) -> None:
    """What LO and SH take: no backslash, which parts values, and no control character (PS3.5 6.2)."""
    if (longest is not None and len(text) > longest) or "\\" in text or any(ord(c) < 32 or ord(c) == 127 for c in text):
        limit = "" if longest is None else f" at most {longest} characters,"
        raise ValueError(f"{name} must have{limit} no backslash and no control character")


def _check_name(name: str) -> None:
    groups = name.split("=")
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        raise ValueError("name must have at most 3 groups of 64 characters and 5 components (PS3.5 6.2, PN)")
    _check_text("name", name)
