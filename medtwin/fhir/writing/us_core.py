"""What US Core 6.1 asks of a resource beyond R4, as far as the data say it or the guide allows to say that they do not.

Source: US Core Implementation Guide 6.1.0 (hl7.org/fhir/us/core/STU6.1), the profiles and "Missing Data": a code that
is missing is said in words, another required element by the data-absent-reason extension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medtwin.core.codes import SYSTEMS
from medtwin.fhir.codings import UNIT_SYSTEM
from medtwin.fhir.terms import words
from medtwin.fhir.writing.context import ExportContext
from medtwin.fhir.writing.finish import MASKED_HERE, UNKNOWN_HERE
from medtwin.fhir.writing.rows import Resource
from medtwin.fhir.writing.vitals import add_absent_reason

_LABORATORY_SERVICE = ("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB")
_RELEASED = frozenset({"partial", "preliminary", "final", "amended", "corrected", "appended"})
_ORDERS = frozenset({"order", "original-order", "reflex-order", "filler-order", "instance-order"})
_ASSESS_PLAN = {"system": "http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "code": "assess-plan"}
_CONDITION_CATEGORIES = frozenset({"encounter-diagnosis", "problem-list-item", "health-concern"})
_SMOKING_STATUS = "72166-2"
# Laboratory tests that are ordered most. Source: LOINC common laboratory observations (Regenstrief Institute), classes
# CHEM, HEM/BC, COAG, UA, SERO and DRUG/TOX.
LABORATORY = words(
    """
    2345-7 2339-0 1558-6 2160-0 38483-4 3094-0 6299-2 2951-2 2947-0 2823-3 6298-4 2075-0 2069-3 2028-9 1963-8 33037-3
    17861-6 49765-1 1994-3 12180-6 19123-9 2777-1 2885-2 1751-7 10834-0 1975-2 1968-7 1971-1 6768-6 1742-6 1920-8
    2324-2 2532-0 2157-6 13969-1 49563-0 6598-7 10839-9 89579-7 33762-6 30934-4 42637-9 3084-1 2093-3 2085-9 13457-7
    18262-6 2089-1 2571-8 4548-4 17856-6 59261-8 3016-3 11580-8 3024-7 3026-2 3053-6 2276-4 2498-4 2500-7 2502-3 3034-6
    2132-9 2284-8 1989-3 62292-8 2731-8 1988-5 30522-7 33959-8 2524-7 32693-4 1798-8 3040-3 14959-1 9318-7 14957-5
    33914-3 48642-3 48643-1 62238-1 69405-9 98979-8 77147-7 718-7 30313-1 4544-3 20570-8 789-8 787-2 785-6 786-4 788-0
    21000-5 6690-2 26464-8 804-5 777-3 26515-7 32623-1 770-8 736-9 5905-5 713-8 706-2 751-8 731-0 742-7 711-2 704-7
    26499-4 26474-7 26484-6 26449-9 26444-0 764-1 4537-7 30341-2 17849-1 5902-2 5964-2 6301-6 34714-6 3173-2 14979-9
    3255-7 48065-7 30240-6 2744-1 2746-6 11557-6 2019-8 11558-4 2703-7 1925-7 1959-6 1960-4 2713-6 19994-3
    5811-5 2965-2 5803-2 2756-5 5804-0 20454-5 5792-7 2350-7 5797-6 2514-8 5770-3 1978-6 5794-3 20405-7 5802-4
    20408-1 5799-2 5821-4 5808-1 13945-1 2857-1 19197-3 2888-6 20977-5 883-9 10331-7 890-4 94500-6 94309-2 2986-8
    4023-2 4024-0 20578-1 10535-3 14749-6 27353-2 2465-3 2458-8 2472-9 5048-4 5130-0 11572-5 13964-2
    """
)


def met_profiles(resource: Resource) -> tuple[str, ...]:
    """The US Core profiles that a resource meets."""
    # Only who asks for US Core loads its profiles.
    from medtwin.fhir import profiles

    return tuple(profiles.met_profiles(resource))


def finish_shared(context: ExportContext, resource: Resource) -> Resource:
    """A resource of an export that belongs to no subject, completed for the profile of the export."""
    if context.profile == "us-core-6.1":
        complete_us_core(resource, context.origin)
        resource["meta"] = context.meta(met_profiles(resource))
    return resource


def complete_us_core(body: Resource, origin: str) -> None:
    """Adds what US Core 6.1 requires and the resource can say without a new fact; nothing in it is changed in place.

    Args:
        body: The resource; its own, but for what its elements hold.
        origin: Of its subject: only who is not real may have a name, which says so.
    """
    complete = _COMPLETE.get(body["resourceType"])
    if complete is not None:
        complete(body, origin)


def _patient(body: Resource, origin: str) -> None:
    """us-core-6: a name, or the reason why there is none; the gender is required."""
    number = body["identifier"][0]["value"]
    body["name"] = [MASKED_HERE if origin == "real" else {"family": f"{origin.capitalize()}-{number}"}]
    body.setdefault("gender", "unknown")


def _condition(body: Resource, _origin: str) -> None:
    """The category tells the two profiles apart; con-3: an item of the problem list has a clinical status."""
    if not _category_codes(body) & _CONDITION_CATEGORIES:
        code = "encounter-diagnosis" if "encounter" in body else "problem-list-item"
        _add_category(body, SYSTEMS["CONDCATEGORY"], code)
    verified = body.get("verificationStatus", {}).get("coding", ({},))[0].get("code")
    if "problem-list-item" in _category_codes(body) and verified != "entered-in-error":
        body.setdefault("clinicalStatus", {"coding": [{"system": SYSTEMS["CONDCLINICAL"], "code": "active"}]})


def _category_codes(body: Resource) -> set[Any]:
    return {coding.get("code") for each in body.get("category", ()) for coding in each.get("coding", ())}


def _add_category(body: Resource, system: str, code: str) -> None:
    body["category"] = [*body.get("category", ()), {"coding": [{"system": system, "code": code}]}]


def _encounter(body: Resource, _origin: str) -> None:
    body.setdefault("type", [{"text": "Unknown"}])


def _observation(body: Resource, _origin: str) -> None:
    """us-core-2: a value, component or member, or the reason why there is none; us-core-3: units are UCUM or words."""
    codes = {each.get("code") for each in body["code"]["coding"] if each.get("system") == SYSTEMS["LOINC"]}
    categories = _category_codes(body)
    if _SMOKING_STATUS in codes and "social-history" not in categories:
        _add_category(body, SYSTEMS["OBSCATEGORY"], "social-history")
    elif (codes & LABORATORY or "specimen" in body) and "laboratory" not in categories:
        _add_category(body, SYSTEMS["OBSCATEGORY"], "laboratory")
    if "component" not in body and "hasMember" not in body:
        add_absent_reason(body)
    quantity = body.get("valueQuantity")
    if quantity is not None and quantity.get("system") == UNIT_SYSTEM:
        body["valueQuantity"] = {name: each for name, each in quantity.items() if name not in ("system", "code")}


def _immunization(body: Resource, _origin: str) -> None:
    if "primarySource" not in body:
        body["_primarySource"] = UNKNOWN_HERE


def _medication_request(body: Resource, _origin: str) -> None:
    """us-core-21: who ordered it."""
    if body.get("intent") in _ORDERS:
        body.setdefault("requester", UNKNOWN_HERE)


def _medication_dispense(body: Resource, _origin: str) -> None:
    """us-core-20: when it was handed over."""
    if body["status"] == "completed" and "whenHandedOver" not in body:
        body["_whenHandedOver"] = UNKNOWN_HERE


def _procedure(body: Resource, _origin: str) -> None:
    """us-core-7: when it was performed."""
    if body["status"] in ("completed", "in-progress") and not any(name.startswith("performed") for name in body):
        body["_performedDateTime"] = UNKNOWN_HERE


def _diagnostic_report(body: Resource, _origin: str) -> None:
    """us-core-8, -9: when the sample of a laboratory report was taken, and when it was issued."""
    codings = {(each.get("system"), each.get("code")) for one in body.get("category", ()) for each in one["coding"]}
    if body["status"] in _RELEASED and _LABORATORY_SERVICE in codings:
        if "issued" not in body:
            body["_issued"] = UNKNOWN_HERE
        if not any(name.startswith("effective") for name in body):
            body["_effectiveDateTime"] = UNKNOWN_HERE


def _organization(body: Resource, _origin: str) -> None:
    body["_active"], body["_name"] = UNKNOWN_HERE, MASKED_HERE


def _location(body: Resource, _origin: str) -> None:
    body["_name"] = MASKED_HERE


def _practitioner(body: Resource, _origin: str) -> None:
    body["name"] = [{"_family": MASKED_HERE}]


def _provenance(body: Resource, _origin: str) -> None:
    """provenance-1: a device acts on behalf of an organisation."""
    body["agent"] = [{"onBehalfOf": UNKNOWN_HERE, **agent} for agent in body["agent"]]


def _care_plan(body: Resource, _origin: str) -> None:
    """A narrative is required: this one names the codes of the plan."""
    if "assess-plan" not in _category_codes(body):
        body["category"] = [*body.get("category", ()), {"coding": [_ASSESS_PLAN]}]
    codes = sorted(str(each) for each in _category_codes(body))
    text = "".join(character if character.isalnum() or character in " .-" else " " for character in ", ".join(codes))
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">Care plan: {text}</div>'
    body["text"] = {"status": "generated", "div": div}


_COMPLETE: dict[str, Callable[[Resource, str], None]] = {
    "Patient": _patient,
    "Condition": _condition,
    "Encounter": _encounter,
    "Observation": _observation,
    "Immunization": _immunization,
    "CarePlan": _care_plan,
    "MedicationRequest": _medication_request,
    "MedicationDispense": _medication_dispense,
    "Procedure": _procedure,
    "DiagnosticReport": _diagnostic_report,
    "Organization": _organization,
    "Location": _location,
    "Practitioner": _practitioner,
    "Provenance": _provenance,
}
