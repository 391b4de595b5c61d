"""Image orders, and their pictures: one person keeps one anatomy, drawn from (seed, person), whatever the disease."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import numpy as np

from medtwin.core.seeds import generator
from medtwin.hospital import codes
from medtwin.hospital.anatomy import Anatomy, draw_anatomy

Modality = Literal["CR", "CT"]
View = Literal["PA", "AP"]
_SEX = {"M": "male", "F": "female"}
NUM_IMAGES: dict[Modality, int] = {"CR": 1, "CT": 3}
"""Images of a series."""

# From where on a finding counts as present. Cardiomegaly: CTR above 0.50 (Danzer 1919, Am J Med Sci 157:513).
CARDIOMEGALY_ABOVE = 0.50
PRESENT_ABOVE = 0.10  # of congestion and effusion, on scales of 0 to 1: choice


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """One series that the hospital makes, with the truth at that time.

    Attributes:
        index: Number of the person in the hospital.
        study_uid: DICOM UID; `text_value` of `FHIR//ImagingStudy.studyInstanceUID`.
        view: PA or AP of a radiograph; None of a CT.
        heart_failure: Severity, 0 to 1.
        labels: Findings that are truly present, `SNOMED//code`, sorted; empty: none.
    """

    index: int
    subject_id: int
    time: datetime
    modality: Modality
    view: View | None
    study_uid: str
    series_uid: str
    sex: Literal["M", "F"]
    age_years: float
    bmi: float
    heart_failure: float
    copd: bool
    pneumonia: bool
    labels: tuple[str, ...] = ()


def image_uid(seed: int, subject_id: int, *purpose: str | int) -> str:
    """A DICOM UID under 2.25 from 128 bits of SHA-256.

    >>> image_uid(1, 100000, "study", 0) == image_uid(1, 100000, "study", 0)
    True
    """
    text = "\x1f".join(map(str, ("medtwin-hospital", seed, subject_id, *purpose)))
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def anatomy_of(order: ImageOrder, seed: int) -> Anatomy:
    """The chest that an order looks at; the person's build is the same in every order."""
    return draw_anatomy(
        generator(seed, "anatomy", order.index),
        sex=_SEX[order.sex],
        age_years=order.age_years,
        bmi=order.bmi,
        heart_failure=order.heart_failure,
        copd=order.copd,
        pneumonia=order.pneumonia,
    )


def findings_of(anatomy: Anatomy) -> tuple[str, ...]:
    """The findings that are present in an anatomy, `SNOMED//code`, sorted."""
    present = {
        codes.CARDIOMEGALY: anatomy.heart_ratio > CARDIOMEGALY_ABOVE,
        codes.PULMONARY_EDEMA: anatomy.congestion > PRESENT_ABOVE,
        codes.PLEURAL_EFFUSION: anatomy.effusion > PRESENT_ABOVE,
        codes.CONSOLIDATION: bool(anatomy.opacities),
        codes.EMPHYSEMA: anatomy.hyperinflation > 0.0,
    }
    return tuple(sorted(code for code, is_present in present.items() if is_present))


def with_labels(order: ImageOrder, seed: int) -> ImageOrder:
    """The order, with the findings of its anatomy."""
    return replace(order, labels=findings_of(anatomy_of(order, seed)))


def noise_of(order: ImageOrder, seed: int) -> np.random.Generator:
    """The generator of the positioning and noise of one series."""
    return generator(seed, "noise", order.series_uid)
