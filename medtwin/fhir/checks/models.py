"""The models layer: the structure as fhir.resources.R4B sees it, an implementation that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from medtwin.core.findings import Finding
from medtwin.fhir.checks.tables import path_text, resource_types

# R4B has these names for other resources: their elements are not those of R4.
_OF_R4B_ONLY = frozenset({"Evidence", "EvidenceVariable"})


@cache
def _model(kind: str) -> Any:
    if kind in _OF_R4B_ONLY:
        return None
    from fhir.resources.R4B import get_fhir_model_class

    try:
        return get_fhir_model_class(kind)
    except (KeyError, ValueError):
        return None


def check_models(resource: dict[str, Any]) -> Iterator[Finding]:
    """What fhir.resources finds: unknown elements, wrong types, missing elements, several value[x].

    R4B has no model for 18 of the types of R4 (MedicinalProduct and Substance details, evidence syntheses), and other
    ones for two. A resource of these types, or one that holds such a resource, is not checked.
    """
    from pydantic import ValidationError

    model = _model(resource["resourceType"])
    if model is None or not all(_model(kind) for kind in _kinds_within(resource)):
        yield Finding(
            "unchecked-type", "fhir.resources has no such R4 type: its structure was not checked", "information"
        )
        return
    try:
        model.model_validate(resource)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            path = path_text([step.removeprefix("_") if isinstance(step, str) else step for step in each["loc"]])
            yield Finding("structure", f"the element is not valid FHIR R4: {each['type']}", where=path)
    except (TypeError, LookupError, AttributeError, ValueError, RecursionError):
        # What its code does not expect: names that are no texts, an unknown type within, nesting without end.
        yield Finding("structure", "the resource has a shape that fhir.resources cannot read")


def _kinds_within(value: Any) -> set[str]:
    """The resource types of what is contained, in entries or in parameters; those of R4 only."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            kind = node.get("resourceType")
            if isinstance(kind, str) and kind in resource_types():
                found.add(kind)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return found
