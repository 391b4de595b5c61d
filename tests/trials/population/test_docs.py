from __future__ import annotations

import doctest
from pathlib import Path

import medtwin

DOCS = Path(medtwin.__file__).parents[1] / "docs" / "trials.md"


def test_the_examples_of_the_page_run() -> None:
    failed, attempted = doctest.testfile(str(DOCS), module_relative=False)
    assert (failed, attempted) == (0, 18)
