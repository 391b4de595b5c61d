"""What R4's vital-sign profiles demand of an Observation with one of their LOINC codes, and blood pressure as a panel.

Source: hl7.org/fhir/R4/observation-vitalsigns.html.
"""

from __future__ import annotations

import re

from medtwin.core.codes import SYSTEMS, preferred
from medtwin.fhir.codings import JOIN, UCUM, code_to_coding
from medtwin.fhir.terms import VITAL_SIGNS
from medtwin.fhir.writing.rows import Resource

PANEL, SYSTOLIC, DIASTOLIC = "LOINC//85354-9", "LOINC//8480-6", "LOINC//8462-4"
_PANEL_CODE = PANEL.removeprefix("LOINC//")
_SATURATION = ("LOINC//59408-5", "LOINC//2708-6")
_CATEGORY: Resource = {"coding": [{"system": SYSTEMS["OBSCATEGORY"], "code": "vital-signs"}]}
UNKNOWN: Resource = {"coding": [{"system": SYSTEMS["ABSENTREASON"], "code": "unknown"}]}
_PER_MINUTE, _LENGTH, _PRESSURE = ("/min",), ("cm", "[in_i]"), ("mm[Hg]",)
UNITS: dict[str, tuple[str, ...]] = {
    "9279-1": _PER_MINUTE,
    "8867-4": _PER_MINUTE,
    "2708-6": ("%",),
    "59408-5": ("%",),
    "8310-5": ("Cel", "[degF]"),
    "8302-2": _LENGTH,
    "9843-4": _LENGTH,
    "29463-7": ("g", "kg", "[lb_av]"),
    "39156-5": ("kg/m2",),
    "8480-6": _PRESSURE,
    "8462-4": _PRESSURE,
    "8478-0": _PRESSURE,
}
_IMPLIED = frozenset({"9279-1", "8867-4", "39156-5"})
_PRESSURES = frozenset({"8480-6", "8462-4", "8478-0"})
_ANNOTATION = re.compile(r"\{[^{}]*\}")


def vital_sign(code: str, source_code: str | None) -> str | None:
    """The LOINC code by which the vital-sign profiles claim a concept; None if they do not."""
    for each in (code, *(source_code or "").split(JOIN)):
        bare = each.removeprefix("LOINC//")
        if bare != each and bare in VITAL_SIGNS:
            return bare
    return None


def all_codings(code: str, source_code: str | None) -> str | None:
    """`source_code`, with both codings of an oxygen saturation by pulse oximetry: US Core demands both."""
    codes = source_code.split(JOIN) if source_code else [code]
    if not set(codes) & set(_SATURATION):
        return source_code
    codes += [each for each in _SATURATION if each not in codes]
    return JOIN.join([code, *(each for each in codes if each != code)] if preferred(codes) != code else codes)


def vital_quantity(quantity: Resource, loinc: str) -> Resource:
    """The quantity with the UCUM code that the profiles fix, where its own means the same: `{beats}/min` is `/min`.

    An annotation in braces says nothing to UCUM (section 12, annotations); it stays as the unit that people read. A
    rate without any unit gets the one that its code implies: nobody counts heartbeats by another time, or a body mass
    index in another unit. A pressure, a saturation, a length could be meant otherwise, and stays without.
    """
    allowed = UNITS.get(loinc)
    code = quantity.get("code")
    if "unit" not in quantity and code is None and loinc in _IMPLIED:
        return quantity | {"unit": UNITS[loinc][0], "system": UCUM, "code": UNITS[loinc][0]}
    if allowed is None or code is None or code in allowed or quantity.get("system") != UCUM:
        return quantity
    plain = _ANNOTATION.sub("", code)
    plain = plain[1:] if plain.startswith("1/") else plain
    return quantity | {"code": plain} if plain in allowed else quantity


def add_panel_code(body: Resource) -> bool:
    """Adds the code of the blood pressure panel to an Observation that is one by its components, whatever its own code.

    Older sources have other codes for the panel, such as LOINC 55284-4, which LOINC has deprecated since.

    Returns:
        Whether it is one.
    """
    parts = {_loinc_of(component) for component in body["component"]}
    if not {"8480-6", "8462-4"} <= parts <= _PRESSURES:
        return False
    quantities = [component["valueQuantity"] for component in body["component"] if "valueQuantity" in component]
    if any(quantity.get("code") not in _PRESSURE for quantity in quantities):
        return False
    body["code"] = {**body["code"], "coding": [*body["code"]["coding"], code_to_coding(PANEL)]}
    return True


def _loinc_of(component: Resource) -> str | None:
    codes = [each.get("code") for each in component["code"]["coding"] if each.get("system") == SYSTEMS["LOINC"]]
    return next((code for code in codes if code in _PRESSURES), None)


def complete_vital_sign(body: Resource) -> None:
    """Adds what the profiles demand: the category, both pressures of a panel, a reason where there is no value.

    Source: hl7.org/fhir/R4/observation-vitalsigns.html (vs-2, vs-3) and bp.html (slices SystolicBP, DiastolicBP).
    """
    categories = body.get("category", [])
    words = {coding.get("code") for each in categories for coding in each.get("coding", ())}
    if "vital-signs" not in words:
        body["category"] = [*categories, _CATEGORY]
    if any(coding.get("code") == _PANEL_CODE for coding in body["code"]["coding"]):
        parts = body.get("component", [])
        there = {_loinc_of(part) for part in parts}
        absent = [code for code in (SYSTOLIC, DIASTOLIC) if code.removeprefix("LOINC//") not in there]
        if absent:
            body["component"] = [*parts, *({"code": {"coding": [code_to_coding(code)]}} for code in absent)]
    if not any(name in body for name in ("component", "hasMember")):
        add_absent_reason(body)
    for component in body.get("component", ()):
        add_absent_reason(component)


def add_absent_reason(holder: Resource) -> None:
    """Says that a value is not known, where there is none and no other reason."""
    if "dataAbsentReason" not in holder and not any(name.startswith("value") for name in holder):
        holder["dataAbsentReason"] = UNKNOWN
