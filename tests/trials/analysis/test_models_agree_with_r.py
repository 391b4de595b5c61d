"""Tests, regressions and repeated measures against numbers of R: the stored cases, and more of the same family.

`more_model_cases.json` holds calls of stats, MASS 7.3-58.2, geepack 1.3.9 and nlme 3.1-162 under R 4.2.2 with what they
returned. The sums of Kenward and Roger are those that mmrm prints in its own tests (openpharma/mmrm:
tests/testthat/_snaps/kenwardroger.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medtwin.trials.analysis.mmrm import MMRM, quick_search
from tests.trials.reference.cases import Case, NotCoveredError, read_cases
from tests.trials.reference.dispatch import judge
from tests.trials.reference.models import analysis

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")).parent / "reference"
MORE = Path(__file__).with_name("more_model_cases.json")
CATEGORIES = ("analysis_other", "bayesian", "procova")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def stored() -> list[Case]:
    path = REFERENCE / "trial_reference.json"
    if not path.is_file():
        pytest.skip(f"needs {path}: the reference numbers from R stand beside the public data sets")
    return [case for case in read_cases(path) if case.category in CATEGORIES]


def wrong(cases: list[Case]) -> list[str]:
    """What is not computed or does not agree."""
    judged = [judge(case) for case in cases]
    return [
        f"{each.case_id}: {[name for name, good in each.agrees.items() if not good]} {each.missing} {each.reason}"
        for each in judged
        if each.missing or not all(each.agrees.values())
    ]


def test_stored_cases(stored: list[Case]) -> None:
    assert len(stored) > 15
    assert wrong(stored) == []


def test_more_of_the_family(stored: list[Case]) -> None:
    more = [Case(stored[0].folder, case.raw) for case in read_cases(MORE)]
    assert len(more) > 50
    assert wrong(more) == []


@pytest.mark.parametrize(
    ("name", "right", "other"),
    [
        ("ttest_anorexia", "var.equal=TRUE", "var.equal=FALSE"),
        ("wilcox_anorexia", "correct=TRUE", "correct=FALSE"),
        ("gee_epil_exch", "exchangeable", "independence"),
        ("gee_ohio_ar1", "ar1", "exchangeable"),
        ("lmm_orthodont", "data=Orth", "data=Orth, method='ML'"),
        ("mmrm_fev_ar1_Sat", "ar1(", "cs("),
        ("mmrm_fev_ar1_Sat", "Satterthwaite", "Kenward-Roger"),
        ("fm_ratio", "theta=0.8", "theta=0.9"),
    ],
)
def test_another_method_does_not_agree(stored: list[Case], name: str, right: str, other: str) -> None:
    case = next(each for each in stored if each.id == name)
    changed = Case(case.folder, {**case.raw, "r_call": case.raw["r_call"].replace(right, other)})
    assert len(wrong([changed])) == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("lm(Postwt~trt-1, data=an2)", "without intercept"),
        ("lm(Postwt~trt, data=an2, weights=Prewt)", "weights"),
        ("glm(outcome~treat, data=rsp1, family=inverse.gaussian)", "inverse.gaussian"),
        ("geeglm(resp~age, id=id, data=ohio, family=binomial, std.err='jack')", "std.err"),
        ("lme(distance~age, random=~1|Subject/visit, data=Orth)", "nested groups"),
        ("mmrm(FEV1~ARMCD+us(AVISIT|USUBJID), data=fev, vcov='Empirical')", "vcov Empirical"),
        ("mmrm(FEV1~ARMCD+us(AVISIT|USUBJID), data=fev, weights=WEIGHT)", "weights"),
        ("confint(lme(distance~age, random=~1|Subject, data=Orth))", "confint"),
    ],
)
def test_says_what_it_does_not_cover(stored: list[Case], call: str, reason: str) -> None:
    case = Case(stored[0].folder, {**stored[0].raw, "r_call": call, "r_extract": "list(a=1)"})
    with pytest.raises(NotCoveredError, match=reason):
        analysis(case)


def test_the_sums_of_kenward_and_roger(stored: list[Case]) -> None:
    data = next(each for each in stored if each.id == "mmrm_fev_ar1_Sat").data
    seen = ~np.isnan(data["FEV1"])
    x = np.column_stack([np.ones(seen.sum()), data["ARMCD"][seen] == "TRT"])
    rows = data["FEV1"][seen], x, data["USUBJID"][seen], data["AVISIT"][seen]
    found = MMRM("ar1", "kenward_roger", search=quick_search).fit(*rows).pieces
    assert found.first[:, 0, 0] == pytest.approx([-8.6951404485695, -3.2993613446609], rel=1e-5)
    assert found.products[:, :, 0, 0] == pytest.approx(
        np.array([[17.390280897139, 6.59872268932179], [6.59872268932179, 3.13460478136063]]), rel=1e-5
    )
    assert found.second[:, :, 0, 0] == pytest.approx(
        np.array([[17.390280897139, 6.59872268932179], [6.59872268932179, 0.587917298512552]]), rel=1e-4
    )
