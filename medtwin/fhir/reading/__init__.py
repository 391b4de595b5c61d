"""FHIR files into rows of events; `medtwin.fhir.read` is the door."""
