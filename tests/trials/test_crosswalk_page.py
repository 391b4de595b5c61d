"""The Python on the page of the crosswalk runs, and the names in its tables exist."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "trials_crosswalk.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
ROOMS = ("medtwin.trials", "medtwin.trials.design", "medtwin.trials.analysis", "medtwin.trials.adaptive")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(block: str) -> None:
    exec(compile(block, str(PAGE), "exec"), {})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 3


def test_the_names_of_our_column_exist() -> None:
    known = set()
    for room in ROOMS:
        folder = Path(str(importlib.import_module(room).__file__)).parent
        for path in folder.glob("*.py"):
            if path.stem != "__init__":
                known |= {path.stem, *dir(importlib.import_module(f"{room}.{path.stem}"))}
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for row in rows:
        for code in re.findall(r"`([^`]+)`", row.split("|")[1]):
            name = re.match(r"\.?([A-Za-z_]+)(?:\.([A-Za-z_]+))?", code)
            assert name, row
            if code.startswith(".") or name[1] in ("bounds", "early", "known_sd", "inflation"):
                continue
            assert name[1] in known, code
            if name[2] and name[1] not in ("OneRateTest",):
                assert name[2] in known, code
