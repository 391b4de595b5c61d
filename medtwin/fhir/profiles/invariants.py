"""The invariants of US Core and of the R4 vital-sign profiles, by key.

Source: US Core 6.1.0 and hl7.fhir.r4.core 4.0.1; the severity is `error` for all of them. Those that are warnings
(us-core-4 SNOMED CT for coded results, us-core-5 NDC beside CVX) do not decide whether a profile is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
ABSENT_URL = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
UCUM = "http://unitsofmeasure.org"
MEMBER_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-0203"
_ORDERS = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
_RELEASED = ("partial", "preliminary", "final", "amended", "corrected", "appended")


@dataclass(frozen=True)
class Invariant:
    """A rule over several elements of one object.

    Attributes:
        key: As HL7 names it.
        message: What it demands.
        holds: Whether it holds for an object.
    """

    key: str
    message: str
    holds: Callable[[Object], bool]


def has_any(holder: Object, *names: str) -> bool:
    """Whether one of the elements is there; an element that is only an extension counts, as in FHIRPath `exists()`."""
    return any(name in holder or f"_{name}" in holder for name in names)


def has_choice(holder: Object, name: str) -> bool:
    """Whether a choice element (`value` for value[x]) is there.

    >>> has_choice({"valueQuantity": {}}, "value"), has_choice({"valueSet": ""}, "effective")
    (True, False)
    """
    size = len(name)
    return any(
        (key.startswith(name) and key[size : size + 1].isupper())
        or (key.startswith(f"_{name}") and key[size + 1 : size + 2].isupper())
        for key in holder
    )


def items_of(value: Any) -> list[Any]:
    """A value as a list: itself, its one item, or nothing."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _starts_at_day(holder: Object) -> bool:
    moment = holder.get("effectiveDateTime")
    return not isinstance(moment, str) or len(moment) >= 10


def _has_value_or_reason(holder: Object) -> bool:
    if has_any(holder, "dataAbsentReason", "component", "hasMember"):
        return True
    return has_choice(holder, "value")


def _component_has_value(holder: Object) -> bool:
    return has_any(holder, "dataAbsentReason") or has_choice(holder, "value")


def _unit_is_ucum(holder: Object) -> bool:
    quantity = holder.get("valueQuantity")
    return not isinstance(quantity, dict) or quantity.get("system", UCUM) == UCUM


def _name_or_reason(holder: Object) -> bool:
    extensions = items_of(holder.get("extension"))
    is_absent = any(isinstance(each, dict) and each.get("url") == ABSENT_URL for each in extensions)
    return has_any(holder, "family", "given") != is_absent


def _npi_digits(holder: Object) -> bool:
    value = holder.get("value")
    return value is None or (isinstance(value, str) and re.fullmatch("[0-9]{10}", value) is not None)


def _npi_check_digit(holder: Object) -> bool:
    """Luhn over the number with the prefix 80840, whose digits add 24.

    >>> _npi_check_digit({"value": "1234567893"}), _npi_check_digit({"value": "1234567890"})
    (True, False)
    """
    if holder.get("value") is None or not _npi_digits(holder):
        return True
    digits = [int(digit) for digit in holder["value"]]
    doubled = [2 * digit if digit < 5 else 2 * digit - 9 for digit in digits[0:9:2]]
    return (sum(doubled) + sum(digits[1::2]) + 24) % 10 == 0


def _value_like(pattern: str) -> Callable[[Object], bool]:
    compiled = re.compile(pattern)

    def holds(holder: Object) -> bool:
        value = holder.get("value")
        return value is None or (isinstance(value, str) and compiled.fullmatch(value) is not None)

    return holds


def _agent_on_behalf(holder: Object) -> bool:
    who = holder.get("who")
    text = who.get("reference") if isinstance(who, dict) else None
    is_deputy = isinstance(text, str) and re.search(r"(^|/)(Practitioner|Device)/[^/]+(/_history/[^/]+)?$", text)
    return not is_deputy or has_any(holder, "onBehalfOf")


def _has_member_id(holder: Object) -> bool:
    if has_any(holder, "subscriberId"):
        return True
    types = [each.get("type") for each in items_of(holder.get("identifier")) if isinstance(each, dict)]
    codings = [coding for each in types if isinstance(each, dict) for coding in items_of(each.get("coding"))]
    return any(
        isinstance(each, dict) and (each.get("system"), each.get("code")) == (MEMBER_SYSTEM, "MB") for each in codings
    )


def _released(holder: Object) -> bool:
    return holder.get("status") in _RELEASED


_ALL = (
    Invariant("us-core-1", "effectiveDateTime must be precise to the day or finer", _starts_at_day),
    Invariant(
        "us-core-2", "without component or hasMember there must be a value or a dataAbsentReason", _has_value_or_reason
    ),
    Invariant("us-core-3", "the system of valueQuantity must be UCUM", _unit_is_ucum),
    Invariant("us-core-6-name", "there must be family or given, or else a data-absent-reason", _name_or_reason),
    Invariant("us-core-6-attachment", "there must be url or data", lambda holder: has_any(holder, "url", "data")),
    Invariant(
        "us-core-7",
        "performed[x] must be there when completed or in progress",
        lambda holder: holder.get("status") not in ("completed", "in-progress") or has_choice(holder, "performed"),
    ),
    Invariant(
        "us-core-8",
        "effective[x] must be there once a report is released",
        lambda holder: not _released(holder) or has_choice(holder, "effective"),
    ),
    Invariant(
        "us-core-9",
        "issued must be there once a report is released",
        lambda holder: not _released(holder) or has_any(holder, "issued"),
    ),
    Invariant(
        "us-core-10",
        "effective[x] must be there once a report is released",
        lambda holder: not _released(holder) or has_choice(holder, "effective"),
    ),
    Invariant(
        "us-core-13",
        "there must be a practitioner, organization, healthcareService or location",
        lambda holder: has_any(holder, "practitioner", "organization", "healthcareService", "location"),
    ),
    Invariant("pd-1", "there must be telecom or endpoint", lambda holder: has_any(holder, "telecom", "endpoint")),
    Invariant(
        "us-core-14", "there must be a name or a relationship", lambda holder: has_any(holder, "name", "relationship")
    ),
    Invariant("us-core-15", "there must be a member identifier (MB) or subscriberId", _has_member_id),
    Invariant("us-core-16", "an NPI must have 10 digits", _npi_digits),
    Invariant("us-core-17", "the check digit of an NPI must be right", _npi_check_digit),
    Invariant("us-core-18", "a CLIA number must be 2 digits, D and 7 digits", _value_like("[0-9]{2}D[0-9]{7}")),
    Invariant("us-core-19", "a NAIC code must have 5 digits", _value_like("[0-9]{5}")),
    Invariant(
        "us-core-20",
        "whenHandedOver must be there when completed",
        lambda holder: holder.get("status") != "completed" or has_any(holder, "whenHandedOver"),
    ),
    Invariant(
        "us-core-21",
        "an order must have a requester",
        lambda holder: holder.get("intent") not in _ORDERS or has_any(holder, "requester"),
    ),
    Invariant("provenance-1", "what a Practitioner or Device did must be onBehalfOf an organization", _agent_on_behalf),
    Invariant("vs-1", "effectiveDateTime must be precise to the day or finer", _starts_at_day),
    Invariant(
        "vs-2", "without component or hasMember there must be a value or a dataAbsentReason", _has_value_or_reason
    ),
    Invariant("vs-3", "a component must have a value or a dataAbsentReason", _component_has_value),
)
INVARIANTS = {invariant.key: invariant for invariant in _ALL}
