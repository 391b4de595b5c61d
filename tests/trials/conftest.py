"""The numbers computed in R that stand beside the public data sets, for the tests that compare with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.reference.cases import Case, read_cases


@pytest.fixture(scope="session")
def reference_cases(public_data: Path) -> dict[str, Case]:
    """The cases of the reference file by name; tests that need it are marked `real`."""
    path = public_data.parent / "reference" / "trial_reference.json"
    if not path.is_file():
        pytest.skip("needs reference/trial_reference.json beside the public data sets that MEDTWIN_DATA names")
    return {case.id: case for case in read_cases(path)}
