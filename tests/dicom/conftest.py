"""dciodvfy, the independent conformance checker, for the tests of this room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import require_peer

TOO_OLD_FOR = "not a recognized standard attribute - (0x0008,0x001c)"
"""Debian's dicom3tools of 2022 does not know Synthetic Data, a tag of 2023."""


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that dciodvfy finds in a file; its exit status does not tell."""
    program = require_peer("dciodvfy")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert done.stderr, "dciodvfy said nothing: it names at least the IOD"
        return [line for line in done.stderr.splitlines() if "Error -" in line and TOO_OLD_FOR not in line]

    return errors
