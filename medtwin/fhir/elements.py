"""What of a FHIR resource becomes rows: one table per resource type, which the reader and the writer both walk."""

from __future__ import annotations

from medtwin.fhir.kinds import Element, Kind, Node, ResourceTable, build_tree, implied_time
from medtwin.fhir.terms import VIEWS, words

__all__ = [
    "ACTORS",
    "COMPONENT_ELEMENTS",
    "COMPONENT_TREE",
    "TABLES",
    "Element",
    "Kind",
    "Node",
    "ResourceTable",
    "build_tree",
    "implied_time",
]


def _all(kind: Kind, *paths: str) -> tuple[Element, ...]:
    return tuple(Element(path, kind) for path in paths)


def _concepts(*paths: str) -> tuple[Element, ...]:
    return _all(Kind.CONCEPT, *paths)


def _references(**targets: str) -> tuple[Element, ...]:
    """References by path; a name that ends in `_` repeats."""
    return tuple(
        Element(name.replace("_", "*"), Kind.REFERENCE, targets=words(types)) for name, types in targets.items()
    )


def _actors(targets: str, *paths: str) -> tuple[Element, ...]:
    return tuple(Element(path, Kind.ACTOR, targets=words(targets)) for path in paths)


def _performers(targets: str = "Practitioner PractitionerRole Organization") -> tuple[Element, ...]:
    """The backbone element `performer` with its function and its actor."""
    return (*_concepts("performer*.function"), *_actors(targets, "performer*.actor"))


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


# Resource types that are no event of a subject: who took part in one, and where it was (metadata/actors.parquet).
ACTORS = ("Location", "Organization", "Practitioner", "PractitionerRole")
_WHO = "Practitioner PractitionerRole"
_WHO_OR_WHERE = "Practitioner PractitionerRole Organization"

_ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
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
    *_concepts("interpretation*", "dataAbsentReason", "referenceRange*.type", "referenceRange*.appliesTo*"),
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
        *_actors(_WHO_OR_WHERE, "performer*"),
    ),
    times=(
        "effectiveDateTime",
        "effectivePeriod",
        "effectiveInstant",
        "effectiveTiming.event*",
        "effectiveTiming.repeat.boundsPeriod",
        "issued",
    ),
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
        *_concepts("participant*.type*", "location*.physicalType"),
        Element("location*.status", Kind.CODE, words("planned active reserved completed")),
        *_all(Kind.DATE, "location*.period.start", "location*.period.end"),
        *_actors(_WHO, "participant*.individual"),
        *_actors("Location", "location*.location"),
        *_actors("Organization", "serviceProvider"),
        *_actors("Location Organization", "hospitalization.origin", "hospitalization.destination"),
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
    needs={"diagnosis": "condition", "location": "location"},
)

_CONDITION = ResourceTable(
    "Condition",
    (
        *_concepts("clinicalStatus", "category*", "severity", "bodySite*", "stage*.summary", "stage*.type"),
        *_concepts("evidence*.code*"),
        Element("recordedDate", Kind.DATE),
        *_actors(_WHO, "recorder", "asserter"),
    ),
    times=("onsetDateTime", "onsetPeriod", "recordedDate", "@encounter-end"),
    end="abatementDateTime",
    status="verificationStatus",
    status_system="http://terminology.hl7.org/CodeSystem/condition-ver-status",
    statuses=words("unconfirmed provisional differential confirmed refuted entered-in-error"),
    negated=("refuted",),
    needs={"stage": "summary"},
)

_ALLERGY = ResourceTable(
    "AllergyIntolerance",
    (
        *_concepts("clinicalStatus", "reaction*.substance", "reaction*.manifestation*", "reaction*.exposureRoute"),
        Element("type", Kind.CODE, words("allergy intolerance")),
        Element("category*", Kind.CODE, words("food medication environment biologic")),
        Element("criticality", Kind.CODE, words("low high unable-to-assess")),
        Element("reaction*.severity", Kind.CODE, words("mild moderate severe")),
        *_all(Kind.DATE, "reaction*.onset", "lastOccurrence", "recordedDate"),
        *_actors(_WHO, "recorder", "asserter"),
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
        *_actors(_WHO_OR_WHERE, "requester", "performer"),
        *_actors(_WHO, "recorder"),
        *_actors("Organization", "dispenseRequest.performer"),
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
        *_performers(_WHO),
    ),
    code="medication",
    times=("effectiveDateTime", "effectivePeriod"),
    encounter="context",
    statuses=words("in-progress not-done on-hold completed entered-in-error stopped unknown"),
    negated=("not-done",),
    required={"status": "unknown"},
    needs={"performer": "actor"},
    undated={"effectivePeriod": {"extension": [_ABSENT]}},
)

_MEDICATION_STATEMENT = ResourceTable(
    "MedicationStatement",
    (
        *_concepts("category", "statusReason*", "reasonCode*"),
        *_dosage("dosage*"),
        *_references(reasonReference_="Condition Observation DiagnosticReport"),
        *_references(basedOn_="MedicationRequest CarePlan ServiceRequest"),
        *_actors(_WHO_OR_WHERE, "informationSource"),
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
        *_performers(),
        *_actors("Location", "location", "destination"),
    ),
    code="medication",
    times=("whenHandedOver", "whenPrepared", "@encounter-start"),
    encounter="context",
    statuses=words("preparation in-progress cancelled on-hold completed entered-in-error stopped declined unknown"),
    negated=("cancelled", "declined", "preparation"),
    required={"status": "unknown"},
    needs={"performer": "actor"},
)

_PROCEDURE = ResourceTable(
    "Procedure",
    (
        *_concepts("category", "bodySite*", "reasonCode*", "statusReason", "outcome", "complication*", "followUp*"),
        *_references(reasonReference_=_REASONS, basedOn_="CarePlan ServiceRequest", complicationDetail_="Condition"),
        *_references(partOf_="Procedure Observation MedicationAdministration", report_="DiagnosticReport"),
        *_performers(),
        *_actors("Organization", "performer*.onBehalfOf"),
        *_actors("Location", "location"),
        *_actors(_WHO, "recorder", "asserter"),
    ),
    times=("performedDateTime", "performedPeriod", "@encounter-end"),
    statuses=_EVENT_STATUSES,
    negated=("not-done", "preparation"),
    required={"status": "unknown"},
    needs={"performer": "actor"},
)

_IMMUNIZATION = ResourceTable(
    "Immunization",
    (
        *_concepts("site", "route", "statusReason", "reasonCode*"),
        Element("doseQuantity", Kind.QUANTITY),
        Element("protocolApplied*.doseNumberPositiveInt", Kind.INTEGER),
        *_references(reasonReference_="Condition Observation DiagnosticReport"),
        *_all(Kind.BOOLEAN, "primarySource", "isSubpotent"),
        *_concepts("reportOrigin", "subpotentReason*", "programEligibility*", "fundingSource"),
        *_performers(),
        *_actors("Location", "location"),
        *_actors("Organization", "manufacturer"),
    ),
    code="vaccineCode",
    times=("occurrenceDateTime",),
    subject="patient",
    statuses=words("completed entered-in-error not-done"),
    negated=("not-done",),
    required={"status": "completed"},
    needs={"performer": "actor"},
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
        *_concepts("performerType", "locationCode*", "asNeededCodeableConcept"),
        Element("quantityQuantity", Kind.QUANTITY),
        *_actors(_WHO_OR_WHERE, "requester", "performer*"),
        *_actors("Location", "locationReference*"),
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
        *_actors(_WHO_OR_WHERE, "performer*", "resultsInterpreter*"),
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
        *_actors(_WHO, "referrer", "interpreter*"),
        *_actors("Location", "location"),
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
        *_references(addresses_="Condition", basedOn_="CarePlan", partOf_="CarePlan", replaces_="CarePlan"),
        *_actors(_WHO_OR_WHERE, "author", "contributor*"),
        *_actors("Location", "activity*.detail.location"),
        *_actors(_WHO_OR_WHERE, "activity*.detail.performer*"),
    ),
    code="category*",
    times=("period",),
    statuses=_REQUEST_STATUSES,
    negated=("revoked", "draft"),
    required={"status": "unknown", "intent": "plan", "activity*.detail.status": "unknown"},
)

_SPECIMEN = ResourceTable(
    "Specimen",
    (
        *_concepts("collection.method", "collection.bodySite", "condition*", "container*.type"),
        *_concepts("collection.fastingStatusCodeableConcept", "container*.additiveCodeableConcept"),
        *_all(Kind.QUANTITY, "collection.quantity", "collection.duration", "container*.specimenQuantity"),
        *_references(parent_="Specimen", request_="ServiceRequest"),
        *_actors(_WHO, "collection.collector"),
    ),
    code="type",
    times=("collection.collectedDateTime", "collection.collectedPeriod", "receivedTime"),
    encounter=None,
    statuses=words("available unavailable unsatisfactory entered-in-error"),
)

# Media types that documents have: what an attachment says beyond them stays out. Source: IANA media types.
_MEDIA_TYPES = words(
    """
    text/plain text/html text/xml text/rtf text/markdown text/csv text/plain;charset=utf-8 text/plain;charset=UTF-8
    application/pdf application/xml application/json application/rtf application/msword application/dicom
    application/hl7-v3+xml application/hl7-cda+xml application/hl7-sda+xml application/fhir+json application/fhir+xml
    application/zip application/vnd.openxmlformats-officedocument.wordprocessingml.document
    image/jpeg image/png image/tiff image/gif image/bmp image/svg+xml audio/mpeg audio/wav video/mp4 video/mpeg
    """
)

_DOCUMENT_REFERENCE = ResourceTable(
    "DocumentReference",
    (
        Element("docStatus", Kind.CODE, words("preliminary final amended entered-in-error")),
        *_concepts("category*", "securityLabel*"),
        *_concepts("context.event*", "context.facilityType", "context.practiceSetting"),
        *_all(Kind.DATE, "context.period.start", "context.period.end"),
        Element("content*.attachment.contentType", Kind.CODE, _MEDIA_TYPES),
        Element("content*.format", Kind.CODING),
        Element(
            "context.related*",
            Kind.REFERENCE,
            targets=words("DiagnosticReport ImagingStudy Observation Procedure ServiceRequest"),
        ),
        *_actors(_WHO_OR_WHERE, "author*", "authenticator"),
        *_actors("Organization", "custodian"),
    ),
    code="type",
    times=("date", "context.period"),
    encounter="context.encounter*",
    statuses=words("current superseded entered-in-error"),
    required={
        "status": "current",
        "content": [{"attachment": {"extension": [_ABSENT]}}],
        "content*.attachment": {"extension": [_ABSENT]},
    },
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
        _DOCUMENT_REFERENCE,
        _MEDICATION_REQUEST,
        _MEDICATION_DISPENSE,
        _MEDICATION_ADMINISTRATION,
        _MEDICATION_STATEMENT,
        _IMMUNIZATION,
    )
}
