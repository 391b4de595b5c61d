"""FHIR servers: send to one, read one, write what bulk imports want. The door is `medtwin.fhir.server`."""
