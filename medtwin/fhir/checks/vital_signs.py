"""The R4 vital-sign profiles, which the LOINC code of an Observation calls for, whether or not it declares them.

Source: hl7.org/fhir/R4/observation-vitalsigns.html and the profiles in hl7.fhir.r4.core, from which the table of codes,
components and units is made.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from medtwin.fhir.checks.tables import rules_table
from medtwin.fhir.checks.walk import Node, Visit

_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_CATEGORY = ("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")


@cache
def vital_sign_codes() -> dict[str, dict[str, Any]]:
    """By LOINC code: the profile, the units of its value, and the units of its components."""
    table: dict[str, dict[str, Any]] = rules_table()["vital_signs"]
    return table


def check_vital_sign(node: Node, visit: Visit) -> None:
    """What the profile of the Observation's LOINC code asks; nothing for other codes."""
    rules = None
    for coding in _codings(node.get("code")):
        if coding.get("code") in vital_sign_codes() and coding.get("system") == _LOINC:
            rules = vital_sign_codes()[coding["code"]]
    if rules is not None:
        _check_context(node, visit)
        _check_value(node, rules, visit)
        if rules["components"]:
            _check_components(node, rules["components"], visit)


def _check_context(node: Node, visit: Visit) -> None:
    categories = node.get("category")
    listed = categories if isinstance(categories, list) else []
    codings = [coding for each in listed for coding in _codings(each)]
    if not any((each.get("system"), each.get("code")) == _CATEGORY for each in codings):
        visit.add("vital-sign-category", "a vital sign must have the category vital-signs", node, name="category")
    if "subject" not in node:
        visit.add("vital-sign-subject", "a vital sign must have a Patient as its subject", node, name="subject")
    elif _names_other_type(node["subject"]):
        visit.add("vital-sign-subject", "the subject of a vital sign must be a Patient", node, name="subject")
    moment = node.get("effectiveDateTime")
    if not any(f"{sign}{name}" in node for name in ("effectiveDateTime", "effectivePeriod") for sign in ("", "_")):
        message = "a vital sign must have effectiveDateTime or effectivePeriod"
        visit.add("vital-sign-effective", message, node, name="effective")
    elif isinstance(moment, str) and len(moment) < 10:
        visit.add("vs-1", "the time of a vital sign must be precise to the day", node, name="effectiveDateTime")


def _names_other_type(subject: Any) -> bool:
    text = subject.get("reference") if isinstance(subject, dict) else None
    return isinstance(text, str) and text.startswith(("Group/", "Device/", "Location/"))


def _check_value(node: Node, rules: dict[str, Any], visit: Visit) -> None:
    has_value = any(name.startswith("value") for name in node)
    if not has_value and not {"dataAbsentReason", "_dataAbsentReason", "component", "hasMember"} & set(node):
        visit.add("vs-2", "a vital sign must have a value, a dataAbsentReason, components or members", node)
    if rules["profile"] == "vitalspanel" and "hasMember" not in node:
        visit.add("vital-sign-members", "a panel of vital signs must have members", node, name="hasMember")
    if not rules["units"]:
        if has_value:
            visit.add(
                "vital-sign-value", "this vital sign must have its values in parts of its own", node, name="value"
            )
        return
    if has_value:
        _check_quantity(node, rules["units"], visit)


def _check_quantity(node: Node, units: list[str], visit: Visit) -> None:
    quantity = node.get("valueQuantity")
    if not isinstance(quantity, dict):
        visit.add("vital-sign-value", "the value must be a Quantity", node, name="value")
        return
    if not {"value", "_value"} & set(quantity) or not {"unit", "_unit"} & set(quantity):
        visit.add("vital-sign-value", "the quantity must have a value and a unit", node, name="valueQuantity")
    if quantity.get("system") != _UCUM or quantity.get("code") not in units:
        visit.add("vital-sign-unit", f"the unit must be UCUM: {' or '.join(units)}", node, name="valueQuantity")


def _check_components(node: Node, wanted: dict[str, list[str]], visit: Visit) -> None:
    components = node.get("component")
    parts = [each for each in components if isinstance(each, dict)] if isinstance(components, list) else []
    found = {
        coding.get("code"): part
        for part in parts
        for coding in _codings(part.get("code"))
        if coding.get("system") == _LOINC
    }
    for each in parts:
        if not any(name.startswith("value") for name in each) and "dataAbsentReason" not in each:
            visit.add("vs-3", "a component of a vital sign must have a value or a dataAbsentReason", each)
    for code, units in wanted.items():
        if (part := found.get(code)) is None:
            visit.add("vital-sign-component", f"the component LOINC {code} must be there", node, name="component")
        elif any(name.startswith("value") for name in part):
            _check_quantity(part, units, visit)


def _codings(concept: Any) -> list[dict[str, Any]]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    return [each for each in codings if isinstance(each, dict)] if isinstance(codings, list) else []
