"""More calls of R in the families of the reference, run by us, and what medtwin finds for them.

The values in `more/` are outputs of R 4.2.2 with the packages named there, to 12 digits. They were drawn by a hash of
their names from the calls that medtwin answers, so that files stay small: that all of them agree guards against going
back, and says nothing about calls that medtwin does not answer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.trials.reference.cases import Case, read_cases
from tests.trials.reference.dispatch import judge

MORE = Path(__file__).parent / "more"
AREAS = sorted(path.stem for path in MORE.glob("*.json"))


def cases_of(area: str, *, with_data: bool) -> list[Case]:
    """The cases of a file that read a data set, or those that do not."""
    return [case for case in read_cases(MORE / f"{area}.json") if ("dataset" in case.raw) == with_data]


def all_agree(cases: list[Case]) -> None:
    """Fails with the names of what does not agree or is not computed."""
    judged = [judge(case) for case in cases]
    wrong = [
        f"{one.case_id}: {one.values or one.reason}" for one in judged if one.missing or not all(one.agrees.values())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("area", AREAS)
def test_agrees_with_r(area: str) -> None:
    all_agree(cases_of(area, with_data=False))


@pytest.mark.parametrize("area", ["analyses", "survival_analyses"])
def test_agrees_with_r_on_public_data(area: str) -> None:
    if "MEDTWIN_DATA" not in os.environ:
        pytest.skip("MEDTWIN_DATA is not set: the data sets are beside it, in reference/trial_data")
    folder = Path(os.environ["MEDTWIN_DATA"]).parent / "reference"
    all_agree([Case(folder, case.raw) for case in cases_of(area, with_data=True)])


@pytest.mark.parametrize("area", ["group_sequential", "means_and_rates"])
def test_another_number_does_not_agree(area: str) -> None:
    """The negative control: R's numbers moved by a thousandth are refused wherever the tolerance is finer."""
    fine = [case for case in cases_of(area, with_data=False) if case.raw["tolerance"]["rel"] < 1e-4]
    for case in fine[:3]:
        moved = {**case.raw, "outputs": {name: _moved(value) for name, value in case.outputs.items()}}
        assert not all(judge(Case(case.folder, moved)).agrees.values())


def _moved(value: Any) -> Any:
    if isinstance(value, list):
        return [_moved(each) for each in value]
    return value * 1.001 + 0.001 if isinstance(value, float) else value


def test_names_are_unique_and_files_small() -> None:
    raw = [case["id"] for area in AREAS for case in json.loads((MORE / f"{area}.json").read_text())["cases"]]
    assert len(set(raw)) == len(raw)
    assert sum(path.stat().st_size for path in MORE.glob("*.json")) < 150_000
