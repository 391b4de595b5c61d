"""Independent programs that some tests compare with: skipped with a reason without them, required by CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FHIR_SERVER = ROOT / ".peers" / "fhir_server"
R4_CORE = ROOT / ".peers" / "core" / "package"


def require_peer(name: str) -> Path:
    """Where a peer is: `dciodvfy`, `Orthanc`, `chromium`, or `fhir_server` (its folder)."""
    found = (
        str(FHIR_SERVER) if (FHIR_SERVER / "node_modules").is_dir() and name == "fhir_server" else shutil.which(name)
    )
    if found:
        return Path(found)
    reason = f"needs the peer {name}: run scripts/peers"
    if os.environ.get("MEDTWIN_REQUIRE_PEERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
