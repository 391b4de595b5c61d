"""ACTG 175: zidovudine alone (arm 0) or with didanosine (1) or zalcitabine (2), or didanosine alone (3).

2,139 adults with HIV; days to a fall of CD4 counts by half, AIDS or death. Hammer et al. 1996, N Engl J Med 335:1081:
each of the other arms fared better than zidovudine alone. d is lifelines_mit/actg175.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medtwin.trials.analysis.cox import cox_model, proportional_hazards_test
from medtwin.trials.analysis.g_computation import standardised_means
from medtwin.trials.analysis.glm import Family, generalised_linear_model
from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.restricted_mean import compare_restricted_means
from tests.trials.real_trials.compared import Columns, Compared, dummies, rows, survival_by_arm, table

ARMS = (1, 2, 3)


def trial(folder: Path) -> Columns:
    """A row for each patient."""
    return table(folder / "trials" / "lifelines_mit" / "actg175.csv")


def pair(folder: Path, arm: int) -> Columns:
    """The patients of an arm and of zidovudine alone, with `mine` 1 for the arm."""
    d = trial(folder)
    both = rows(d, np.isin(d["arms"], (0, arm)))
    return {**both, "mine": (both["arms"] == arm).astype(np.float64)}


def _survival(folder: Path) -> list[float]:
    d = trial(folder)
    return survival_by_arm(d["days"], d["cens"], d["arms"], range(4), 1000.0)


def _logrank(folder: Path) -> list[float]:
    d = trial(folder)
    found = [logrank_test(d["days"], d["cens"], d["arms"]).chi_square]
    for arm in ARMS:
        p = pair(folder, arm)
        found.append(logrank_test(p["days"], p["cens"], p["mine"]).chi_square)
        found.append(logrank_test(p["days"], p["cens"], p["mine"], strata=p["strat"]).chi_square)
    return found


def _stratified_cox(folder: Path) -> list[float]:
    found = []
    for arm in ARMS:
        p = pair(folder, arm)
        model = cox_model(p["days"], p["cens"], p["mine"], strata=p["strat"])
        found += [model.coefficients[0], model.standard_errors[0]]
    return found


def _covariates(d: Columns) -> np.ndarray:
    return np.column_stack([dummies(d["arms"], ARMS), d["age"], d["cd40"], d["karnof"], d["symptom"]])


def _adjusted_cox(folder: Path) -> list[float]:
    d = trial(folder)
    model = cox_model(d["days"], d["cens"], _covariates(d), strata=d["strat"])
    return [*model.coefficients, *model.standard_errors, model.null_log_likelihood, model.log_likelihood]


def _proportionality(folder: Path) -> list[float]:
    d = trial(folder)
    return [proportional_hazards_test(d["days"], d["cens"], _covariates(d), strata=d["strat"]).overall.chi_square]


def _restricted(folder: Path) -> list[float]:
    found = []
    for arm in ARMS:
        p = pair(folder, arm)
        both = compare_restricted_means(p["days"], p["cens"], p["mine"], 1000.0)
        means = both.control, both.experimental
        found += [*(each.estimate for each in means), *(each.standard_error for each in means)]
    return found


def _covariance(folder: Path) -> list[float]:
    d = trial(folder)
    x = np.column_stack([np.ones(len(d["arms"])), dummies(d["arms"], ARMS), d["cd40"]])
    model = linear_model(d["cd420"], x)
    return [*model.coefficients, *model.standard_errors]


def _standardised(folder: Path) -> list[float]:
    p = pair(folder, 1)
    x = np.column_stack([np.ones(len(p["mine"])), p["mine"], p["age"], p["cd40"], p["symptom"]])
    fall = (p["cd420"] < 0.8 * p["cd40"]).astype(np.float64)
    model = generalised_linear_model(fall, x, Family("binomial"))
    treated, control = x.copy(), x.copy()
    treated[:, 1], control[:, 1] = 1, 0
    risks = standardised_means(model, treated, control)
    difference = risks.difference()
    return [
        *model.coefficients,
        *model.standard_errors,
        risks.experimental,
        risks.control,
        difference.estimate,
        difference.standard_error,
    ]


COMPARED = (
    Compared(
        "ACTG 175: Kaplan-Meier at 1,000 days by arm, and standard errors",
        "summary(survfit(Surv(days,cens)~arms,d), times=1000)[c('surv','std.err')]",
        [
            *(0.6295850234, 0.7922471611, 0.7867695179, 0.7576898377),
            *(0.02226394988, 0.01873401459, 0.01898286613, 0.01910876693),
        ],
        _survival,
    ),
    Compared(
        "ACTG 175: log-rank chi-square of four arms, then of each arm and zidovudine, alone and stratified",
        "survdiff(Surv(days,cens)~arms,d)$chisq; for arm a with e <- subset(d, arms %in% c(0,a)): "
        "survdiff(Surv(days,cens)~arms,e)$chisq, survdiff(Surv(days,cens)~arms+strata(strat),e)$chisq",
        [49.19410949, 33.81090925, 34.34110834, 28.79277157, 29.82044149, 21.38875918, 21.56903813],
        _logrank,
    ),
    Compared(
        "ACTG 175: log hazard ratio and error of each arm and zidovudine, in strata of prior treatment",
        "coxph(Surv(days,cens)~I(arms==a)+strata(strat), subset(d, arms %in% c(0,a)))",
        [-0.7096416208, 0.1236152372, -0.6513017468, 0.1213793045, -0.5308882645, 0.1156359127],
        _stratified_cox,
    ),
    Compared(
        "ACTG 175: Cox model with covariates and strata, its errors and log-likelihoods",
        "coxph(Surv(days,cens)~factor(arms)+age+cd40+karnof+symptom+strata(strat),d)",
        [
            *(-0.7751843366, -0.6690490976, -0.5588737585, 0.008076641339, -0.003590284807, -0.02261056444),
            *(0.4446263919, 0.1239340723, 0.1214787508, 0.1157860318, 0.005114001266, 0.0004314675926),
            *(0.006913406374, 0.1021805459, -3316.076723, -3229.941204),
        ],
        _adjusted_cox,
    ),
    Compared(
        "ACTG 175: proportional hazards of that model, chi-square of 7 degrees",
        "cox.zph(coxph(...), terms=FALSE)$table['GLOBAL','chisq']",
        [24.79570216],
        _proportionality,
    ),
    Compared(
        "ACTG 175: mean days until 1,000 of zidovudine and of each arm, and standard errors",
        "summary(survfit(Surv(days,cens)~arms, subset(d, arms %in% c(0,a))), rmean=1000)$table",
        [
            *(827.8806389, 920.9521453, 12.09634763, 8.40194319),
            *(827.8806389, 918.3685806, 12.09634763, 8.742728294),
            *(827.8806389, 902.6134937, 12.09634763, 9.113454567),
        ],
        _restricted,
    ),
    Compared(
        "ACTG 175: CD4 at 20 weeks by arm and baseline, analysis of covariance",
        "lm(cd420~factor(arms)+cd40,d)",
        [
            *(83.60874516, 70.23691044, 36.20656244, 42.28771473, 0.7149684552),
            *(8.923592126, 7.079227714, 7.071788608, 6.954344696, 0.02096150683),
        ],
        _covariance,
    ),
    Compared(
        "ACTG 175: a fall of CD4 below 80 % at 20 weeks, logistic model and standardised risks of arms 1 and 0",
        "e <- subset(transform(d, fall=as.integer(cd420 < 0.8*cd40)), arms<=1); g <- glm(fall~arms+age+cd40+symptom, "
        "binomial, e); risks averaged over e with arms 1 and 0, error of their difference by the delta method",
        [
            *(-1.752449023, -0.7829172283, -0.01352073358, 0.003197490562, 0.3361631905),
            *(0.4162156728, 0.1608463427, 0.00918014898, 0.0006347818787, 0.205315246),
            *(0.145366215, 0.266691526, -0.121325311, 0.02422499108),
        ],
        _standardised,
    ),
)
