"""Checks of FHIR R4 resources: structure by fhir.resources, required value sets, reference types, and invariants.

What no check here covers: terminology content (LOINC, SNOMED CT, UCUM) and profiles. fhir.resources has R4B, which is
identical to R4 for every resource type that medtwin writes. A strict JSON-schema layer can join `_LAYERS`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

from medtwin.core.findings import Finding
from medtwin.fhir.codings import parse_reference
from medtwin.fhir.elements import TABLES, Element, Kind
from medtwin.fhir.terms import ELEMENT_NAMES, RESOURCE_TYPES

Resource = dict[str, Any]
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
# The tables name fewer targets than FHIR allows, but all of those types that are rows.
_TARGETS = frozenset({"Patient", *TABLES})
_GENDERS = frozenset({"male", "female", "other", "unknown"})


def validate_resource(resource: Resource) -> list[Finding]:
    """Every rule that a resource breaks; empty for one that passes all layers. No message repeats a value."""
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or kind not in RESOURCE_TYPES:
        return [Finding("unknown-type", "resourceType must name a FHIR R4 resource type")]
    findings = [finding for layer in _LAYERS for finding in layer(resource)]
    where = f"{kind}/{resource.get('id', '')}" if _is_id(resource.get("id")) else kind
    return [Finding(each.rule, each.message, each.severity, f"{where} {each.where}".rstrip()) for each in findings]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


@cache
def _model(kind: str) -> Any:
    from fhir.resources.R4B import get_fhir_model_class

    try:
        return get_fhir_model_class(kind)
    except KeyError:
        return None


def _structure(resource: Resource) -> Iterator[Finding]:
    """What fhir.resources finds: unknown elements, wrong types, missing elements, several value[x]."""
    from pydantic import ValidationError

    model = _model(resource["resourceType"])
    if model is None:
        yield Finding("unchecked-type", "fhir.resources has no such type: its structure was not checked", "information")
        return
    try:
        model.model_validate(resource)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            path = ".".join(_step(step) for step in each["loc"])
            yield Finding("structure", f"the element is not valid FHIR R4: {each['type']}", where=path)


def _step(step: int | str) -> str:
    return str(step) if isinstance(step, int) or step.lstrip("_") in ELEMENT_NAMES else "?"


def _identity(resource: Resource) -> Iterator[Finding]:
    if not _is_id(resource.get("id")):
        yield Finding("id", "id must be 1 to 64 letters, digits, hyphens and dots", where="id")


def _value_sets(resource: Resource) -> Iterator[Finding]:
    """Codes with a required binding: the status, and the closed words of the element tables."""
    kind = resource["resourceType"]
    if kind == "Patient" and resource.get("gender", "unknown") not in _GENDERS:
        yield Finding("value-set", "gender must be in its required value set", where="gender")
    table = TABLES.get(kind)
    if table is None:
        return
    status = resource.get(table.status)
    words = _concept_words(status) if table.status_system else [status] if status is not None else []
    if any(word not in table.statuses for word in words):
        yield Finding("value-set", "the status must be in its required value set", where=table.status)
    for element in table.elements:
        values = _values(resource, element) if element.kind is Kind.CODE and not element.row else []
        if any(not isinstance(value, str) or value not in element.words for value in values):
            yield Finding("value-set", "the code must be in its required value set", where=element.path)


def _concept_words(concept: Any) -> list[Any]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    return [each.get("code") for each in codings if isinstance(each, dict)] if isinstance(codings, list) else []


def _values(resource: Resource, element: Element) -> list[Any]:
    """What stands at the path of an element, in every repetition."""
    found: list[Any] = [resource]
    for name, _ in element.steps:
        inner = [each[name] for each in found if isinstance(each, dict) and name in each]
        found = [each for value in inner for each in (value if isinstance(value, list) else [value])]
    return found


def _reference_types(resource: Resource) -> Iterator[Finding]:
    table = TABLES.get(resource["resourceType"])
    if table is None:
        return
    patient = Element(table.subject, Kind.REFERENCE, targets=frozenset({"Patient", "Group"}))
    for element in (patient, *table.elements):
        if element.kind is not Kind.REFERENCE:
            continue
        for value in _values(resource, element):
            text = value.get("reference") if isinstance(value, dict) else None
            target = parse_reference(text) if isinstance(text, str) else None
            if target is not None and target[0] in _TARGETS and target[0] not in element.targets:
                message = f"the reference must be to {' or '.join(sorted(element.targets))}"
                yield Finding("reference-type", message, where=element.path)


def _periods(resource: Resource) -> Iterator[Finding]:
    """per-1: a period must not end before it starts; compared as instants where both are."""
    for path, value in _objects(resource, ""):
        start, end = value.get("start"), value.get("end")
        if isinstance(start, str) and isinstance(end, str) and _is_before(end, start):
            yield Finding("per-1", "the period must not end before it starts", where=path)


def _is_before(first: str, second: str) -> bool:
    if len(first) > 10 and len(second) > 10:
        try:
            return datetime.fromisoformat(first) < datetime.fromisoformat(second)
        except (ValueError, TypeError):
            return False
    length = min(len(first), len(second), 10)
    return first[:length] < second[:length]


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within a value, with its path."""
    if isinstance(value, dict):
        yield path, value
        for name, inner in value.items():
            yield from _objects(inner, f"{path}.{_step(name)}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner, path)


def _quantities(resource: Resource) -> Iterator[Finding]:
    """qty-3: a coded unit needs its system."""
    for path, value in _objects(resource, ""):
        if "value" in value and "code" in value and "system" not in value:
            yield Finding("qty-3", "a unit with a code must have a system", where=path)


def _observation(resource: Resource) -> Iterator[Finding]:
    if resource["resourceType"] != "Observation":
        return
    holders = [each for each in (resource, *_list(resource.get("component"))) if isinstance(each, dict)]
    for holder in holders:
        if "dataAbsentReason" in holder and any(name.startswith("value") for name in holder):
            yield Finding("obs-6", "dataAbsentReason must stand only where there is no value", where="dataAbsentReason")
    own = _codings(resource.get("code"))
    has_value = any(name.startswith("value") for name in resource)
    if has_value and any(own & _codings(component.get("code")) for component in holders[1:]):
        yield Finding("obs-7", "with a component of the same code there must be no value", where="value")
    for limits in _list(resource.get("referenceRange")):
        if isinstance(limits, dict) and not {"low", "high", "text"} & set(limits):
            yield Finding("obs-3", "a reference range must have low, high or text", where="referenceRange")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _codings(concept: Any) -> set[tuple[Any, Any]]:
    codings = _list(concept.get("coding")) if isinstance(concept, dict) else []
    return {(str(each.get("system")), str(each.get("code"))) for each in codings if isinstance(each, dict)}


def _condition(resource: Resource) -> Iterator[Finding]:
    kind = resource["resourceType"]
    clinical = set(_concept_words(resource.get("clinicalStatus")))
    is_over = kind == "Condition" and any(name.startswith("abatement") for name in resource)
    if is_over and clinical and not clinical & {"inactive", "resolved", "remission"}:
        yield Finding("con-4", "what has abated must be inactive, resolved or in remission", where="clinicalStatus")
    is_withdrawn = "entered-in-error" in _concept_words(resource.get("verificationStatus"))
    if kind == "AllergyIntolerance" and not clinical and not is_withdrawn:
        yield Finding("ait-1", "clinicalStatus must be there unless entered in error", where="clinicalStatus")


_LAYERS: tuple[Callable[[Resource], Iterator[Finding]], ...] = (
    _structure,
    _identity,
    _value_sets,
    _reference_types,
    _periods,
    _quantities,
    _observation,
    _condition,
)


def validate_references(resources: Iterable[Resource]) -> list[Finding]:
    """References of an export that lead nowhere in it, and ids that stand twice; counted by type and target type."""
    known: set[int] = set()
    twice: Counter[str] = Counter()
    wanted: dict[int, str] = {}
    counts: Counter[int] = Counter()
    for resource in resources:
        kind = str(resource.get("resourceType"))
        key = hash((kind, resource.get("id")))
        if key in known:
            twice[kind] += 1
        known.add(key)
        for _, value in _objects(resource, ""):
            target = parse_reference(text) if isinstance(text := value.get("reference"), str) else None
            if target is not None:
                counts[hash(target)] += 1
                wanted[hash(target)] = f"{kind} to {target[0] if target[0] in RESOURCE_TYPES else 'unknown'}"
    dangling: Counter[str] = Counter()
    for key, place in wanted.items():
        if key not in known:
            dangling[place] += counts[key]
    findings = [
        Finding("duplicate-id", "type and id must be unique", where=kind, count=count) for kind, count in twice.items()
    ]
    message = "a reference must lead to a resource of the export"
    return findings + [Finding("dangling-reference", message, where=at, count=count) for at, count in dangling.items()]
