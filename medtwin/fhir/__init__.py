"""FHIR R4 in and out: read a source into events, write events as resources, check resources."""

from medtwin.fhir.actors import shared_resources
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
from medtwin.fhir.index import FhirIndex, index_source
from medtwin.fhir.read import read_events, read_tables
from medtwin.fhir.source import FhirSource, has_fhir
from medtwin.fhir.validate import validate_references, validate_resource
from medtwin.fhir.write import ExportContext, SubjectExport, events_to_resources, table_to_resources

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
