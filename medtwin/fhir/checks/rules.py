"""The rules layer: invariants that no schema can say, references within a resource, units, narratives, vital signs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

from medtwin.core.findings import Finding
from medtwin.fhir.checks.datatypes import datatype_checks
from medtwin.fhir.checks.tables import resource_types
from medtwin.fhir.checks.vital_signs import check_vital_sign
from medtwin.fhir.checks.walk import Check, Node, Shape, Visit, invariant_checks, shape_of, walk

Resource: TypeAlias = dict[str, Any]


def check_rules(visit: Visit) -> list[Finding]:
    """What the rules find in one resource of a known type; its references are gathered in the visit."""
    resource = visit.resource
    try:
        walk(resource, resource_shape(resource["resourceType"]), visit)
        return list(visit.findings()) if visit.hits else []
    except RecursionError:
        return [Finding("nesting", "elements must not be nested so deep")]


@cache
def resource_shape(kind: str) -> Shape:
    """The walk's table of a resource type."""
    return shape_of(kind, checks_of)


@cache
def checks_of(name: str) -> tuple[Check, ...]:
    """All checks of the elements of a type."""
    checks = [*datatype_checks(name), *invariant_checks(name)]
    if name in resource_types():
        checks.append(check_contained)
        checks.append(check_identity)
    if name == "Observation":
        checks.append(check_vital_sign)
    elif name == "Bundle.entry":
        checks += [check_full_url, check_request]
    return tuple(checks)


def check_identity(node: Node, visit: Visit) -> None:
    """Ids that some servers refuse: purely numeric ones."""
    name = node.get("id")
    if isinstance(name, str) and name.isdecimal():
        visit.add(
            "numeric-id", "id should have a letter: servers keep numeric ids to themselves", node, "warning", "id"
        )


def check_contained(node: Node, visit: Visit) -> None:
    """dom-3: what is contained is referred to, or refers to its container; ids are there, and unique."""
    contained = node.get("contained")
    if not isinstance(contained, list):
        return
    texts = set(_texts(node))
    names: set[str] = set()
    for each in contained:
        name = each.get("id") if isinstance(each, dict) else None
        if not isinstance(name, str):
            visit.add("contained-id", "a contained resource must have an id", each, name="id")
        elif name in names:
            visit.add("duplicate-id", "the ids of contained resources must be unique", each, name="id")
        elif f"#{name}" not in texts and "#" not in set(_texts(each)):
            visit.add("dom-3", "a contained resource must be referred to, or refer to its container", each)
        names.add(str(name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def check_full_url(node: Node, visit: Visit) -> None:
    """The full URL of an entry ends in the type and id of its resource, unless it is a URN."""
    url, resource = node.get("fullUrl"), node.get("resource")
    if not isinstance(url, str) or not isinstance(resource, dict) or not url.startswith(("http://", "https://")):
        return
    steps = url.split("/")
    if len(steps) < 2 or steps[-2] not in resource_types() or not isinstance(resource.get("id"), str):
        return
    if (steps[-2], steps[-1]) != (resource.get("resourceType"), resource["id"]):
        visit.add("full-url", "fullUrl must end in the type and the id of the resource", node, name="fullUrl")


def check_request(node: Node, visit: Visit) -> None:
    """A request creates or updates a resource of the type that its URL names, and of that id."""
    request, resource = node.get("request"), node.get("resource")
    if not isinstance(request, dict) or not isinstance(resource, dict) or request.get("method") not in ("POST", "PUT"):
        return
    url = request.get("url")
    steps = url.partition("?")[0].strip("/").split("/") if isinstance(url, str) else []
    if not steps or steps[0] not in resource_types() or len(steps) > 2 or steps[-1][:1] in ("$", "_"):
        return
    named_id = steps[1] if len(steps) == 2 and request["method"] == "PUT" else resource.get("id")
    if steps[0] != resource.get("resourceType") or named_id != resource.get("id"):
        visit.add("bundle-request", "url must name the type and the id of the resource", node, name="request")
