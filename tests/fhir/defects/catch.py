"""What medtwin says of the planted defects: only errors count, for a warning refuses nothing."""

from __future__ import annotations

from medtwin.core.findings import errors_in
from medtwin.fhir import validate_references, validate_resource
from tests.fhir.defects import SET_KINDS, Defect, Resource, hospital


def is_caught(defect: Defect, bases: dict[str, Resource]) -> bool:
    """Whether medtwin finds an error: in the resource, or in the set of resources for a defect of a set."""
    if defect.kind in SET_KINDS:
        return bool(errors_in(validate_references(defect.plant_in_hospital(bases))))
    return bool(errors_in(validate_resource(defect.plant(bases))))


def refused(bases: dict[str, Resource]) -> list[str]:
    """The valid bases in which medtwin sees an error; the last name stands for the references among them."""
    names = [name for name, resource in bases.items() if errors_in(validate_resource(resource))]
    found = errors_in(validate_references(list(hospital(bases).values())))
    return names + ["references of the hospital"] * bool(found)
