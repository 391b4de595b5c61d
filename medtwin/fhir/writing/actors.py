"""Who and where the events of an export refer to: the least that FHIR lets an Organization, a Location ... say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from medtwin.fhir.codings import codes_to_concept
from medtwin.fhir.writing.context import ExportContext
from medtwin.fhir.writing.rows import Resource
from medtwin.fhir.writing.us_core import finish_shared

# Our name for an actor's number, whatever it stands for in the source.
ACTOR_SYSTEM = "urn:medtwin:actor"
_PHYSICAL_TYPE = "terminology.hl7.org/CodeSystem/location-physical-type//"
# Systems that say which trade a role is of rather than which role it is.
_SPECIALTIES = ("SNOMED//", "nucc.org/provider-taxonomy//")


def shared_resources(context: ExportContext, actors: pa.Table, referred: Iterable[str]) -> list[Resource]:
    """A resource for everyone and every place that is referred to, by type and id.

    Args:
        context: The export.
        actors: metadata/actors.parquet: actor_id, resource, codes. Who is not in it gets a resource without codes.
        referred: What `SubjectExport.actors` holds: `Type/<actor_id>`.

    Raises:
        ValueError: If a reference is to another type of resource.
    """
    codes: dict[str, list[str]] = {}
    for row in actors.to_pylist():
        codes[f"{row['resource']}/{row['actor_id']}"] = row["codes"] or []
    return [_resource(context, reference, codes.get(reference, [])) for reference in sorted(set(referred))]


def _resource(context: ExportContext, reference: str, codes: list[str]) -> Resource:
    kind, _, name = reference.partition("/")
    place = _PLACES.get(kind)
    if place is None:
        raise ValueError(f"referred must name {', '.join(_PLACES)}, got {kind}")
    resource: Resource = {
        "resourceType": kind,
        "id": name,
        "meta": context.meta(),
        # org-1 demands an identifier or a name.
        "identifier": [{"system": ACTOR_SYSTEM, "value": name}],
    }
    for code in codes:
        place(resource, code)
    return finish_shared(context, resource)


def _organization(resource: Resource, code: str) -> None:
    resource.setdefault("type", []).append(codes_to_concept(code))


def _location(resource: Resource, code: str) -> None:
    if code.startswith(_PHYSICAL_TYPE) and "physicalType" not in resource:
        resource["physicalType"] = codes_to_concept(code)
    else:
        resource.setdefault("type", []).append(codes_to_concept(code))


def _practitioner(resource: Resource, code: str) -> None:
    resource.setdefault("qualification", []).append({"code": codes_to_concept(code)})


def _role(resource: Resource, code: str) -> None:
    name = "specialty" if code.startswith(_SPECIALTIES) else "code"
    resource.setdefault(name, []).append(codes_to_concept(code))


_PLACES: dict[str, Callable[[Resource, str], None]] = {
    "Organization": _organization,
    "Location": _location,
    "Practitioner": _practitioner,
    "PractitionerRole": _role,
}
