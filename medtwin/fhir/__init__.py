"""FHIR R4 in and out: read a source into events, write events as resources, check resources."""

from medtwin.fhir.export import provenance_resources, resources_to_bundle, write_bundles, write_ndjson
from medtwin.fhir.index import FhirIndex, index_source
from medtwin.fhir.read import read_events
from medtwin.fhir.source import FhirSource, has_fhir
from medtwin.fhir.validate import validate_references, validate_resource
from medtwin.fhir.write import ExportContext, SubjectExport, events_to_resources

__all__ = [
    "ExportContext",
    "FhirIndex",
    "FhirSource",
    "SubjectExport",
    "events_to_resources",
    "has_fhir",
    "index_source",
    "provenance_resources",
    "read_events",
    "resources_to_bundle",
    "validate_references",
    "validate_resource",
    "write_bundles",
    "write_ndjson",
]
