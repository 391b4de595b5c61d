"""Tests, regressions and repeated measures against numbers of R: that another method does not give them.

The sums of Kenward and Roger are those that mmrm prints in its own tests (openpharma/mmrm:
tests/testthat/_snaps/kenwardroger.md); the errors and degrees of freedom of SAS are those which its tests quote
(tests/testthat/test-kenwardroger.R).
"""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.analysis.covariance_structures import StructureName
from medtwin.trials.analysis.mmrm import MMRM, quick_search
from tests.trials.reference.cases import Case, NotCoveredError
from tests.trials.reference.dispatch import wrong
from tests.trials.reference.models import analysis

pytestmark = pytest.mark.real


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
def test_another_method_does_not_agree(reference_cases: dict[str, Case], name: str, right: str, other: str) -> None:
    case = reference_cases[name]
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
def test_says_what_it_does_not_cover(reference_cases: dict[str, Case], call: str, reason: str) -> None:
    any_case = reference_cases["ttest_anorexia"]
    case = Case(any_case.folder, {**any_case.raw, "r_call": call, "r_extract": "list(a=1)"})
    with pytest.raises(NotCoveredError, match=reason):
        analysis(case)


@pytest.fixture(scope="module")
def fev(reference_cases: dict[str, Case]) -> tuple[np.ndarray, ...]:
    """Response, design, subject and visit of FEV1 ~ ARMCD."""
    data = reference_cases["mmrm_fev_ar1_Sat"].data
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
