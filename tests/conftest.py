from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Examples are the same in every run, so that what breaks a test is a change. MEDTWIN_HYPOTHESIS=search looks for new
# ones. How long they take to draw says how busy the machine is, and nothing of the code.
settings.register_profile("repeatable", derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("MEDTWIN_HYPOTHESIS", "repeatable"))


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
