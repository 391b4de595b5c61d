"""FHIR R4 in and out: read a source into events, write events as resources, check resources. See docs/fhir.md.

A map of the room:

- What both directions speak: `elements` (what of a resource becomes rows, the tables) in the grammar of `kinds`;
  `codings`, `times`, `terms`.
- `reading/`, files into rows, in this order: `source` and `bulk` find files, `inflate` and `lines` read them,
  `index` is the first pass, `read` (here) the second; it asks `subjects`, `when`, `what`, `values`, `components`,
  `details` and `patient`, reads resources of one shape together (`plans`, `blocks`), remembers (`memory`) and gives
  tables (`batch`).
- `writing/`, rows into resources: `rows` decodes, `bare` completes foreign MEDS, `compose` makes a subject's resources
  with `actions`, `value`, `patient`, `vitals`, `panels` and `finish`; `us_core` and `ingredients` are for the profile;
  `write` and `export` (here) are the doors, with `context` and `actors`.
- `validate` is the door of `checks/`; `profiles/` has US Core 6.1; `server` is the door of `remote/`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtwin.fhir.export import (
        Shard,
        Written,
        join_parts,
        provenance_resources,
        resources_to_bundle,
        write_bundles,
        write_ndjson,
        write_shard,
    )
    from medtwin.fhir.read import read_events, read_tables
    from medtwin.fhir.reading.index import FhirIndex, index_source
    from medtwin.fhir.reading.source import FhirSource, has_fhir
    from medtwin.fhir.validate import validate_references, validate_resource
    from medtwin.fhir.write import ExportContext, SubjectExport, events_to_resources, table_to_resources
    from medtwin.fhir.writing.actors import shared_resources

__all__ = [
    "ExportContext",
    "FhirIndex",
    "FhirSource",
    "Shard",
    "SubjectExport",
    "Written",
    "events_to_resources",
    "has_fhir",
    "index_source",
    "join_parts",
    "provenance_resources",
    "read_events",
    "read_tables",
    "resources_to_bundle",
    "shared_resources",
    "table_to_resources",
    "validate_references",
    "validate_resource",
    "write_bundles",
    "write_ndjson",
    "write_shard",
]

# Where each stands: loaded when it is asked for, since who reads need not load what writes.
_PLACES = {
    "ExportContext": "write",
    "FhirIndex": "reading.index",
    "FhirSource": "reading.source",
    "Shard": "export",
    "SubjectExport": "write",
    "Written": "export",
    "events_to_resources": "write",
    "has_fhir": "reading.source",
    "index_source": "reading.index",
    "join_parts": "export",
    "provenance_resources": "export",
    "read_events": "read",
    "read_tables": "read",
    "resources_to_bundle": "export",
    "shared_resources": "writing.actors",
    "table_to_resources": "write",
    "validate_references": "validate",
    "validate_resource": "validate",
    "write_bundles": "export",
    "write_ndjson": "export",
    "write_shard": "export",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
