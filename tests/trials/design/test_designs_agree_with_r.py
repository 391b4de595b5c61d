"""Designs of means, rates and power: values that the manuals and tests of R packages publish."""

from pathlib import Path
from typing import Any

import pytest

from tests.trials.reference.cases import Case
from tests.trials.reference.dispatch import judge, wrong

BINOMIAL = "p1=.2, p2=.1, ratio=.5, alpha=.025, beta=.15"
SELECTED = "k=3, timing=c(.4,.7), sfu=sfLDOF, sfl=sfHSD, sflpar=1, astar=.15, testUpper=c(FALSE,TRUE,TRUE)"
LOOKS = (
    "list(z=x$byStageResults$efficacyBounds, n=x$byStageResults$numberOfSubjects, "
    "reject=x$byStageResults$cumulativeRejection, e1=x$overallResults$expectedNumberOfSubjectsH1, "
    "inflation=x$overallResults$inflationFactor)"
)
TOTAL = "list(n=x$overallResults$numberOfSubjects, power=x$overallResults$overallReject)"
PUBLISHED: dict[str, tuple[str, dict[str, Any], float]] = {
    "getDesignRiskDiff(beta=0.2, n=NA, pi1=0.1, pi2=0.15, kMax=3, alpha=0.025, nullVariance=FALSE)": (
        LOOKS,
        {
            "z": [3.712, 2.511, 1.993],
            "n": [461, 923, 1384],
            "reject": [0.0186, 0.4181, 0.8002],
            "e1": 1182.7,
            "inflation": 1.013,
        },
        5e-4,
    ),
    "getDesignMeanDiff(beta=NA, n=456, meanDiff=9, stDev=32, kMax=5, alpha=0.025, typeBetaSpending='sfP')": (
        "list(a=x$overallResults$attainedAlpha, f=x$byStageResults$futilityBounds, "
        "d=x$byStageResults$efficacyMeanDiff, e0=x$overallResults$expectedNumberOfSubjectsH0)",
        {
            "a": 0.0182,
            "f": [-0.091, 0.603, 1.141, 1.583, 2.031],
            "d": [32.757, 15.945, 10.353, 7.669, 6.088],
            "e0": 173.7,
        },
        5e-3,
    ),
    "getDesignOddsRatio(beta=0.1, n=NA, pi1=0.5, pi2=0.3, alpha=0.05)": (TOTAL, {"n": 210, "power": 0.9012}, 1e-4),
    "getDesignRiskRatio(beta=0.1, n=NA, pi1=0.5, pi2=0.3, alpha=0.05)": (TOTAL, {"n": 207, "power": 0.9008}, 1e-4),
    "getDesignOneMean(beta=0.1, meanH0=7, mean=6, stDev=2.5, kMax=5, alpha=0.025, typeBetaSpending='sfP')": (
        TOTAL,
        {"n": 85, "power": 0.9016},
        1e-4,
    ),
    "getDesignOneProportion(beta=0.2, piH0=0.15, pi=0.25, kMax=3, alpha=0.05)": (
        TOTAL,
        {"n": 91, "power": 0.8012},
        1e-4,
    ),
    "getDesignOneProportion(beta=0.2, piH0=0.15, pi=0.25, normalApproximation=FALSE, alpha=0.05)": (
        TOTAL,
        {"n": 110, "power": 0.8097},
        1e-4,
    ),
    "getDesignMeanRatioXO(beta=0.1, meanRatio=1.25, CV=0.25, alpha=0.05, normalApproximation=FALSE)": (
        TOTAL,
        {"n": 23, "power": 0.9078},
        1e-4,
    ),
    "getDesignTwoOrdinal(beta=0.1, ncats=4, pi1=c(.55,.3,.1), pi2=c(.214,.344,.251), alpha=0.025)": (
        "list(n=x$n, power=x$power, m=c(x$meanscore1, x$meanscore2))",
        {"n": 67, "power": 0.9030, "m": [26.4055, 40.5945]},
        1e-4,
    ),
    f"nBinomial({BINOMIAL}, scale='OR')": ("list(n=ceiling(x))", {"n": 489}, 0.0),
    f"nBinomial({BINOMIAL}, scale='RR')": ("list(n=ceiling(x))", {"n": 525}, 0.0),
    f"nBinomial({BINOMIAL}, delta0=.02, outtype=3)": ("list(n=ceiling(x$n), p=x$Power)", {"n": 796, "p": 0.85}, 0.0),
    f"gsDesign({SELECTED}, test.type=8, sfharm=sfHSD, sfharmparam=1, testHarm=c(TRUE,TRUE,FALSE))": (
        "list(harm=x$harm$bound, low=x$lower$bound, high=x$upper$bound, h0=cumsum(x$lower$prob[,1]))",
        {
            "harm": [-1.4171, -1.4036, -20],
            "low": [0.6540, 1.3740, 1.9999],
            "high": [20, 2.4380, 1.9999],
            "h0": [0.6652, 0.8500, 0.9021],
        },
        1e-4,
    ),
    f"gsDesign({SELECTED}, test.type=6, testLower=c(TRUE,TRUE,FALSE))": (
        "list(low=x$lower$bound, high=x$upper$bound, h1=cumsum(x$upper$prob[,2]))",
        {"low": [-1.4171, -1.4036, -20], "high": [20, 2.4380, 1.9999], "h1": [0.0, 0.6152, 0.9000]},
        1e-4,
    ),
}
"""R call: (what is taken of the result, values of the manuals and tests of lrstat and gsDesign, relative tolerance)."""


@pytest.mark.parametrize("call", PUBLISHED)
def test_values_that_r_packages_publish(call: str) -> None:
    extract, outputs, relative = PUBLISHED[call]
    raw = {
        "id": call,
        "category": "other_designs",
        "r_call": call,
        "r_extract": extract,
        "inputs": {},
        "outputs": outputs,
        "tolerance": {"abs": 6e-5, "rel": relative},  # four digits are printed
    }
    assert wrong([Case(Path(), raw)]) == []


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("gsDesign(overrun=3)", "overrun"),
        ("gsDesign(k=3, sfu=sfUnheard)", "sfUnheard"),
        ("gsDesign(test.type=4, sfu='OF')", "test.type=4"),
        ("getDesignMeanDiff(beta=.1, futilityCP=.2)", "futilityCP"),
        ("nBinomial(p1=.2, p2=.1, scale='log')", "log"),
        ("power.t.test(n=10, power=.8, delta=NULL, sd=NULL)", "2 arguments"),
    ],
)
def test_what_is_not_understood_is_named(call: str, named: str) -> None:
    raw = {"id": "x", "category": "other_designs", "r_call": call, "r_extract": "list(n=x$n)", "inputs": {}}
    judged = judge(Case(Path(), {**raw, "outputs": {"n": 1.0}, "tolerance": {"abs": 1.0, "rel": 1.0}}))
    assert judged.missing == ("n",)
    assert named in judged.reason


@pytest.mark.real
def test_a_wrong_method_does_not_agree(reference_cases: dict[str, Case]) -> None:
    """Negative control: Pocock's bounds for a case that R computed with O'Brien and Fleming's."""
    case = reference_cases["OF_k3_a025"]
    call = str(case.raw["r_call"]).replace('"OF"', '"P"')
    judged = judge(Case(case.folder, {**case.raw, "r_call": call}))
    assert not judged.agrees["critical_values"]
