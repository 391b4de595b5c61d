"""Analyses of survival against numbers of R, on public data sets: that another method does not give them."""

from __future__ import annotations

import pytest

from tests.trials.reference.cases import Case
from tests.trials.reference.dispatch import judge, wrong

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "right", "other"),
    [
        ("cox_lung", "data=lung", "data=lung, ties='breslow'"),
        ("peto_lung_sex", "rho=1", "rho=0"),
        ("km_lung_loglog", "log-log", "plain"),
        ("fh_colon_0_1", "gamma=1", "gamma=0"),
        ("ag_bladder", "cluster(id)", "cluster(enum)"),
        ("weibull_lung", "data=lung", "data=lung, dist='lognormal'"),
        ("finegray_mgus2", "male=as.integer(m$sex=='M'),", "male=as.integer(m$hgb>12),"),
        ("rmst_lung_365", "tau=365", "tau=366"),
    ],
)
def test_another_method_does_not_agree(reference_cases: dict[str, Case], name: str, right: str, other: str) -> None:
    case = reference_cases[name]
    changed = Case(case.folder, {**case.raw, "r_call": case.raw["r_call"].replace(right, other)})
    assert wrong([case]) == []
    assert len(wrong([changed])) == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("coxph(Surv(time,status)~trt, data=vet, ties='exact')", "ties exact"),
        ("coxph(Surv(time,status)~trt, data=vet, weights=age)", "weights"),
        ("coxph(Surv(time,status)~trt+frailty(celltype), data=vet)", "frailty"),
        ("survfit(Surv(time,status)~trt, data=vet, start.time=10)", "start.time"),
        ("survdiff(Surv(time,status)~trt, data=unknown)", "unknown"),
        ("wlr(counting_process(vt, arm='experimental'), weight=early_zero(10, fail_rate=3))", "fail_rate"),
    ],
)
def test_what_is_not_understood_is_said(reference_cases: dict[str, Case], call: str, reason: str) -> None:
    any_case = reference_cases["cox_lung"]
    raw = {**any_case.raw, "r_call": call, "r_extract": "list(z=x$z)", "outputs": {"z": 1.0}}
    assert reason in judge(Case(any_case.folder, raw)).reason
