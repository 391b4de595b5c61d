"""Reads NDJSON on standard input with google-fhir-r4, and prints what it refuses; run by the Python of .peers/google.

A line ``{"line", "type", "id", "text"}`` for each resource that google-fhir cannot take, and at the end
``{"summary": {"resources", "invalid"}}``. It runs on pure Python protobuf and is slow: some hundred resources a second.
"""

from __future__ import annotations

import json
import sys

from google.fhir.r4 import json_format
from google.fhir.r4.proto.core.resources import bundle_and_contained_resource_pb2


def fault(text: str) -> str | None:
    """Why google-fhir refuses the resource, or None."""
    try:
        json_format.json_fhir_string_to_proto(
            text, bundle_and_contained_resource_pb2.ContainedResource, validate=True, default_timezone="Z"
        )
    except Exception as error:  # noqa: BLE001 (google-fhir raises whatever its parsers come across)
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Checks every line."""
    resources = invalid = 0
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        resources += 1
        text = fault(line)
        if text is not None:
            invalid += 1
            resource = json.loads(line)
            found = {"line": number, "type": resource.get("resourceType"), "id": resource.get("id"), "text": text[:300]}
            print(json.dumps(found))  # noqa: T201
    print(json.dumps({"summary": {"resources": resources, "invalid": invalid}}))  # noqa: T201


if __name__ == "__main__":
    main()
