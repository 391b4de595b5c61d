"""Survival designs and conditional power: values that R packages' own tests publish."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trials.reference.cases import Case
from tests.trials.reference.dispatch import judge, wrong

ADAPTED = (
    "L=1, zL=8/(55*sqrt(4/158)), IMax=473/(4*52.759^2), kMax=3, informationRates=c(158,315,473)/473, alpha=0.025, "
    "typeAlphaSpending='sfOF', MullerSchafer=TRUE, Lc=2, zLc=9.5/(52.759*sqrt(4/679)), INew=1042/(4*52.759^2), "
    "informationRatesNew=c(0.5,1), typeAlphaSpendingNew='sfP'"
)
LATE = (
    "enroll_rate=define_enroll_rate(duration=18, rate=20), fail_rate=define_fail_rate(duration=c(4,100), "
    "fail_rate=log(2)/12, dropout_rate=.001, hr=c(1,.6)), study_duration=36"
)
STRATA = (
    "kMax=2, informationRates=c(0.8,1), accrualTime=seq(0,8), accrualIntensity=26/9*seq(1,9), "
    "piecewiseSurvivalTime=c(0,6), stratumFraction=c(0.2,0.8), lambda1=c(0.0533,0.0309,1.5*0.0533,1.5*0.0309), "
    "lambda2=c(0.0533,0.0533,1.5*0.0533,1.5*0.0533), gamma1=-log(1-0.05)/12, gamma2=-log(1-0.05)/12, "
    "accrualDuration=22"
)
CANCER = (
    "{p <- c(.28,.13,.25,.34) %x% c(.28,.72) %x% c(.43,.37,.2); "
    "l <- .009211*exp(log(c(1,2.127,.528,.413)) %x% log(c(1,.438)) %x% log(c(1,.614,.159))); "
    "lrpower(kMax=3, informationRates=(1:3)/3, alpha=.025, typeAlphaSpending='sfOF', accrualIntensity=12, "
    "stratumFraction=p/sum(p), lambda1=.4466*l, lambda2=l, accrualDuration=24, followupTime=30.92, "
    "typeOfComputation='schoenfeld')}"
)
TWO_SIDED = (
    "getDesignGroupSequential(alpha=0.4, informationRates=c(0.2,0.5,1), sided=2, beta=0.1, typeOfDesign='WT', "
    "deltaWT=0.3)"
)
_POWER = "list(p=x$overallResults$overallReject)"
PUBLISHED = {
    "getSampleSizeSurvival(alpha=0.01)": ("list(a=x$nFixed)", {"a": [197.78666, 90.804254, 51.314209]}, 1e-6),
    f"getSampleSizeSurvival({TWO_SIDED}, pi1=0.4, pi2=0.2, eventTime=14, accrualTime=8, followUpTime=10, "
    "dropoutRate1=0.1, dropoutRate2=0.05, dropoutTime=16, allocationRatioPlanned=0)": (
        "list(n=x$maxNumberOfSubjects, r=x$allocationRatioPlanned, d=x$studyDuration, e=x$expectedEventsH1)",
        {"n": 104.16718, "r": 1.3543939, "d": 11.587598, "e": 18.039036},
        1e-4,
    ),
    f"fixed_design_ahr(alpha=.025, power=.9, {LATE})": (
        "list(n=x$analysis$n, e=x$analysis$event)",
        {"n": 463.078, "e": 324.7077},
        1e-6,
    ),
    f"fixed_design_fh(alpha=.025, power=.9, {LATE})": (
        "list(n=x$analysis$n, e=x$analysis$event, h=x$analysis$ahr)",
        {"n": 458.3509, "e": 321.3931, "h": 0.6969049},
        5e-5,
    ),
    f"rmpower({STRATA}, milestone=18, followupTime=18)": (
        "list(p=x$overallResults$overallReject)",
        {"p": 0.30423},
        1e-5,
    ),
    f"kmpower({STRATA}, milestone=18, followupTime=18)": (
        "list(p=x$overallResults$overallReject)",
        {"p": 0.7634},
        1e-4,
    ),
    f"lrpower({STRATA}, followupTime=18, rho1=0, rho2=1)": (_POWER, {"p": 0.9313}, 5e-5),
    CANCER: (_POWER, {"p": 0.9024}, 5e-5),
    f"getADCI({ADAPTED})": (
        "as.list(x)",
        {"pvalue": 0.0124, "thetahat": 9.3496, "lower": 1.2165, "upper": 17.3653},
        5e-3,
    ),
    f"getADRCI({ADAPTED})": ("as.list(x)", {"pvalue": 0.0167, "lower": 0.6303, "upper": 18.1808}, 5e-3),
}
"""R call: (what is taken of the result, values of the tests of rpact, gsDesign2 and lrstat, relative tolerance).

Old versions of lrstat summed over `numSubintervals` with those at risk at the start of each: their tests say 0.7538
for the unweighted test of these strata at bounds of 2.250 and 2.025, which 300 such sums give; the integral is 0.7570.
"""


@pytest.mark.parametrize("call", PUBLISHED)
def test_values_that_r_packages_publish(call: Any) -> None:
    extract, outputs, relative = PUBLISHED[call]
    raw = {
        "id": call,
        "category": "sample_size_survival",
        "r_call": call,
        "r_extract": extract,
        "inputs": {},
        "outputs": outputs,
        "tolerance": {"abs": 0.0, "rel": relative},
    }
    assert wrong([Case(Path(), raw)]) == []


def test_an_argument_that_is_not_understood_is_named() -> None:
    raw = {
        "id": "x",
        "category": "sample_size_survival",
        "r_call": "nSurv(lambdaZ=1)",
        "r_extract": "list(n=x$n)",
        "inputs": {},
    }
    judged = judge(Case(Path(), {**raw, "outputs": {"n": 1.0}, "tolerance": {"abs": 1.0, "rel": 1.0}}))
    assert judged.missing == ("n",)
    assert "lambdaZ" in judged.reason


@pytest.mark.real
def test_a_wrong_method_does_not_agree(reference_cases: dict[str, Case]) -> None:
    """Negative control: Freedman's events for a case that R computed with Schoenfeld's."""
    case = reference_cases["sss_fixed_hr07"]
    call = str(case.raw["r_call"]).replace("alpha=0.025", "typeOfComputation='Freedman', alpha=0.025")
    judged = judge(Case(case.folder, {**case.raw, "r_call": call}))
    assert judged.agrees["analysis_time"]
    assert not judged.agrees["events"]
    assert not judged.agrees["n"]
    assert np.isfinite(judged.values["n"][0]).all()
