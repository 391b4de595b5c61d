"""Bundles and NDJSON files of resources, and the Device and Provenance that say what made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from medtwin.fhir.bare import stable_id
from medtwin.fhir.write import ExportContext, Resource

# RFC 2606 keeps this name from ever being an address; relative references in a bundle need some base.
BASE_URL = "https://medtwin.invalid/fhir"
_DEVICE_TYPE = {"system": "urn:medtwin:device", "code": "software"}


def provenance_resources(context: ExportContext, targets: Iterable[str]) -> list[Resource]:
    """The Device and the Provenance of an export, one each.

    Args:
        context: The export.
        targets: What was made, as references such as `Patient/subject-7`; at least one.

    Raises:
        ValueError: If there is no target.
    """
    references = [{"reference": target} for target in targets]
    if not references:
        raise ValueError("targets must name at least one resource, got none")
    device: Resource = {
        "resourceType": "Device",
        "id": stable_id(f"device|{context.version}"),
        "meta": context.meta(),
        "deviceName": [{"name": "medtwin", "type": "model-name"}],
        "type": {"coding": [_DEVICE_TYPE]},
        "version": [{"value": context.version}],
    }
    activity = "transmit" if context.origin == "real" else "originate"
    provenance: Resource = {
        "resourceType": "Provenance",
        "id": stable_id(f"provenance|{context.run}|{context.recorded.isoformat()}"),
        "meta": context.meta(),
        "target": references,
        "recorded": context.recorded.isoformat(timespec="seconds"),
        "activity": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": activity}]
        },
        "agent": [{"who": {"reference": f"Device/{device['id']}"}}],
        "entity": [{"role": "source", "what": {"identifier": {"system": "urn:ietf:rfc:3986", "value": context.run}}}],
    }
    return [device, provenance]


def resources_to_bundle(resources: Iterable[Resource], kind: Literal["collection", "transaction"]) -> Resource:
    """One bundle of resources; a transaction PUTs each by its id, so that sending it twice changes nothing."""
    entries = []
    for resource in resources:
        url = f"{resource['resourceType']}/{resource['id']}"
        entry: Resource = {"fullUrl": f"{BASE_URL}/{url}", "resource": resource}
        if kind == "transaction":
            entry["request"] = {"method": "PUT", "url": url}
        entries.append(entry)
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def write_ndjson(folder: Path, resources: Iterable[Resource]) -> Counter[str]:
    """Writes one file `<type>.ndjson` per resource type, streaming.

    Returns:
        How many resources of each type were written.

    Raises:
        FileExistsError: If a file is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as stack:
        for resource in resources:
            kind = resource["resourceType"]
            if kind not in files:
                files[kind] = stack.enter_context((folder / f"{kind}.ndjson").open("xb"))
            files[kind].write(orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE))
            counts[kind] += 1
    return counts


def write_bundles(
    folder: Path, subjects: Iterable[list[Resource]], kind: Literal["collection", "transaction"]
) -> Iterator[Path]:
    """Writes one bundle per subject, named after its Patient, and yields each file when it is written.

    Args:
        folder: Where they go; made if it does not exist.
        subjects: The resources of each subject, the Patient first.
        kind: Of the bundles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for resources in subjects:
        path = folder / f"{resources[0]['id']}.json"
        with path.open("xb") as file:
            file.write(_dumps(resources_to_bundle(resources, kind)))
        yield path


def _dumps(resource: Any) -> bytes:
    return orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE)
