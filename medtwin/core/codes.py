"""Code systems: short names, URIs, and the form `SYSTEM//code` in which every code stands in an event table."""

from __future__ import annotations

from collections.abc import Iterable

SEPARATOR = "//"
BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
CHILD_PREFIX = "FHIR//"
NEGATED_PREFIX = "NEGATED//"
AGE_CAPPED = "MEDTWIN//age-capped"

# Source: HL7 Terminology (THO) 7.0 and the R4 pages "Using Codes" / "Known Identifier Systems".
SYSTEMS: dict[str, str] = {
    "SNOMED": "http://snomed.info/sct",
    "LOINC": "http://loinc.org",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ICD9CM": "http://hl7.org/fhir/sid/icd-9-cm",
    "ICD10PCS": "http://www.cms.gov/Medicare/Coding/ICD10",
    "ATC": "http://www.whocc.no/atc",
    "UCUM": "http://unitsofmeasure.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "OMB": "urn:oid:2.16.840.1.113883.6.238",
    "BCP47": "urn:ietf:bcp:47",
    "ACTCODE": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "ACTPRIORITY": "http://terminology.hl7.org/CodeSystem/v3-ActPriority",
    "NULLFLAVOR": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor",
    "ROUTE": "http://terminology.hl7.org/CodeSystem/v3-RouteOfAdministration",
    "INTERPRETATION": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
    "MARITALSTATUS": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus",
    "OBSCATEGORY": "http://terminology.hl7.org/CodeSystem/observation-category",
    "CONDCATEGORY": "http://terminology.hl7.org/CodeSystem/condition-category",
    "CONDCLINICAL": "http://terminology.hl7.org/CodeSystem/condition-clinical",
    "CONDVERSTATUS": "http://terminology.hl7.org/CodeSystem/condition-ver-status",
    "ALLERGYCLINICAL": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical",
    "ALLERGYVERSTATUS": "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification",
    "ABSENTREASON": "http://terminology.hl7.org/CodeSystem/data-absent-reason",
    "DISCHARGE": "http://terminology.hl7.org/CodeSystem/discharge-disposition",
    "ADMITSOURCE": "http://terminology.hl7.org/CodeSystem/admit-source",
    "V2DIAGNOSTICSERVICE": "http://terminology.hl7.org/CodeSystem/v2-0074",
}
_SHORT = {uri: short for short, uri in SYSTEMS.items()}

# A concept often comes with several codings; the one that most tools understand becomes `code`.
PREFERENCE = ("SNOMED", "LOINC", "RXNORM", "CVX", "ICD10CM", "ICD10", "ICD9CM", "NDC", "DCM")

# The FHIR resource that a code of a foreign MEDS dataset, which names none, most likely is, by its system; all others
# are Observations.
BARE_RESOURCES = {
    "ICD10CM": "Condition",
    "ICD10": "Condition",
    "ICD9CM": "Condition",
    "DIAGNOSIS": "Condition",
    "CONDITION": "Condition",
    "ICD10PCS": "Procedure",
    "PROCEDURE": "Procedure",
    "CPT": "Procedure",
    "HCPCS": "Procedure",
    "RXNORM": "MedicationStatement",
    "NDC": "MedicationStatement",
    "ATC": "MedicationStatement",
    "MEDICATION": "MedicationStatement",
    "DRUG": "MedicationStatement",
    "CVX": "Immunization",
}
# And those that are a stay.
BARE_STAYS = frozenset(
    {"ENCOUNTER", "VISIT", "HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE", "ICU_ADMISSION", "ICU_DISCHARGE"}
)

# The MEDS codes of administrative gender, and the FHIR words for them.
GENDERS = {"GENDER//M": "male", "GENDER//F": "female", "GENDER//O": "other", "GENDER//U": "unknown"}

LOCAL_SYSTEM = "urn:medtwin:code:"


def system_name(uri: str) -> str:
    """The short name of a code system; an unlisted URI without its `http://`.

    >>> system_name("http://loinc.org"), system_name("http://example.org/CodeSystem/x")
    ('LOINC', 'example.org/CodeSystem/x')
    """
    return _SHORT.get(uri) or uri.removeprefix("http://").replace("https://", "https:")


def system_uri(name: str) -> str:
    """The URI of a code system's short name; the inverse of `system_name`.

    A bare word that is no listed system, as foreign MEDS datasets use, becomes `urn:medtwin:code:<word>`.

    >>> system_uri("LOINC"), system_uri("example.org/CodeSystem/x"), system_uri("LAB")
    ('http://loinc.org', 'http://example.org/CodeSystem/x', 'urn:medtwin:code:LAB')
    """
    if name in SYSTEMS:
        return SYSTEMS[name]
    if name.startswith("urn:"):
        return name
    if name.startswith("https:"):
        return "https://" + name.removeprefix("https:")
    return "http://" + name if "." in name or "/" in name else LOCAL_SYSTEM + name


def join_code(uri: str | None, code: str) -> str:
    """`SYSTEM//code` of a coding; a coding without a system stands under `LOCAL`."""
    return f"{system_name(uri) if uri else 'LOCAL'}{SEPARATOR}{code}"


def split_code(text: str) -> tuple[str, str]:
    """The system's URI and the bare code of `SYSTEM//code`; a code without a system is a local one.

    >>> split_code("LOINC//4548-4")
    ('http://loinc.org', '4548-4')
    >>> split_code("LAB//50912//mg/dL")
    ('urn:medtwin:code:LAB', '50912//mg/dL')
    """
    system, separator, code = text.partition(SEPARATOR)
    return (system_uri(system), code) if separator else (LOCAL_SYSTEM.rstrip(":"), text)


def preferred(codes: Iterable[str]) -> str:
    """The code that most tools understand: by `PREFERENCE`, else the first.

    Raises:
        ValueError: If there is no code.
    """
    ranked = list(codes)
    if not ranked:
        raise ValueError("preferred needs at least one code")
    order = {name: rank for rank, name in enumerate(PREFERENCE)}
    return min(ranked, key=lambda code: order.get(code.partition(SEPARATOR)[0], len(order)))


def is_clinical(code: str) -> bool:
    """Whether the code says that something happened to the subject: not a detail, and not a negation."""
    return not code.startswith((CHILD_PREFIX, NEGATED_PREFIX))
