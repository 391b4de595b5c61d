"""One resource for each US Core profile of the table that has every element which the profile constrains."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
TERMS = "http://terminology.hl7.org/CodeSystem/"
US_CORE = "http://hl7.org/fhir/us/core/"
EXTENSION = f"{US_CORE}StructureDefinition/"
CDC = "urn:oid:2.16.840.1.113883.6.238"
SUBJECT = {"reference": "Patient/p1"}
NPI = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893"}


def concept(system: str, *codes: str) -> Resource:
    return {"coding": [{"system": system, "code": code} for code in codes]}


def to(kind: str) -> Resource:
    return {"reference": f"{kind}/x1"}


def category(code: str) -> list[Resource]:
    return [concept(f"{TERMS}observation-category", code)]


def quantity(value: float, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def observation(code: str, kind: str, **elements: Any) -> Resource:
    body = {"resourceType": "Observation", "id": "o1", "status": "final", "category": category(kind)}
    return body | {"code": concept(LOINC, code), "subject": SUBJECT, "effectiveDateTime": "2024-03-01"} | elements


def vital(code: str, value: float, unit: str) -> Resource:
    links = {"hasMember": [to("QuestionnaireResponse")], "derivedFrom": [to("Media")]}
    parts = [{"code": {"text": "cuff"}, "dataAbsentReason": concept(f"{TERMS}data-absent-reason", "unknown")}]
    body = observation(code, "vital-signs", valueQuantity=quantity(value, unit), component=parts, **links)
    # Twice the same coding: R4 allows it within the category, and no other.
    return body | {"category": [concept(f"{TERMS}observation-category", "vital-signs", "vital-signs")]}


def component(code: str, value: float, unit: str) -> Resource:
    return {"code": concept(LOINC, code), "valueQuantity": quantity(value, unit)}


def _patient() -> Resource:
    unknown = {"url": "ombCategory", "valueCoding": {"system": f"{TERMS}v3-NullFlavor", "code": "UNK"}}

    def omb(name: str, category: Resource, detailed: str) -> Resource:
        parts = [category, {"url": "detailed", "valueCoding": {"system": CDC, "code": detailed}}]
        return {"url": EXTENSION + name, "extension": [*parts, {"url": "text", "valueString": "as told"}]}

    hispanic = {"url": "ombCategory", "valueCoding": {"system": CDC, "code": "2135-2"}}
    tribe = {"url": "tribalAffiliation", "valueCodeableConcept": {"text": "a tribe"}}
    return {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [{"system": "urn:x:mr", "value": "1"}],
        "name": [{"family": "Twin", "given": ["A"]}, {"given": ["B"]}],
        "telecom": [{"system": "phone", "value": "555", "use": "home"}],
        "gender": "unknown",
        "communication": [{"language": concept("urn:ietf:bcp:47", "en")}],
        "extension": [
            omb("us-core-race", unknown, "1586-7"),
            omb("us-core-ethnicity", hispanic, "2148-5"),
            {
                "url": f"{EXTENSION}us-core-tribal-affiliation",
                "extension": [tribe, {"url": "isEnrolled", "valueBoolean": True}],
            },
            {"url": f"{EXTENSION}us-core-birthsex", "valueCode": "F"},
            {"url": f"{EXTENSION}us-core-sex", "valueCode": "248152002"},
            {"url": f"{EXTENSION}us-core-genderIdentity", "valueCodeableConcept": {"text": "told"}},
        ],
    }


def _condition(*categories: Resource) -> Resource:
    asserted = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"
    return {
        "resourceType": "Condition",
        "id": "c1",
        "extension": [{"url": asserted, "valueDateTime": "2024-03-01"}],
        "clinicalStatus": concept(f"{TERMS}condition-clinical", "active"),
        "verificationStatus": concept(f"{TERMS}condition-ver-status", "confirmed"),
        "category": list(categories),
        "code": {"text": "asthma"},
        "subject": SUBJECT,
        "encounter": to("Encounter"),
    }


def _report(kind: str) -> Resource:
    return {
        "resourceType": "DiagnosticReport",
        "id": "d1",
        "status": "final",
        "category": [concept(f"{TERMS}v2-0074", kind)],
        "code": {"text": "report"},
        "subject": SUBJECT,
        "encounter": to("Encounter"),
        "effectivePeriod": {"start": "2024-03-01"},
        "issued": "2024-03-01T10:00:00Z",
        "performer": [to("Organization")],
        "result": [to("Observation")],
        "media": [{"link": to("Media")}],
    }


def _medication(kind: str, status: str, **elements: Any) -> Resource:
    reference = {"medicationReference": to("Medication")}
    return {"resourceType": kind, "id": "m1", "status": status, "subject": SUBJECT} | reference | elements


def _vital_signs() -> dict[str, Resource]:
    flow = [component("3151-8", 2, "L/min"), component("3150-0", 40, "%")]
    oximetry = vital("59408-5", 97, "%") | {"code": concept(LOINC, "59408-5", "2708-6"), "component": flow}
    pressures = [component("8480-6", 120, "mm[Hg]"), component("8462-4", 80, "mm[Hg]")]
    pressure = vital("85354-9", 0, "1") | {"component": pressures}
    del pressure["valueQuantity"]
    return {
        "us-core-vital-signs": vital("8478-0", 93, "mm[Hg]"),
        "us-core-blood-pressure": pressure,
        "us-core-pulse-oximetry": oximetry,
        "us-core-bmi": vital("39156-5", 24, "kg/m2"),
        "us-core-body-height": vital("8302-2", 170, "cm"),
        "us-core-body-weight": vital("29463-7", 70, "kg"),
        "us-core-body-temperature": vital("8310-5", 98.6, "[degF]"),
        "us-core-head-circumference": vital("9843-4", 40, "cm"),
        "us-core-heart-rate": vital("8867-4", 70, "/min"),
        "us-core-respiratory-rate": vital("9279-1", 14, "/min"),
        "head-occipital-frontal-circumference-percentile": vital("8289-1", 50, "%"),
        "pediatric-bmi-for-age": vital("59576-9", 50, "%"),
        "pediatric-weight-for-height": vital("77606-2", 50, "%"),
    }


def _observations() -> dict[str, Resource]:
    answer = {"valueCodeableConcept": {"text": "told"}}
    links = {"performer": [to("Practitioner")], "derivedFrom": [to("QuestionnaireResponse")]}
    industry = [{"code": concept(LOINC, "86188-0")} | answer]
    measured = {"valueQuantity": quantity(5, "mmol/L")}
    return {
        "us-core-observation-clinical-result": observation("10230-1", "imaging", **measured),
        "us-core-observation-lab": observation("2345-7", "laboratory", specimen=to("Specimen"), **measured),
        "us-core-smokingstatus": observation("72166-2", "social-history", **answer),
        "us-core-observation-pregnancystatus": observation("82810-3", "social-history", **answer),
        "us-core-observation-pregnancyintent": observation("86645-9", "social-history", **answer),
        "us-core-observation-occupation": observation("11341-5", "social-history", component=industry, **answer),
        "us-core-observation-sexual-orientation": observation("76690-7", "social-history", **answer),
        "us-core-observation-screening-assessment": observation(
            "44249-1", "survey", hasMember=[to("Observation")], **links, **measured
        ),
        "us-core-simple-observation": observation("74013-4", "social-history", **links, **answer),
    }


def _orders() -> dict[str, Resource]:
    requested = {"intent": "order", "requester": to("Practitioner"), "encounter": to("Encounter")}
    given = {"whenHandedOver": "2024-03-01", "performer": [{"actor": to("Organization")}], "context": to("Encounter")}
    handed = given | {"authorizingPrescription": [to("MedicationRequest")]}
    coded = {"resourceType": "ServiceRequest", "id": "s1", "status": "active", "code": {"text": "x"}}
    return {
        "us-core-medicationrequest": _medication(
            "MedicationRequest", "active", reportedReference=to("Patient"), **requested
        ),
        "us-core-medicationdispense": _medication("MedicationDispense", "completed", **handed),
        "us-core-medication": {"resourceType": "Medication", "id": "m1", "code": {"text": "aspirin"}},
        "us-core-servicerequest": coded | {"subject": SUBJECT} | requested,
    }


def _care() -> dict[str, Resource]:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">plan</div>'}
    plan = concept(f"{US_CORE}CodeSystem/careplan-category", "assess-plan")
    attachment = {"attachment": {"url": "https://example.org/note"}}
    allergy = {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": concept(f"{TERMS}allergyintolerance-clinical", "active"),
        "verificationStatus": concept(f"{TERMS}allergyintolerance-verification", "confirmed"),
        "code": {"text": "peanut"},
        "patient": SUBJECT,
        "reaction": [{"manifestation": [{"text": "hives"}]}],
    }
    return {
        "us-core-allergyintolerance": allergy,
        "us-core-immunization": {
            "resourceType": "Immunization",
            "status": "completed",
            "vaccineCode": {"text": "MMR"},
            "patient": SUBJECT,
            "occurrenceDateTime": "2024",
            "encounter": to("Encounter"),
            "location": to("Location"),
        },
        "us-core-procedure": {
            "resourceType": "Procedure",
            "status": "completed",
            "code": {"text": "x"},
            "subject": SUBJECT,
            "encounter": to("Encounter"),
            "basedOn": [to("ServiceRequest")],
            "performedString": "in spring",
        },
        "us-core-documentreference": {
            "resourceType": "DocumentReference",
            "status": "current",
            "type": concept(LOINC, "34133-9"),
            "category": [concept(f"{US_CORE}CodeSystem/us-core-documentreference-category", "clinical-note")],
            "subject": SUBJECT,
            "author": [to("Practitioner")],
            "content": [attachment],
            "context": {"encounter": [to("Encounter")]},
        },
        "us-core-careplan": {
            "resourceType": "CarePlan",
            "text": text,
            "status": "active",
            "intent": "plan",
            "category": [plan],
            "subject": SUBJECT,
        },
        "us-core-careteam": {
            "resourceType": "CareTeam",
            "status": "active",
            "subject": SUBJECT,
            "participant": [{"role": [{"text": "nurse"}], "member": to("Practitioner")}],
        },
        "us-core-goal": {
            "resourceType": "Goal",
            "lifecycleStatus": "active",
            "description": {"text": "walk"},
            "subject": SUBJECT,
            "startDate": "2024-03-01",
            "target": [{"dueDate": "2024-06-01"}],
        },
    }


def _actors() -> dict[str, Resource]:
    clia = {"system": "urn:oid:2.16.840.1.113883.4.7", "value": "12D4567890"}
    naic = {"system": "urn:oid:2.16.840.1.113883.6.300", "value": "12345"}
    address = [{"line": ["1 Main St"]}]
    contact = [{"system": "phone", "value": "555"}]
    insured = {"type": concept(f"{TERMS}v2-0203", "MB"), "system": "urn:x", "value": "1"}
    classes = [{"type": concept(f"{TERMS}coverage-class", each), "value": "1"} for each in ("group", "plan")]
    return {
        "us-core-organization": {
            "resourceType": "Organization",
            "identifier": [NPI, clia, naic],
            "active": True,
            "name": "Hospital",
            "address": address,
        },
        "us-core-practitioner": {
            "resourceType": "Practitioner",
            "identifier": [NPI],
            "name": [{"family": "Doe"}],
            "address": address,
        },
        "us-core-practitionerrole": {
            "resourceType": "PractitionerRole",
            "practitioner": to("Practitioner"),
            "organization": to("Organization"),
            "location": [to("Location")],
            "telecom": contact,
        },
        "us-core-location": {"resourceType": "Location", "name": "Ward 1", "managingOrganization": to("Organization")},
        "us-core-specimen": {"resourceType": "Specimen", "type": {"text": "blood"}, "subject": SUBJECT},
        "us-core-provenance": {
            "resourceType": "Provenance",
            "target": [SUBJECT],
            "recorded": "2024-03-01T10:00:00Z",
            "agent": [{"who": to("Device"), "onBehalfOf": to("Organization")}],
        },
        "us-core-implantable-device": {
            "resourceType": "Device",
            "udiCarrier": [{"deviceIdentifier": "1"}],
            "type": {"text": "pacemaker"},
            "patient": SUBJECT,
        },
        "us-core-questionnaireresponse": {
            "resourceType": "QuestionnaireResponse",
            "questionnaire": "https://example.org/q",
            "status": "completed",
            "subject": SUBJECT,
            "authored": "2024-03-01",
            "author": to("Patient"),
        },
        "us-core-relatedperson": {
            "resourceType": "RelatedPerson",
            "active": True,
            "patient": SUBJECT,
            "relationship": [{"text": "mother"}],
        },
        "us-core-coverage": {
            "resourceType": "Coverage",
            "status": "active",
            "identifier": [insured],
            "beneficiary": SUBJECT,
            "relationship": {"text": "self"},
            "payor": [to("Organization")],
            "class": classes,
        },
    }


def samples() -> dict[str, Resource]:
    """The samples by the last step of the profile's canonical."""
    encounter = {
        "resourceType": "Encounter",
        "id": "e1",
        "identifier": [{"system": "urn:x", "value": "1"}],
        "status": "finished",
        "class": {"code": "AMB"},
        "type": [{"text": "visit"}],
        "subject": SUBJECT,
        "participant": [{"individual": to("Practitioner")}],
        "reasonReference": [to("Condition")],
        "location": [{"location": to("Location")}],
        "serviceProvider": to("Organization"),
    }
    problem = concept(f"{TERMS}condition-category", "problem-list-item")
    return {
        "us-core-patient": _patient(),
        "us-core-encounter": encounter,
        "us-core-condition-encounter-diagnosis": _condition(
            concept(problem["coding"][0]["system"], "encounter-diagnosis")
        ),
        "us-core-condition-problems-health-concerns": _condition(problem),
        "us-core-diagnosticreport-lab": _report("LAB"),
        "us-core-diagnosticreport-note": _report("RAD"),
        **_vital_signs(),
        **_observations(),
        **_orders(),
        **_care(),
        **_actors(),
    }
