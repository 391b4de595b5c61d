"""The layers of FHIR validation: a JSON schema and invariants made from the definitions, rules, and models."""
