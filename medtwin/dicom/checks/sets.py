"""What the objects of one patient, study or series must share, and how the slices of a series must lie.

Source: DICOM PS3.3-2023, A.1.2 (information entities): an attribute of an entity has one value in all its objects.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from medtwin.core.findings import Finding, Severity
from medtwin.dicom.checks.collect import text_of
from medtwin.dicom.values import Values

_PATIENT = ("PatientName", "PatientBirthDate", "PatientSex")
_STUDY = (
    *("PatientID", "IssuerOfPatientID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyDescription", "PatientAge"),
)
_SERIES = (
    *("StudyInstanceUID", "Modality", "SeriesNumber", "SeriesDate", "SeriesTime", "SeriesDescription"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality"),
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ProtocolName"),
)
_STACK = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
"""A series may vary these by the standard (a scout among slices); then it is no volume."""

_ENTITIES: tuple[tuple[str, str, tuple[str, ...], Severity], ...] = (
    ("patient", "PatientID", _PATIENT, "error"),
    ("study", "StudyInstanceUID", _STUDY, "error"),
    ("series", "SeriesInstanceUID", _SERIES, "error"),
    ("series", "SeriesInstanceUID", _STACK, "warning"),
)
_MAX_STEP_DIFFERENCE = 0.01
"""Distances of slices that differ by more of the largest one are uneven."""


@dataclass
class _Stack:
    """Positions of the slices of a series along their normal, in mm."""

    where: str
    orientation: tuple[float, ...]
    positions: list[tuple[float, ...]] = field(default_factory=list)


class Book:
    """Learns datasets one by one, and keeps of each only what others are compared with."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], dict[str, str]] = {}
        self._differing: Counter[tuple[str, str, str, Severity]] = Counter()
        self._first: dict[tuple[str, str, str, Severity], str] = {}
        self._instances: set[str] = set()
        self._twice: list[str] = []
        self._stacks: dict[str, _Stack] = {}

    def learn(self, dataset: Dataset, where: str) -> None:
        """Compares a dataset with those before it."""
        for kind, key, keywords, severity in _ENTITIES:
            name = text_of(dataset, key)
            if not name:
                continue
            known = self._seen.setdefault((kind, name), {})
            for keyword in keywords:
                value = text_of(dataset, keyword)
                if known.setdefault(keyword, value) != value:
                    place = (kind, name, keyword, severity)
                    self._differing[place] += 1
                    self._first.setdefault(place, where)
        instance = text_of(dataset, "SOPInstanceUID")
        if instance in self._instances:
            self._twice.append(where)
        self._instances.add(instance)
        self._learn_position(dataset, where)

    def _learn_position(self, dataset: Dataset, where: str) -> None:
        values = Values(dataset)
        orientation = values.numbers("ImageOrientationPatient", 6)
        position = values.numbers("ImagePositionPatient", 3)
        if orientation is None or position is None:
            return
        series = text_of(dataset, "SeriesInstanceUID")
        stack = self._stacks.setdefault(series, _Stack(where, orientation))
        if np.allclose(stack.orientation, orientation, atol=1e-3):
            stack.positions.append(position)

    def findings(self) -> list[Finding]:
        """What the datasets learned so far break together."""
        found = []
        for place, count in self._differing.items():
            kind, _, keyword, severity = place
            message = f"{keyword} must be the same in every object of a {kind}"
            found.append(Finding(f"{kind}-consistency", message, severity, self._first[place], count))
        if self._twice:
            message = "SOPInstanceUID must be unique"
            found.append(Finding("duplicate-instance", message, "error", self._twice[0], len(self._twice)))
        return found + [self._uneven(stack) for stack in self._stacks.values() if not _is_even(stack)]

    @staticmethod
    def _uneven(stack: _Stack) -> Finding:
        message = "ImagePositionPatient must lie at equal distances along the normal for the series to be a volume"
        return Finding("slice-positions", message, "warning", stack.where)


def _is_even(stack: _Stack) -> bool:
    if len(stack.positions) < 2:
        return True
    normal = np.cross(stack.orientation[:3], stack.orientation[3:])
    steps = np.diff(np.sort(np.array(stack.positions, dtype=np.float64) @ normal))
    return bool(steps.min() > 0 and steps.max() - steps.min() <= _MAX_STEP_DIFFERENCE * steps.max())
