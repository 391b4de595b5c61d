"""Rules of datatypes that a schema cannot say: periods, ranges, references, units, narratives, whole numbers."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from medtwin.core.findings import Severity
from medtwin.core.units import is_ucum
from medtwin.fhir.checks.narrative import narrative_fault
from medtwin.fhir.checks.order import UndecidedError, is_certainly_before, is_ordered
from medtwin.fhir.checks.tables import resource_types, rules_table
from medtwin.fhir.checks.walk import Check, Node, Visit

UCUM = "http://unitsofmeasure.org"
_QUANTITIES = frozenset({"Quantity", "SimpleQuantity", "Age", "Count", "Distance", "Duration", "MoneyQuantity"})
_REST = re.compile(r"https?://[^?#]*/([A-Z][A-Za-z]+)/([A-Za-z0-9.\-]{1,64})(?:/_history/[A-Za-z0-9.\-]{1,64})?")
Pair: TypeAlias = tuple[str, str, str, Severity]
# Two values of one object whose order is certain: the first must not exceed the second.
ORDERS: dict[str, tuple[Pair, ...]] = {
    "Patient": (("birthDate", "deceasedDateTime", "death-before-birth", "error"),),
    "FamilyMemberHistory": (("bornDate", "deceasedDate", "death-before-birth", "error"),),
    "Condition": (("onsetDateTime", "abatementDateTime", "abatement-before-onset", "error"),),
    "AllergyIntolerance": (("onsetDateTime", "lastOccurrence", "date-order", "error"),),
    "Appointment": (("start", "end", "date-order", "error"),),
    "AppointmentResponse": (("start", "end", "date-order", "error"),),
    "Slot": (("start", "end", "date-order", "error"),),
    "Device": (("manufactureDate", "expirationDate", "date-order", "error"),),
    "Observation": (("effectiveDateTime", "issued", "issued-before-effective", "warning"),),
    "DiagnosticReport": (("effectiveDateTime", "issued", "issued-before-effective", "warning"),),
    "Immunization": (("occurrenceDateTime", "expirationDate", "expired-product", "warning"),),
    "Observation.referenceRange": (("low", "high", "range-order", "warning"),),
    "SampledData": (("lowerLimit", "upperLimit", "range-order", "error"),),
    "Timing.repeat": (
        ("count", "countMax", "range-order", "error"),
        ("frequency", "frequencyMax", "range-order", "error"),
        ("duration", "durationMax", "range-order", "error"),
        ("period", "periodMax", "range-order", "error"),
    ),
}
# A number of parts, all of which need not be there, and their list.
COUNTS: dict[str, tuple[str, str]] = {
    "ImagingStudy": ("numberOfSeries", "series"),
    "ImagingStudy.series": ("numberOfInstances", "instance"),
}
_DANGLING = "a reference to a contained resource must find it"


def datatype_checks(name: str) -> tuple[Check, ...]:
    """The checks of a type's elements, by the name of its definition."""
    base, _, targets = name.partition(":")
    found = list(_BY_TYPE.get(base, ()))
    if name == "CodeableConcept:ucum-units":
        found.append(check_unit_codings)
    if base == "Reference":
        found.append(_reference_check(frozenset(targets.split(",")) if targets else frozenset()))
    if integers := rules_table()["integers"].get("Quantity" if base == "SimpleQuantity" else base):
        found.append(_integer_check(tuple(integers)))
    if canonicals := rules_table()["canonicals"].get(base):
        found.append(_canonical_check(tuple(canonicals)))
    if counted := COUNTS.get(base):
        found.append(_count_check(*counted))
    if pairs := ORDERS.get(base):
        found.append(_order_check(pairs))
    return tuple(found)


def check_period(node: Node, visit: Visit) -> None:
    """per-1: a period does not end before it starts; instants are compared across offsets."""
    start, end = node.get("start"), node.get("end")
    if not (isinstance(start, str) and isinstance(end, str)):
        return
    if is_certainly_before(end, start):
        visit.add("per-1", "the period must not end before it starts", node)
    elif len(start) != len(end) and min(len(start), len(end)) <= 10:
        message = "start and end should have the same precision: else their order is open to some servers"
        visit.add("period-precision", message, node, "warning")


def check_range(node: Node, visit: Visit) -> None:
    """rng-2: the low end is not above the high one, where both have the same unit."""
    low, high = node.get("low"), node.get("high")
    if isinstance(low, dict) and isinstance(high, dict):
        try:
            if not is_ordered(low, high):
                visit.add("rng-2", "low must not be above high", node)
        except UndecidedError:
            pass


def check_narrative(node: Node, visit: Visit) -> None:
    """txt-1, txt-2: the division is safe XHTML, and not empty."""
    div = node.get("div")
    if isinstance(div, str) and (fault := narrative_fault(div)):
        visit.add("txt-2" if "content" in fault else "txt-1", fault, node, name="div")


def check_attachment(node: Node, visit: Visit) -> None:
    """The size of an attachment is that of its data, before it became base64."""
    data, size = node.get("data"), node.get("size")
    if isinstance(data, str) and isinstance(size, int):
        packed = "".join(data.split())
        if len(packed) % 4 == 0 and len(packed) // 4 * 3 - packed.count("=") != size:
            visit.add("attachment-size", "size must be the number of bytes of data", node, name="size")


def check_unit(node: Node, visit: Visit) -> None:
    """A unit that claims to be UCUM is UCUM."""
    if node.get("system") == UCUM:
        code = node.get("code")
        if isinstance(code, str) and not is_ucum(code):
            visit.add("ucum", "a code of UCUM must be a valid, case-sensitive UCUM expression", node, name="code")


def check_unit_codings(node: Node, visit: Visit) -> None:
    """The same for a unit that is a CodeableConcept."""
    codings = node.get("coding")
    for each in codings if isinstance(codings, list) else ():
        if isinstance(each, dict):
            check_unit(each, visit)


def _integer_check(names: tuple[str, ...]) -> Check:
    """JSON schema takes 1.0 for an integer; FHIR does not."""

    def check(node: Node, visit: Visit) -> None:
        for name in names:
            value = node.get(name)
            values = value if isinstance(value, list) else (value,)
            if any(isinstance(each, float) for each in values):
                visit.add("json-type", "an integer must be written without a fraction", node, name=name)

    return check


def _canonical_check(names: tuple[str, ...]) -> Check:
    """A canonical that begins with # means something contained."""

    def check(node: Node, visit: Visit) -> None:
        for name in names:
            value = node.get(name)
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, str) and each[:1] == "#" and _contained_type(each[1:], visit) is None:
                    visit.add("ref-1", _DANGLING, node, name=name)

    return check


def _count_check(number: str, parts: str) -> Check:
    def check(node: Node, visit: Visit) -> None:
        count, listed = node.get(number), node.get(parts)
        if isinstance(count, int) and isinstance(listed, list) and count < len(listed):
            visit.add("too-many-parts", f"{number} must not be less than what {parts} lists", node, name=number)

    return check


def _order_check(pairs: tuple[Pair, ...]) -> Check:
    def check(node: Node, visit: Visit) -> None:
        for early, late, rule, severity in pairs:
            if late in node and early in node:
                try:
                    if not is_ordered(node[early], node[late]):
                        visit.add(rule, f"{late} must not lie before {early}", node, severity, late)
                except UndecidedError:
                    pass

    return check


def _reference_check(targets: frozenset[str]) -> Check:
    def check(node: Node, visit: Visit) -> None:
        text = node.get("reference")
        if isinstance(text, str):
            if ":" in text or text[:1] == "#":
                _check_target(node, text, targets, visit)
            if "type" in node:
                _check_type(node, text, visit)
            if visit.references is not None:
                visit.references.append(node)
        elif "type" in node and targets:
            kind = node["type"]
            if kind in resource_types() and kind not in targets:
                _blame_type(node, targets, visit)

    return check


def _check_target(node: Node, text: str, targets: frozenset[str], visit: Visit) -> None:
    """What an absolute, a contained or a bundled reference means, as far as that can be told."""
    kind: Any = None
    if text[0] == "#":
        if text == "#":
            return
        kind = _contained_type(text[1:], visit)
        if kind is None:
            visit.add("ref-1", _DANGLING, node, name="reference")
    elif text.startswith("urn:"):
        if visit.full_urls is None:
            return
        kind = visit.full_urls.get(text)
        if kind is None and text.startswith(("urn:uuid:", "urn:oid:")):
            visit.add(
                "dangling-reference", "a URN must be the fullUrl of an entry of the bundle", node, name="reference"
            )
    elif match := _REST.fullmatch(text):
        kind = match.group(1)
    if targets and kind in resource_types() and kind not in targets:
        _blame_type(node, targets, visit)


def _contained_type(name: str, visit: Visit) -> Any:
    contained = visit.root.get("contained")
    for each in contained if isinstance(contained, list) else ():
        if isinstance(each, dict) and each.get("id") == name:
            return each.get("resourceType")
    return None


def _check_type(node: Node, text: str, visit: Visit) -> None:
    """Reference.type and the type that the text names are the same."""
    kind = node["type"]
    steps = text.partition("/_history/")[0].partition("?")[0].split("/")
    named = next((step for step in steps[-2:] if step in resource_types()), None)
    if named is not None and kind in resource_types() and kind != named:
        visit.add("reference-type", "type must be the type that reference names", node, name="type")


def _blame_type(node: Node, targets: frozenset[str], visit: Visit) -> None:
    visit.add("reference-type", f"the reference must be to {' or '.join(sorted(targets))}", node, name="reference")


_BY_TYPE: dict[str, tuple[Check, ...]] = {
    "Period": (check_period,),
    "Range": (check_range,),
    "Attachment": (check_attachment,),
    "Narrative": (check_narrative,),
    **dict.fromkeys(_QUANTITIES, (check_unit,)),
}
