"""More calls of R in the families of the reference, run by us, and what medtwin finds for them.

The values in `more/` are outputs of R 4.2.2 with the packages named there, to 12 digits or more. They are of calls that
medtwin answers, some drawn by a hash of their names so that files stay small: that all of them agree guards against
going back, and says nothing about calls that medtwin does not answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trials.reference.cases import Case, read_cases
from tests.trials.reference.dispatch import judge, wrong

MORE = Path(__file__).parent / "more"
AREAS = sorted(path.stem for path in MORE.glob("*.json"))
ON_DATA = ("expressions", "model_fits", "survival_fits")
"""Files whose calls read data sets as they like; in the others a case names its data set."""


def cases_of(area: str, *, with_data: bool) -> list[Case]:
    """The cases of a file that read data, or those that do not."""
    return [
        case for case in read_cases(MORE / f"{area}.json") if (area in ON_DATA or "dataset" in case.raw) == with_data
    ]


@pytest.mark.parametrize("area", sorted({*AREAS} - {*ON_DATA, "survival_analyses"}))
def test_agrees_with_r(area: str) -> None:
    cases = cases_of(area, with_data=False)
    assert cases
    assert wrong(cases) == []


@pytest.mark.real
@pytest.mark.parametrize("area", [*ON_DATA, "analyses", "survival_analyses"])
def test_agrees_with_r_on_public_data(public_data: Path, area: str) -> None:
    cases = [Case(public_data.parent / "reference", case.raw) for case in cases_of(area, with_data=True)]
    assert cases
    assert wrong(cases) == []


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
    names = [case.id for area in AREAS for case in read_cases(MORE / f"{area}.json")]
    assert len(set(names)) == len(names)
    assert sum(path.stat().st_size for path in MORE.glob("*.json")) < 450_000
