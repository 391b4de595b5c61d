"""DICOM structured reports (PS3.16 TID 1500): what is on the images of a series, as codes and numbers, by highdicom."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom import terms
from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.derived import Maker, check_sources, code_of, content_time, finish

if TYPE_CHECKING:
    import highdicom as hd

if TYPE_CHECKING:
    pass

_PROCEDURES = {
    "CT": Code("77477000", "SCT", "Computed tomography"),
    "CR": Code("168537006", "SCT", "Plain radiography"),
    "DX": Code("168537006", "SCT", "Plain radiography"),
    "MG": Code("71651007", "SCT", "Mammography"),
    "MR": Code("MR", "DCM", "Magnetic resonance"),
    "PT": Code("PT", "DCM", "Positron emission tomography"),
}
"""What was reported on, by modality (CID 100, CID 29)."""

_IMAGING = Code("363679005", "SCT", "Imaging")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_LANGUAGE = Code("en", "RFC5646", "English")
_DEVICE = Code("121007", "DCM", "Device")
_FINDING = Code("404684003", "SCT", "Clinical finding")
_PRESENCE = Code("121052", "DCM", "Presence of property")
_PRESENT = Code("52101004", "SCT", "Present")
_ABSENT = Code("272519000", "SCT", "Absent")


@dataclass(frozen=True)
class Measurement:
    """A number that was measured on the images.

    Attributes:
        name: What was measured. value: Finite. unit: A UCUM code, such as `Code("mm", "UCUM", "millimeter")`.
    """

    name: Code
    value: float
    unit: Code

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value must be finite, got {self.value!r}")


def labels_to_report(
    sources: Sequence[Dataset],
    labels: Sequence[str] | None,
    measurements: Sequence[Measurement] = (),
    meanings: Mapping[str, str] | None = None,
    maker: Maker | None = None,
) -> FileDataset:
    """An imaging measurement report (TID 1500) as Comprehensive SR Storage; equal input gives equal bytes.

    A group for each label says that the finding is present, with the images it is seen on; no label at all says that
    a clinical finding is absent. Measurements stand in a group of their own. The document is complete, preliminary and
    not verified: no person signed it. UIDs depend on the series and on what is said.

    Args:
        sources: The images, all of one series; pixels are not needed.
        labels: Findings `SYSTEM//code`, as in `images.parquet`; empty: none were found; None: not looked for.
        measurements: Numbers.
        meanings: Words for the codes; a code without them stands for itself.
        maker: What made the labels; None: medtwin.

    Raises:
        ValueError: If there is nothing to report, a label is no code, or the images are of several series or undated
            with no `maker.time`.
    """
    import highdicom as hd  # slow to import

    maker = maker or Maker()
    check_sources(sources)
    if labels is None and not measurements:
        raise ValueError("labels must be given, or measurements: there is nothing to report")
    words = meanings or {}
    codes = [code_of(label, words.get(label)) for label in sorted(set(labels or ()))]
    day, clock = content_time(sources[0], maker)
    digest = hashlib.sha256(repr((codes, labels is None, tuple(measurements))).encode()).hexdigest()
    series_uid = synthetic_uid(str(sources[0].SeriesInstanceUID), "report", digest)
    with quiet():
        content = hd.sr.MeasurementReport(
            observation_context=_observer(maker),
            procedure_reported=_PROCEDURES.get(str(sources[0].get("Modality")), _IMAGING),
            imaging_measurements=_groups(sources, None if labels is None else codes, measurements, series_uid),
            title=_TITLE,
            language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
                hd.sr.CodedConcept.from_code(_LANGUAGE)
            ),
        )
        made = hd.sr.ComprehensiveSR(
            evidence=list(sources),
            content=content[0],
            series_instance_uid=series_uid,
            series_number=maker.series_number,
            sop_instance_uid=synthetic_uid(series_uid, 0),
            instance_number=1,
            manufacturer="medtwin",
            is_complete=True,
            content_date=day,
            content_time=clock,
        )
        return finish(made, sources[0], maker)


def _observer(maker: Maker) -> hd.sr.ObservationContext:
    import highdicom as hd

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=synthetic_uid("medtwin", "observer", maker.model, maker.software_version),
        name=maker.model[:64],
        manufacturer_name="medtwin",
        model_name=maker.model[:64],
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(hd.sr.CodedConcept.from_code(_DEVICE), device)
    )


def _groups(
    sources: Sequence[Dataset],
    codes: Sequence[Code] | None,
    measurements: Sequence[Measurement],
    series_uid: str,
) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """TID 1501: a group per finding, one for none at all, and one for the numbers."""
    import highdicom as hd

    images = [
        hd.sr.SourceImageForMeasurementGroup(str(source.SOPClassUID), str(source.SOPInstanceUID)) for source in sources
    ]
    sites = _sites(sources[0])

    def group(number: int, name: str, **said: Any) -> hd.sr.MeasurementsAndQualitativeEvaluations:
        tracking = hd.sr.TrackingIdentifier(uid=synthetic_uid(series_uid, "group", number), identifier=name)
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking, source_images=images, finding_sites=sites, **said
        )

    present, absent = (hd.sr.QualitativeEvaluation(_PRESENCE, each) for each in (_PRESENT, _ABSENT))
    made = []
    for number, code in enumerate(codes or ()):
        made.append(group(number, f"finding {number + 1}", finding_type=code, qualitative_evaluations=[present]))
    if codes is not None and not codes:
        made.append(group(0, "no finding", finding_type=_FINDING, qualitative_evaluations=[absent]))
    if measurements:
        numbers = [hd.sr.Measurement(name=each.name, value=each.value, unit=each.unit) for each in measurements]
        made.append(group(len(made), "measurements", measurements=numbers))
    return made


def _sites(source: Dataset) -> list[hd.sr.FindingSite] | None:
    """Where: the body part of the series, if it has a code."""
    import highdicom as hd

    region = terms.ANATOMIC_REGIONS.get(str(source.get("BodyPartExamined")))
    return None if region is None else [hd.sr.FindingSite(Code(region[0], "SCT", region[1]))]
