"""What single-frame classes want to hear in their own words: of a frame of an enhanced image, and of mammography.

DICOM PS3.3-2023. An enhanced MR image says by a dozen attributes (C.8.13.4) what the single-frame class says by
ScanningSequence and SequenceVariant (C.8.3.1.1.2 and .3); the standard has no table between them, but each value of the
latter is defined by what the former state.
"""

from __future__ import annotations

import pydicom.uid as uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from medtwin.dicom.values import Values
from medtwin.dicom.writing.encode import code_item

MAMMOGRAPHY_CLASSES = frozenset(
    {
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
    }
)

_BREAST = Code("76752008", "SCT", "Breast")
_MAMMOGRAPHY_VIEWS = {
    "CC": Code("399162004", "SCT", "cranio-caudal"),
    "FB": Code("399196006", "SCT", "caudo-cranial"),
    "ISO": Code("441555000", "SCT", "inferomedial to superolateral oblique"),
    "LM": Code("399352003", "SCT", "latero-medial"),
    "LMO": Code("399099002", "SCT", "latero-medial oblique"),
    "ML": Code("399260004", "SCT", "medio-lateral"),
    "MLO": Code("399368009", "SCT", "medio-lateral oblique"),
    "SIO": Code("399188001", "SCT", "superolateral to inferomedial oblique"),
    "XCCL": Code("399192008", "SCT", "cranio-caudal exaggerated laterally"),
    "XCCM": Code("399101009", "SCT", "cranio-caudal exaggerated medially"),
}
"""ViewPosition to ViewCodeSequence (PS3.16-2023 CID 4014)."""

_ECHO_SEQUENCES = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}
_STEADY_STATES = {"FREE_PRECESSION": "SS", "TRANSVERSE": "SS", "LONGITUDINAL": "SS", "TIME_REVERSED": "TRSS"}
_THIRD_VALUES: dict[str, tuple[frozenset[str], str]] = {
    uid.CTImageStorage: (frozenset({"AXIAL", "LOCALIZER"}), "AXIAL"),
    uid.MRImageStorage: (frozenset({"MPR", "OTHER"}), "OTHER"),
}
"""What value 3 of ImageType may be, and what stands for the values of the enhanced classes, which the class lacks."""


def state_classic(dataset: Dataset, values: Values) -> None:
    """Adds what the single-frame class requires and a frame of an enhanced image states in other words.

    Args:
        dataset: The single-frame image in the making, with SOPClassUID and ImageType; is changed.
        values: Of `frame_dataset`.
    """
    allowed, other = _THIRD_VALUES.get(str(dataset.SOPClassUID), (frozenset(), ""))
    kept = [str(value) for value in dataset.get("ImageType") or []][:2]
    if other and len(kept) == 2:
        stated = (values.text("ImageType") or "").upper().split("\\")[2:3]
        dataset.ImageType = [*kept, stated[0] if stated and stated[0] in allowed else other]
        values.bad.pop("ImageType", None)
    if str(dataset.SOPClassUID) == uid.MRImageStorage:
        _state_sequence(dataset, values)


def _state_sequence(dataset: Dataset, values: Values) -> None:
    scanning = list(_ECHO_SEQUENCES.get(_said(values, "EchoPulseSequence"), []))
    if _said(values, "InversionRecovery") == "YES":
        scanning.append("IR")
    if _said(values, "EchoPlanarPulseSequence") == "YES":
        scanning.append("EP")
    if scanning and "ScanningSequence" not in dataset:
        dataset.ScanningSequence = scanning
    variant = [
        *(["SK"] if _said(values, "SegmentedKSpaceTraversal") in ("PARTIAL", "FULL") else []),
        *(["MTC"] if _said(values, "MagnetizationTransfer") in ("ON_RESONANCE", "OFF_RESONANCE") else []),
        *([_STEADY_STATES[state]] if (state := _said(values, "SteadyStatePulseSequence")) in _STEADY_STATES else []),
        *(["SP"] if _said(values, "Spoiling") in ("RF", "GRADIENT", "RF_AND_GRADIENT") else []),
        *(["OSP"] if _said(values, "OversamplingPhase") in ("2D", "3D", "2D_3D") else []),
    ]
    # NONE only where the object speaks of its pulse sequence at all.
    if (variant or scanning) and "SequenceVariant" not in dataset:
        dataset.SequenceVariant = variant or ["NONE"]


def state_mammogram(dataset: Dataset) -> None:
    """Adds what a mammogram says by code or by nature: the breast, and its view (C.8.11.7).

    Args:
        dataset: With ViewPosition, where the view is known; is changed.
    """
    dataset.OrganExposed = "BREAST"
    dataset.AnatomicRegionSequence = [code_item(_BREAST)]
    view = _MAMMOGRAPHY_VIEWS.get(str(dataset.get("ViewPosition", "")))
    if view is not None:
        item = code_item(view)
        item.ViewModifierCodeSequence = []
        dataset.ViewCodeSequence = [item]


def _said(values: Values, keyword: str) -> str:
    return (values.text(keyword) or "").upper()
