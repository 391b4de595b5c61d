from __future__ import annotations

import pytest

from tests.servers.fhir import fhir_process, fhir_server  # noqa: F401


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the waits between attempts too short to notice."""
    monkeypatch.setattr("medtwin.core.patience._FIRST_WAIT_S", 0.0005)
