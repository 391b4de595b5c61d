"""What happened: the codings of a resource, by the rule of its table."""

from __future__ import annotations

from typing import Any, NamedTuple

from medtwin.core.codes import preferred
from medtwin.fhir.codings import as_list, as_object, coding_code, concept_codes, joined
from medtwin.fhir.kinds import ResourceTable
from medtwin.fhir.reading.details import Draft
from medtwin.fhir.reading.index import FhirIndex, Medication, contained_resources, read_medication
from medtwin.fhir.reading.values import Detail


class What(NamedTuple):
    """What happened: all codings, and further child rows that its code element gives."""

    codes: list[str]
    details: tuple[Detail, ...] = ()


NOTHING = What([])


def read_what(name: str, value: Any, table: ResourceTable, draft: Draft, contained: Any = None) -> What:
    """What one of the `code_names` says; no codings if nothing.

    Args:
        name: The element.
        value: Its value.
        table: Of the resource.
        draft: Takes what is left behind.
        contained: The contained resources, to which a medicationReference may refer.

    Raises:
        ShapeError: If it is malformed.
    """
    path = f"{table.name}.{name}"
    if value is None:
        return NOTHING
    if name == "medicationReference":
        return _medication(value, contained, path, draft)
    if name == "class":
        code = coding_code(value, path)
        return What([f"ENCOUNTER//{code.partition('//')[2]}"]) if code else NOTHING
    if name == "series":
        return _series_modality(value)
    if name == "modality":
        found = first_coded(name, value, table)
        return What([found[1][0]]) if found is not None else NOTHING
    if table.code.endswith("*"):
        found = first_coded(name, value, table)
        return What(draft.concept(value[found[0]], path)) if found is not None else NOTHING
    return What(draft.concept(value, path))


def first_coded(name: str, value: Any, table: ResourceTable) -> tuple[int, list[str]] | None:
    """Index and codings of the first item of a list that has some; the others stay details.

    Raises:
        ShapeError: If the list is malformed.
    """
    path = f"{table.name}.{name}"
    for number, item in enumerate(as_list(value, path)):
        if name == "modality":
            code = coding_code(item, path)
            codes = [code] if code is not None else []
        else:
            codes = concept_codes(item, path)
        if codes:
            return number, codes
    return None


def _series_modality(value: Any) -> What:
    for series in as_list(value, "ImagingStudy.series"):
        coding = as_object(series, "ImagingStudy.series").get("modality")
        code = coding_code(coding, "ImagingStudy.series.modality") if coding is not None else None
        if code is not None:
            return What([code])
    return NOTHING


def _medication(reference: Any, contained: Any, path: str, draft: Draft) -> What:
    found = draft.index.resolve(reference, draft.scope, path)
    inside = contained_resources(contained).get(str(reference.get("reference")))
    if inside is not None and inside.get("resourceType") == "Medication":
        medication = read_medication(inside)
    else:
        if contained is not None:
            draft.left.append(f"{draft.kind}.contained")
        medication = draft.index.medications.get(found[1], Medication()) if found else Medication()
    if medication.codes:
        return What(list(medication.codes))
    parts = [*medication.ingredients, *(_ingredient(name, draft.index) for name in medication.references)]
    details: list[Detail] = [
        ("medication.ingredient", preferred(part), {"source_code": joined(list(part))}) for part in parts if part
    ]
    return What([code for _, code, _ in details[:1] if code], tuple(details))


def _ingredient(name: str, index: FhirIndex) -> tuple[str, ...]:
    medication = index.medications.get(name)
    return medication.codes if medication is not None else ()
