"""What of a FHIR resource becomes rows: one table per resource type, which the reader and the writer both walk.

A path names FHIR elements; `*` marks those that repeat: `dosageInstruction*.route`. See docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from medtwin.fhir.terms import VIEWS, words


class Kind(Enum):
    """How the value of an element stands in its child row."""

    CONCEPT = "CodeableConcept: `//SYSTEM//code` after the path"
    CODING = "Coding: the same"
    CODE = "code: text_value"
    BOOLEAN = "boolean: `true` or `false` in text_value"
    INTEGER = "whole number: numeric_value"
    QUANTITY = "SimpleQuantity: numeric_value and unit"
    TIMED = "number whose unit of time stands in the neighbouring element `<name>Unit`: numeric_value and unit"
    REFERENCE = "reference to another event: its id in text_value"
    DATE = "date or dateTime: in text_value, moved like every date of the subject"
    UID = "DICOM UID: its pseudonym in text_value"
    STUDY_UID = "identifier with the Study Instance UID: its pseudonym in text_value"


@dataclass(frozen=True)
class Element:
    """One element that becomes child rows.

    Attributes:
        path: Path below the resource, `*` after names that repeat.
        words: The values that a CODE may have; empty: any.
        row: Path in the row's code, where it is not that of the element.
        targets: Resource types that a REFERENCE may have.
    """

    path: str
    kind: Kind
    words: frozenset[str] = frozenset()
    row: str = ""
    targets: frozenset[str] = frozenset()

    @cached_property
    def steps(self) -> tuple[tuple[str, bool], ...]:
        """The names on the path, and whether each repeats."""
        return tuple((step.rstrip("*"), step.endswith("*")) for step in self.path.split("."))

    @property
    def row_path(self) -> str:
        """The path in the code of a child row, without indices."""
        return self.row or self.path.replace("*", "")


@dataclass(frozen=True)
class ResourceTable:
    """How one resource type becomes an event and its child rows.

    Attributes:
        code: Element that names what happened; `medication`, `modality` and `type*` have rules of their own (read.py).
        times: Elements that date it, the best first. `@encounter-end` and `@encounter-start` borrow the encounter's.
        end: Element of the end, where it is not that of the period.
        status_system: Code system of a status that is a CodeableConcept.
        statuses: The required value set of the status.
        negated: The statuses that say that it did not happen, the plainest first.
        required: What R4 requires although no row may say it: path and the least that can be said.
        needs: Structures that say nothing without one of their elements: path and element.
        undated: What R4 requires of one without a time.
        may_be_undated: Whether it stands as a static fact when nothing dates it.
    """

    name: str
    elements: tuple[Element, ...]
    code: str = "code"
    times: tuple[str, ...] = ()
    end: str | None = None
    subject: str = "subject"
    encounter: str | None = "encounter"
    status: str = "status"
    status_system: str | None = None
    statuses: frozenset[str] = frozenset()
    negated: tuple[str, ...] = ()
    required: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    undated: dict[str, Any] = field(default_factory=dict)
    may_be_undated: bool = False

    @cached_property
    def by_row(self) -> dict[str, Element]:
        """The elements by their path in a row's code."""
        return {element.row_path: element for element in self.elements}

    @cached_property
    def tree(self) -> Node:
        """The elements as a tree of names."""
        return build_tree(self.elements)


@dataclass(slots=True)
class Node:
    """A name in a tree of elements.

    Attributes:
        element: Its element, if it is a leaf.
        is_read_along: Whether its neighbour reads it: the unit of a TIMED element.
    """

    repeats: bool = False
    element: Element | None = None
    is_read_along: bool = False
    children: dict[str, Node] = field(default_factory=dict)


def build_tree(elements: tuple[Element, ...]) -> Node:
    """The elements as a tree of names."""
    root = Node()
    for element in elements:
        holder = node = root
        name = ""
        for name, repeats in element.steps:
            holder, node = node, node.children.setdefault(name, Node(repeats))
        node.element = element
        if element.kind is Kind.TIMED:
            holder.children[f"{name}Unit"] = Node(is_read_along=True)
    return root


def _all(kind: Kind, *paths: str) -> tuple[Element, ...]:
    return tuple(Element(path, kind) for path in paths)


def _concepts(*paths: str) -> tuple[Element, ...]:
    return _all(Kind.CONCEPT, *paths)


def _references(**targets: str) -> tuple[Element, ...]:
    """References by path; a name that ends in `_` repeats."""
    return tuple(
        Element(name.replace("_", "*"), Kind.REFERENCE, targets=words(types)) for name, types in targets.items()
    )


def _dosage(path: str) -> tuple[Element, ...]:
    """The Dosage datatype below a path."""
    rate = f"{path}.doseAndRate*"
    return (
        *_concepts(f"{path}.timing.code", f"{path}.site", f"{path}.route", f"{path}.method"),
        *_concepts(f"{path}.additionalInstruction*", f"{path}.asNeededCodeableConcept", f"{rate}.type"),
        *_all(Kind.INTEGER, f"{path}.timing.repeat.frequency", f"{path}.timing.repeat.count"),
        *_all(Kind.TIMED, f"{path}.timing.repeat.period", f"{path}.timing.repeat.duration"),
        Element(f"{path}.asNeededBoolean", Kind.BOOLEAN),
        *_all(Kind.QUANTITY, f"{rate}.doseQuantity", f"{rate}.doseRange.low", f"{rate}.doseRange.high"),
        *_all(Kind.QUANTITY, f"{rate}.rateQuantity", f"{rate}.rateRatio.numerator", f"{rate}.rateRatio.denominator"),
        *_all(Kind.QUANTITY, f"{path}.maxDosePerPeriod.numerator", f"{path}.maxDosePerPeriod.denominator"),
    )


_TIME_UNKNOWN = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
_PRIORITY = Element("priority", Kind.CODE, words("routine urgent asap stat"))
_REQUEST_STATUSES = words("draft active on-hold revoked completed entered-in-error unknown")
_EVENT_STATUSES = words("preparation in-progress not-done on-hold stopped completed entered-in-error unknown")
_REPORT_STATUSES = words(
    "registered preliminary final amended corrected cancelled entered-in-error unknown appended partial"
)
_INTENTS = words("proposal plan directive order original-order reflex-order filler-order instance-order option")
_REASONS = "Condition Observation DiagnosticReport Procedure"

# The values and their details that an Observation and its components share.
COMPONENT_ELEMENTS = (
    *_concepts("interpretation*", "dataAbsentReason"),
    *_all(Kind.QUANTITY, "referenceRange*.low", "referenceRange*.high"),
    *_all(Kind.QUANTITY, "valueRange.low", "valueRange.high", "valueRatio.numerator", "valueRatio.denominator"),
    *_all(Kind.DATE, "valueDateTime", "valuePeriod.start", "valuePeriod.end"),
)
COMPONENT_TREE = build_tree(COMPONENT_ELEMENTS)

_OBSERVATION = ResourceTable(
    "Observation",
    (
        *_concepts("category*", "method", "bodySite"),
        *COMPONENT_ELEMENTS,
        *_references(
            specimen="Specimen",
            hasMember_="Observation",
            derivedFrom_="Observation ImagingStudy",
            partOf_="MedicationAdministration MedicationDispense MedicationStatement Procedure Immunization "
            "ImagingStudy",
            basedOn_="CarePlan MedicationRequest ServiceRequest",
        ),
    ),
    times=("effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued"),
    statuses=words("registered preliminary final amended corrected cancelled entered-in-error unknown"),
    negated=("cancelled",),
    required={"status": "unknown"},
)

_ENCOUNTER = ResourceTable(
    "Encounter",
    (
        Element("class", Kind.CODING),
        *_concepts("type*", "serviceType", "priority", "reasonCode*", "diagnosis*.use"),
        *_concepts(
            "hospitalization.admitSource", "hospitalization.dischargeDisposition", "hospitalization.reAdmission"
        ),
        *_references(partOf="Encounter", reasonReference_="Condition Procedure Observation"),
        Element("diagnosis*.condition", Kind.REFERENCE, targets=words("Condition Procedure")),
        Element("diagnosis*.rank", Kind.INTEGER),
    ),
    code="type*",
    times=("period",),
    encounter=None,
    statuses=words("planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown"),
    negated=("cancelled", "planned"),
    required={
        "status": "unknown",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"},
    },
    needs={"diagnosis": "condition"},
)

_CONDITION = ResourceTable(
    "Condition",
    (
        *_concepts("clinicalStatus", "category*", "severity", "bodySite*"),
        Element("recordedDate", Kind.DATE),
    ),
    times=("onsetDateTime", "onsetPeriod", "recordedDate", "@encounter-end"),
    end="abatementDateTime",
    status="verificationStatus",
    status_system="http://terminology.hl7.org/CodeSystem/condition-ver-status",
    statuses=words("unconfirmed provisional differential confirmed refuted entered-in-error"),
    negated=("refuted",),
)

_ALLERGY = ResourceTable(
    "AllergyIntolerance",
    (
        *_concepts("clinicalStatus", "reaction*.substance", "reaction*.manifestation*", "reaction*.exposureRoute"),
        Element("type", Kind.CODE, words("allergy intolerance")),
        Element("category*", Kind.CODE, words("food medication environment biologic")),
        Element("criticality", Kind.CODE, words("low high unable-to-assess")),
        Element("reaction*.severity", Kind.CODE, words("mild moderate severe")),
        Element("recordedDate", Kind.DATE),
    ),
    times=("onsetDateTime", "onsetPeriod", "recordedDate"),
    subject="patient",
    status="verificationStatus",
    status_system="http://terminology.hl7.org/CodeSystem/allergyintolerance-verification",
    statuses=words("unconfirmed confirmed refuted entered-in-error"),
    negated=("refuted",),
    required={
        # ait-1 demands a clinical status, and its required value set has no word for unknown.
        "clinicalStatus": {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}
            ]
        },
        "reaction*.manifestation": [{"text": "unknown"}],
    },
    may_be_undated=True,
)

_MEDICATION_REQUEST = ResourceTable(
    "MedicationRequest",
    (
        Element("intent", Kind.CODE, _INTENTS - {"directive"}),
        _PRIORITY,
        Element("doNotPerform", Kind.BOOLEAN),
        *_concepts("category*", "reasonCode*", "statusReason", "courseOfTherapyType"),
        *_references(reasonReference_="Condition Observation", basedOn_="CarePlan MedicationRequest ServiceRequest"),
        *_references(priorPrescription="MedicationRequest"),
        *_dosage("dosageInstruction*"),
        *_all(Kind.DATE, "dispenseRequest.validityPeriod.start", "dispenseRequest.validityPeriod.end"),
        *_all(Kind.QUANTITY, "dispenseRequest.quantity", "dispenseRequest.expectedSupplyDuration"),
        Element("dispenseRequest.numberOfRepeatsAllowed", Kind.INTEGER),
    ),
    code="medication",
    times=("authoredOn",),
    statuses=words("active on-hold cancelled completed entered-in-error stopped draft unknown"),
    negated=("cancelled", "draft"),
    required={"status": "unknown", "intent": "order"},
)

_MEDICATION_ADMINISTRATION = ResourceTable(
    "MedicationAdministration",
    (
        *_concepts("category", "statusReason*", "reasonCode*", "dosage.site", "dosage.route", "dosage.method"),
        *_all(Kind.QUANTITY, "dosage.dose", "dosage.rateQuantity"),
        *_all(Kind.QUANTITY, "dosage.rateRatio.numerator", "dosage.rateRatio.denominator"),
        *_references(request="MedicationRequest", reasonReference_="Condition Observation DiagnosticReport"),
        *_references(partOf_="MedicationAdministration Procedure"),
    ),
    code="medication",
    times=("effectiveDateTime", "effectivePeriod"),
    encounter="context",
    statuses=words("in-progress not-done on-hold completed entered-in-error stopped unknown"),
    negated=("not-done",),
    required={"status": "unknown"},
    undated={"effectivePeriod": {"extension": [_TIME_UNKNOWN]}},
)

_MEDICATION_STATEMENT = ResourceTable(
    "MedicationStatement",
    (
        *_concepts("category", "statusReason*", "reasonCode*"),
        *_dosage("dosage*"),
        *_references(reasonReference_="Condition Observation DiagnosticReport"),
        *_references(basedOn_="MedicationRequest CarePlan ServiceRequest"),
    ),
    code="medication",
    times=("effectiveDateTime", "effectivePeriod", "dateAsserted"),
    encounter="context",
    statuses=words("active completed entered-in-error intended stopped on-hold unknown not-taken"),
    negated=("not-taken", "intended"),
    required={"status": "unknown"},
)

_MEDICATION_DISPENSE = ResourceTable(
    "MedicationDispense",
    (
        *_concepts("category", "type", "statusReasonCodeableConcept"),
        *_all(Kind.QUANTITY, "quantity", "daysSupply"),
        *_dosage("dosageInstruction*"),
        *_references(authorizingPrescription_="MedicationRequest", partOf_="Procedure"),
    ),
    code="medication",
    times=("whenHandedOver", "whenPrepared", "@encounter-start"),
    encounter="context",
    statuses=words("preparation in-progress cancelled on-hold completed entered-in-error stopped declined unknown"),
    negated=("cancelled", "declined", "preparation"),
    required={"status": "unknown"},
)

_PROCEDURE = ResourceTable(
    "Procedure",
    (
        *_concepts("category", "bodySite*", "reasonCode*", "statusReason", "outcome"),
        *_references(reasonReference_=_REASONS, basedOn_="CarePlan ServiceRequest"),
        *_references(partOf_="Procedure Observation MedicationAdministration"),
    ),
    times=("performedDateTime", "performedPeriod", "@encounter-end"),
    statuses=_EVENT_STATUSES,
    negated=("not-done", "preparation"),
    required={"status": "unknown"},
)

_IMMUNIZATION = ResourceTable(
    "Immunization",
    (
        *_concepts("site", "route", "statusReason", "reasonCode*"),
        Element("doseQuantity", Kind.QUANTITY),
        Element("protocolApplied*.doseNumberPositiveInt", Kind.INTEGER),
        *_references(reasonReference_="Condition Observation DiagnosticReport"),
    ),
    code="vaccineCode",
    times=("occurrenceDateTime",),
    subject="patient",
    statuses=words("completed entered-in-error not-done"),
    negated=("not-done",),
    required={"status": "completed"},
    undated={"occurrenceString": "unknown"},
)

_SERVICE_REQUEST = ResourceTable(
    "ServiceRequest",
    (
        Element("intent", Kind.CODE, _INTENTS),
        _PRIORITY,
        Element("doNotPerform", Kind.BOOLEAN),
        Element("asNeededBoolean", Kind.BOOLEAN),
        *_concepts("category*", "bodySite*", "reasonCode*", "orderDetail*"),
        *_references(reasonReference_="Condition Observation DiagnosticReport", specimen_="Specimen"),
        *_references(basedOn_="CarePlan ServiceRequest MedicationRequest", replaces_="ServiceRequest"),
    ),
    times=("authoredOn", "occurrenceDateTime", "occurrencePeriod"),
    statuses=_REQUEST_STATUSES,
    negated=("revoked", "draft"),
    required={"status": "unknown", "intent": "order"},
)

_DIAGNOSTIC_REPORT = ResourceTable(
    "DiagnosticReport",
    (
        *_concepts("category*", "conclusionCode*"),
        *_references(result_="Observation", imagingStudy_="ImagingStudy", specimen_="Specimen"),
        *_references(basedOn_="CarePlan MedicationRequest ServiceRequest"),
    ),
    times=("effectiveDateTime", "effectivePeriod", "issued"),
    statuses=_REPORT_STATUSES,
    negated=("cancelled",),
    required={"status": "unknown"},
)

_IMAGING_STUDY = ResourceTable(
    "ImagingStudy",
    (
        Element("identifier*", Kind.STUDY_UID, row="studyInstanceUID"),
        Element("series*.uid", Kind.UID, row="series"),
        *_all(Kind.CODING, "series*.modality", "series*.bodySite", "series*.laterality", "modality*"),
        Element("series*.description", Kind.CODE, VIEWS, row="series.view"),
        Element("series*.numberOfInstances", Kind.INTEGER),
        *_concepts("procedureCode*", "reasonCode*"),
        *_references(basedOn_="CarePlan ServiceRequest", procedureReference="Procedure"),
        *_references(reasonReference_="Condition Observation DiagnosticReport"),
    ),
    code="modality",
    times=("started",),
    statuses=words("registered available cancelled entered-in-error unknown"),
    negated=("cancelled",),
    required={"status": "unknown"},
    needs={"series": "uid"},
)

_CARE_PLAN = ResourceTable(
    "CarePlan",
    (
        Element("intent", Kind.CODE, words("proposal plan order option")),
        *_concepts("category*", "activity*.detail.code", "activity*.detail.reasonCode*"),
        Element(
            "activity*.detail.status",
            Kind.CODE,
            words("not-started scheduled in-progress on-hold completed cancelled stopped unknown entered-in-error"),
        ),
        *_references(addresses_="Condition", basedOn_="CarePlan", partOf_="CarePlan"),
    ),
    code="category*",
    times=("period",),
    statuses=_REQUEST_STATUSES,
    negated=("revoked", "draft"),
    required={"status": "unknown", "intent": "plan", "activity*.detail.status": "unknown"},
)

_SPECIMEN = ResourceTable(
    "Specimen",
    (*_concepts("collection.method", "collection.bodySite"), *_references(parent_="Specimen")),
    code="type",
    times=("collection.collectedDateTime", "collection.collectedPeriod", "receivedTime"),
    encounter=None,
    statuses=words("available unavailable unsatisfactory entered-in-error"),
)

TABLES: dict[str, ResourceTable] = {
    table.name: table
    for table in (
        _ENCOUNTER,
        _CONDITION,
        _ALLERGY,
        _CARE_PLAN,
        _SERVICE_REQUEST,
        _PROCEDURE,
        _SPECIMEN,
        _OBSERVATION,
        _DIAGNOSTIC_REPORT,
        _IMAGING_STUDY,
        _MEDICATION_REQUEST,
        _MEDICATION_DISPENSE,
        _MEDICATION_ADMINISTRATION,
        _MEDICATION_STATEMENT,
        _IMMUNIZATION,
    )
}


def implied_time(table: ResourceTable, *, has_end: bool) -> str:
    """The element that dates an event of which no row says otherwise: the best period for one that ended."""
    if has_end and table.end is None:
        return next((name for name in table.times if name.lower().endswith("period")), table.times[0])
    return table.times[0]
