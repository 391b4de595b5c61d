"""The accession number by which a PACS finds an order: on the FHIR side what the DICOM images of a study bear."""

from __future__ import annotations

from collections.abc import Iterable

from medtwin.core.images import ACCESSION_SYSTEM, accession_number
from medtwin.fhir.writing.rows import Resource

_ACCESSION: Resource = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN", "display": "Accession ID"}]
}


def add_accessions(resources: Iterable[Resource]) -> None:
    """Gives each ImagingStudy with a Study Instance UID its accession number, and the ServiceRequest of its `basedOn`.

    Args:
        resources: Those of a subject; `identifier` of some is replaced.
    """
    studies: list[Resource] = []
    requests: dict[str, Resource] = {}
    for resource in resources:
        if resource["resourceType"] == "ImagingStudy":
            studies.append(resource)
        elif resource["resourceType"] == "ServiceRequest":
            requests[f"ServiceRequest/{resource['id']}"] = resource
    for study in studies:
        uids = [each["value"] for each in study.get("identifier", ()) if each.get("system") == "urn:dicom:uid"]
        if not uids:
            continue
        number = accession_number(uids[0].removeprefix("urn:oid:"))
        identifier = {"type": _ACCESSION, "system": ACCESSION_SYSTEM, "value": number}
        based_on = [requests.get(each.get("reference", "")) for each in study.get("basedOn", ())]
        for resource in (study, *(each for each in based_on if each is not None)):
            resource["identifier"] = [*resource.get("identifier", ()), identifier]
