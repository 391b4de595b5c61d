"""The server's own tests use the fixtures that it offers."""

from __future__ import annotations

from tests.servers.fhir import fhir_process, fhir_server

__all__ = ["collect_ignore", "fhir_process", "fhir_server"]

collect_ignore = ["google_check.py"]  # runs in an environment of its own
