"""All cases computed in R, by the runner that judges held-back ones too."""

import pytest

from tests.trials.reference.cases import Case
from tests.trials.reference.dispatch import judge
from tests.trials.reference.verdict import BARRED, Verdict

pytestmark = pytest.mark.real
ANSWERED = (*BARRED, "other_designs")


@pytest.fixture(scope="module")
def verdict(reference_cases: dict[str, Case]) -> Verdict:
    return Verdict([judge(case) for case in reference_cases.values() if case.category in ANSWERED])


def test_the_bar_is_reached(verdict: Verdict) -> None:
    assert verdict.passed, verdict.text(verbose=True)


@pytest.mark.parametrize("category", ANSWERED)
def test_every_output_of_a_category_agrees(verdict: Verdict, category: str) -> None:
    good, of = verdict.share([category])
    assert of > 0
    assert good == of, verdict.text(verbose=True)
