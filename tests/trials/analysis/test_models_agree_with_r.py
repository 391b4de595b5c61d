"""Tests, regressions and repeated measures against numbers of R: the stored cases, and more of the same family.

`more_model_cases.json` and `more_expression_cases.json` hold calls of stats, MASS 7.3-58.2, geepack 1.3.9, nlme 3.1-162
and rpact 3.3.4 under R 4.2.2 with what they returned.
The sums of Kenward and Roger are those that mmrm prints in its own tests (openpharma/mmrm:
tests/testthat/_snaps/kenwardroger.md); the errors and degrees of freedom of SAS are those which its tests quote
(tests/testthat/test-kenwardroger.R).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medtwin.trials.analysis.covariance_structures import StructureName
from medtwin.trials.analysis.mmrm import MMRM, quick_search
from tests.trials.reference.cases import Case, NotCoveredError, read_cases
from tests.trials.reference.dispatch import judge
from tests.trials.reference.models import analysis

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")).parent / "reference"
MORE = [Path(__file__).with_name(f"more_{name}_cases.json") for name in ("model", "expression")]
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


@pytest.mark.parametrize("path", MORE, ids=lambda path: path.stem)
def test_more_of_the_family(stored: list[Case], path: Path) -> None:
    more = [Case(stored[0].folder, case.raw) for case in read_cases(path)]
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
        ("predict(lm(Postwt~poly(Prewt,2), data=an2), an2)", "other data for poly"),
        ("predict(lm(Postwt~trt, data=an2), an2, interval='tolerance')", "the interval tolerance"),
        ("gls(distance~age, correlation=corSymm(form=~1|Subject), data=Orth)", "without varIdent"),
        ("anova(lme(distance~age, random=~1|Subject, data=Orth))", "anova"),
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


@pytest.fixture(scope="module")
def fev(stored: list[Case]) -> tuple[np.ndarray, ...]:
    """Response, design, subject and visit of FEV1 ~ ARMCD."""
    data = next(each for each in stored if each.id == "mmrm_fev_ar1_Sat").data
    seen = ~np.isnan(data["FEV1"])
    x = np.column_stack([np.ones(seen.sum()), data["ARMCD"][seen] == "TRT"])
    return data["FEV1"][seen], x, data["USUBJID"][seen], data["AVISIT"][seen]


@pytest.mark.parametrize(
    ("structure", "standard_error", "degrees_of_freedom"),
    [
        ("us", 0.66124382270307, 160.733266403768),
        ("toep", 0.87839805519623, 160.027408337368),
        ("toeph", 0.72537324518435, 180.062730071701),
        ("ar1", 0.96058142305176, 188.46934887972),
        ("ar1h", 0.75924807546934, 188.225339095373),
        ("cs", 0.7964696053595, 177.038485931223),
        ("csh", 0.67403858183242, 190.737701349941),
        ("adh", 0.66158550758897, 162.393385281755),
    ],
)
def test_kenward_and_rogers_inference_is_that_of_sas(
    fev: tuple[np.ndarray, ...], structure: StructureName, standard_error: float, degrees_of_freedom: float
) -> None:
    found = MMRM(structure, "kenward_roger_linear").fit(*fev).contrast([0.0, 1.0])
    assert found.standard_error == pytest.approx(standard_error, rel=5e-4)
    assert found.degrees_of_freedom == pytest.approx(degrees_of_freedom, rel=5e-4)


def test_the_sums_of_kenward_and_roger(fev: tuple[np.ndarray, ...]) -> None:
    found = MMRM("ar1", "kenward_roger", search=quick_search).fit(*fev).pieces
    assert found.first[:, 0, 0] == pytest.approx([-8.6951404485695, -3.2993613446609], rel=1e-5)
    assert found.products[:, :, 0, 0] == pytest.approx(
        np.array([[17.390280897139, 6.59872268932179], [6.59872268932179, 3.13460478136063]]), rel=1e-5
    )
    assert found.second[:, :, 0, 0] == pytest.approx(
        np.array([[17.390280897139, 6.59872268932179], [6.59872268932179, 0.587917298512552]]), rel=1e-4
    )
