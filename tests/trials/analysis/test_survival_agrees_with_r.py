"""Analyses of survival against numbers of R, on public data sets: the stored cases, and more of the same family.

`more_survival_cases.json` holds calls of survival 3.5-3 and cmprsk 2.2-11 under R 4.2.2 with what they returned.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trials.reference.cases import Case, read_cases
from tests.trials.reference.dispatch import judge

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")).parent / "reference"
MORE = Path(__file__).with_name("more_survival_cases.json")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def stored() -> list[Case]:
    path = REFERENCE / "trial_reference.json"
    if not path.is_file():
        pytest.skip(f"needs {path}: the reference numbers from R stand beside the public data sets")
    return [case for case in read_cases(path) if case.category == "survival_analysis"]


def wrong(cases: list[Case]) -> list[str]:
    """What is not computed or does not agree."""
    judged = [judge(case) for case in cases]
    return [
        f"{each.case_id}: {[name for name, good in each.agrees.items() if not good]} {each.missing} {each.reason}"
        for each in judged
        if each.missing or not all(each.agrees.values())
    ]


def test_stored_cases(stored: list[Case]) -> None:
    assert stored
    assert wrong(stored) == []


def test_more_of_the_family(stored: list[Case]) -> None:
    more = [Case(stored[0].folder, case.raw) for case in read_cases(MORE)]
    assert len(more) > 100
    assert wrong(more) == []


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
def test_another_method_does_not_agree(stored: list[Case], name: str, right: str, other: str) -> None:
    case = next(each for each in stored if each.id == name)
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
def test_what_is_not_understood_is_said(stored: list[Case], call: str, reason: str) -> None:
    raw = {**stored[0].raw, "r_call": call, "r_extract": "list(z=x$z)", "outputs": {"z": 1.0}}
    assert reason in judge(Case(stored[0].folder, raw)).reason
