"""Rules of structured reports: each content item has what its value type needs, and evidence lists what it refers to.

Source: DICOM PS3.3-2023, C.17.3 (content), C.17.2.3 and C.17.2.4 (evidence).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from medtwin.dicom.checks.attributes import is_empty
from medtwin.dicom.checks.collect import Collector, items_of, text_of

_NEEDS: dict[str, tuple[str, ...]] = {
    "TEXT": ("TextValue",),
    "CODE": ("ConceptCodeSequence",),
    "DATETIME": ("DateTime",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "UIDREF": ("UID",),
    "PNAME": ("PersonName",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "IMAGE": ("ReferencedSOPSequence",),
    "WAVEFORM": ("ReferencedSOPSequence",),
    "CONTAINER": ("ContinuityOfContent",),
    "SCOORD": ("GraphicType", "GraphicData"),
    "SCOORD3D": ("GraphicType", "GraphicData", "ReferencedFrameOfReferenceUID"),
    "TCOORD": ("TemporalRangeType",),
}
_MAY_LACK_NAME = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM", "SCOORD", "TCOORD", "CONTAINER"})
"""ConceptNameCodeSequence may be absent here; a container needs one where it is a heading (C.17.3.2.4)."""

_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


def check_report(dataset: Dataset, found: Collector) -> None:
    """Adds findings on the content tree and the evidence of a structured report."""
    if text_of(dataset, "ValueType") not in ("", "CONTAINER"):
        found.add("content", "ValueType of the root must be CONTAINER")
    if not items_of(dataset, "ConceptNameCodeSequence"):
        found.add("content", "ConceptNameCodeSequence must be present with a value: the title of the document")
    if text_of(dataset, "VerificationFlag") == "VERIFIED" and not items_of(dataset, "VerifyingObserverSequence"):
        found.add("type-1c", "VerifyingObserverSequence must be present with a value in a verified document")
    listed = {
        text_of(instance, "ReferencedSOPInstanceUID")
        for keyword in _EVIDENCE
        for study in items_of(dataset, keyword)
        for series in items_of(study, "ReferencedSeriesSequence")
        for instance in items_of(series, "ReferencedSOPSequence")
    }
    for item in _content(dataset):
        _check_content(item, found)
        for reference in items_of(item, "ReferencedSOPSequence"):
            if text_of(reference, "ReferencedSOPInstanceUID") not in listed:
                found.add("evidence", f"{_EVIDENCE[0]} or {_EVIDENCE[1]} must list each instance of the content")


def _content(item: Dataset) -> Iterator[Dataset]:
    for child in items_of(item, "ContentSequence"):
        yield child
        yield from _content(child)


def _check_content(item: Dataset, found: Collector) -> None:
    if "ReferencedContentItemIdentifier" in item:
        return
    kind = text_of(item, "ValueType")
    if not kind or not text_of(item, "RelationshipType"):
        found.add("content", "ContentSequence items must have ValueType and RelationshipType")
    for keyword in _NEEDS.get(kind, ()):
        if keyword not in item or is_empty(item, keyword):
            found.add("content", f"{keyword} must be present with a value in content of type {kind}")
    if kind not in _MAY_LACK_NAME and not items_of(item, "ConceptNameCodeSequence"):
        found.add("content", "ConceptNameCodeSequence must be present with a value")
    if kind == "NUM":
        _check_measurement(item, found)


def _check_measurement(item: Dataset, found: Collector) -> None:
    if "MeasuredValueSequence" not in item:
        found.add("content", "MeasuredValueSequence must be present, empty if unknown")
    for value in items_of(item, "MeasuredValueSequence"):
        if not items_of(value, "MeasurementUnitsCodeSequence"):
            found.add("content", "MeasurementUnitsCodeSequence must be present with a value")
        if not text_of(value, "NumericValue"):
            found.add("content", "NumericValue must be present with a value")
