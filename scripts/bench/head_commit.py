"""Which commit a page of results was made at."""

from __future__ import annotations

import subprocess
from pathlib import Path


def head_commit() -> str:
    """Short name of the commit that is checked out, or unknown where git does not say."""
    command, root = ["git", "rev-parse", "--short", "HEAD"], Path(__file__).resolve().parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
