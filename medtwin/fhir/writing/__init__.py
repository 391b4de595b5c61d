"""Rows of events into FHIR resources; `medtwin.fhir.write` and `medtwin.fhir.export` are the doors."""
