from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public data sets; tests that need it are marked `real`."""
    folder = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the public data sets: set MEDTWIN_DATA to their folder")
    return folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """Prints the count of skips after everything else."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    reporter.write_line(f"skipped tests: {len(reporter.stats.get('skipped', []))} (reasons above)")
