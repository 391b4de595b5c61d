"""All cases computed in R, by the runner that judges held-back ones too."""

import os
from pathlib import Path

import pytest

from tests.trials.reference.cases import Case, read_cases
from tests.trials.reference.dispatch import judge
from tests.trials.reference.verdict import BARRED, Verdict, verdict_of


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    path = Path(os.environ.get("MEDTWIN_DATA", "nowhere")).parent / "reference" / "trial_reference.json"
    if not path.is_file():
        pytest.skip("needs MEDTWIN_DATA with reference/trial_reference.json beside it")
    return read_cases(path)


@pytest.fixture(scope="module")
def verdict(cases: list[Case]) -> Verdict:
    return verdict_of([judge(case) for case in cases if case.category in BARRED])


def test_the_bar_is_reached(verdict: Verdict) -> None:
    assert verdict.passed, verdict.text(verbose=True)


@pytest.mark.parametrize("category", BARRED)
def test_every_output_of_a_category_agrees(verdict: Verdict, category: str) -> None:
    good, of = verdict.share([category])
    assert of > 0
    assert good == of, verdict.text(verbose=True)
