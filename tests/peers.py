"""Independent programs that some tests compare with: skipped with a reason without them, required by CI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers"
R4_CORE = PEERS / "core" / "package"
GOOGLE_PYTHON = PEERS / "google" / "bin" / "python"

Findings = list[dict[str, Any]]


def require_peer(name: str) -> Path:
    """Where a peer is.

    Args:
        name: A program (`dciodvfy`, `Orthanc`, `chromium`, `node`), or what scripts/peers puts under .peers:
            `fhir_server` (the folder of its packages), `r4_core` (the official definitions), `google_fhir` (a Python
            with google-fhir-r4).
    """
    found = _find(name)
    if found is not None:
        return found
    reason = f"needs the peer {name}: run scripts/peers"
    if os.environ.get("MEDTWIN_REQUIRE_PEERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _find(name: str) -> Path | None:
    installed = {
        "fhir_server": (PEERS / "fhir_server" / "node_modules" / "@medplum" / "fhir-router", PEERS / "fhir_server"),
        "r4_core": (R4_CORE / "package.json", R4_CORE),
        "google_fhir": (GOOGLE_PYTHON, GOOGLE_PYTHON),
    }
    if name in installed:
        mark, place = installed[name]
        return place if mark.exists() else None
    program = shutil.which(name)
    return Path(program) if program else None


def medplum_findings(resources: Iterable[Mapping[str, Any]], *guides: Path) -> tuple[Findings, dict[str, Any]]:
    """What the strict validator of tests/servers/fhir finds, with the profiles of the unpacked packages `guides`.

    Returns:
        A finding for each resource that is not valid (line, type, id, issues), and the summary: resources, invalid,
        perSecond, and of each declared profile how many declare it and whether it is known.
    """
    require_peer("fhir_server")
    require_peer("r4_core")
    options = [part for guide in guides for part in ("--ig", str(guide))]
    command = [require_peer("node"), ROOT / "tests/servers/fhir/validate.mjs", *options]
    return _read_findings(command, resources)


def google_findings(resources: Iterable[Mapping[str, Any]]) -> tuple[Findings, dict[str, Any]]:
    """What google-fhir-r4 refuses (line, type, id, text), and the summary: resources, invalid."""
    command = [require_peer("google_fhir"), ROOT / "tests/servers/fhir/google_check.py"]
    return _read_findings(command, resources)


def _read_findings(
    command: list[str | Path], resources: Iterable[Mapping[str, Any]]
) -> tuple[Findings, dict[str, Any]]:
    ndjson = b"".join(json.dumps(resource).encode() + b"\n" for resource in resources)
    done = subprocess.run(command, input=ndjson, stdout=subprocess.PIPE, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]["summary"]
