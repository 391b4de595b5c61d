"""Adjuvant therapy of colon cancer: observation, levamisole, or levamisole with fluorouracil.

929 patients after resection; days to recurrence and to death. Moertel et al. 1990, N Engl J Med 322:352: levamisole
with fluorouracil lowered recurrence and death, levamisole alone did not. d is survival_lgpl/colon.csv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.competing import cumulative_incidence, fine_gray_model, gray_test
from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.restricted_mean import compare_restricted_means
from tests.trials.real_trials.compared import Columns, Compared, dummies, rows, survival_by_arm, table

RECURRENCE, DEATH = 1, 2
ARMS = ("Obs", "Lev", "Lev+5FU")


def trial(folder: Path, event: int) -> Columns:
    """A row for each patient, of one of the two events."""
    d = table(folder / "trials" / "survival_lgpl" / "colon.csv")
    return rows(d, d["etype"] == event)


def pair(folder: Path, event: int, arm: str) -> Columns:
    """The patients of an arm and of observation, with `mine` 1 for the arm."""
    d = trial(folder, event)
    both = rows(d, np.isin(d["rx"], ("Obs", arm)))
    return {**both, "mine": (both["rx"] == arm).astype(np.float64)}


def _survival(event: int, folder: Path) -> list[float]:
    d = trial(folder, event)
    return survival_by_arm(d["time"], d["status"], d["rx"], ARMS, 1825.0)


def _comparisons(event: int, folder: Path) -> list[float]:
    d = trial(folder, event)
    found = [logrank_test(d["time"], d["status"], d["rx"]).chi_square]
    for arm in ARMS[1:]:
        p = pair(folder, event, arm)
        model = cox_model(p["time"], p["status"], p["mine"])
        means = compare_restricted_means(p["time"], p["status"], p["mine"], 1825.0)
        found += [logrank_test(p["time"], p["status"], p["mine"]).chi_square]
        found += [model.coefficients[0], model.standard_errors[0]]
        found += [means.control.estimate, means.experimental.estimate]
        found += [means.control.standard_error, means.experimental.standard_error]
    return found


def _adjusted(event: int, folder: Path) -> list[float]:
    d = trial(folder, event)
    others = [d[name] for name in ("age", "sex", "obstruct", "adhere", "node4")]
    model = cox_model(
        d["time"], d["status"], np.column_stack([dummies(d["rx"], ARMS[1:]), *others]), strata=d["extent"]
    )
    return [*model.coefficients, *model.standard_errors]


def causes(folder: Path) -> tuple[NDArray[Any], NDArray[Any], Columns]:
    """Days to the first of recurrence (1) and death without it (2), which it was, and the patients; without Lev."""
    first, death = trial(folder, RECURRENCE), trial(folder, DEATH)
    place = {each: i for i, each in enumerate(death["id"])}
    order = np.array([place[each] for each in first["id"]])
    end, died = death["time"][order], death["status"][order]
    cause = np.where((first["status"] == 1) & (first["time"] <= end), 1, np.where(died == 1, 2, 0))
    keep = first["rx"] != "Lev"
    return np.minimum(first["time"], end)[keep], cause[keep], rows(first, keep)


def _competing(folder: Path) -> list[float]:
    time, cause, d = causes(folder)
    treated = d["rx"] == "Lev+5FU"
    found = [gray_test(time, cause, treated, of_interest=which).chi_square for which in (1, 2)]
    curves = [
        cumulative_incidence(time[here], cause[here], of_interest=which)
        for which in (1, 2)
        for here in (~treated, treated)
    ]
    found += [float(each.at([1825.0])[0]) for each in curves]
    return found + [float(each.variance_at([1825.0])[0]) for each in curves]


def _subdistribution(folder: Path) -> list[float]:
    time, cause, d = causes(folder)
    model = fine_gray_model(time, cause, np.column_stack([d["rx"] == "Lev+5FU", d["node4"]]).astype(np.float64))
    return [*model.coefficients, *model.standard_errors]


_CURVES = "summary(survfit(Surv(time,status)~rx,e), times=1825)[c('surv','std.err')]"
_TESTS = (
    "survdiff(Surv(time,status)~rx,e)$chisq; for Lev and Lev+5FU with f <- subset(e, rx %in% c('Obs',arm)): "
    "survdiff(Surv(time,status)~rx,f)$chisq, coxph(Surv(time,status)~rx,f), "
    "summary(survfit(Surv(time,status)~rx,f), rmean=1825)$table"
)
_MODEL = "coxph(Surv(time,status)~rx+age+sex+obstruct+adhere+node4+strata(extent),e)"
COMPARED = (
    Compared(
        "colon, recurrence: Kaplan-Meier at 5 years by arm, and standard errors",
        f"e <- subset(d, etype==1); {_CURVES}",
        [0.4503801173, 0.4600851557, 0.6152440701, 0.02832638849, 0.02857402486, 0.02818631797],
        lambda folder: _survival(RECURRENCE, folder),
    ),
    Compared(
        "colon, recurrence: log-rank, Cox and restricted means of each arm and observation",
        f"e <- subset(d, etype==1); {_TESTS}",
        [
            23.06173816,
            *(0.02260521058, -0.01604555488, 0.107079002, 1095.53413, 1095.995562, 41.17321675, 41.67705773),
            *(19.06515273, -0.5126046196, 0.1186750808, 1095.53413, 1329.146878, 41.17321675, 39.04946844),
        ],
        lambda folder: _comparisons(RECURRENCE, folder),
    ),
    Compared(
        "colon, recurrence: Cox model with covariates, in strata of the extent of spread",
        f"e <- subset(d, etype==1); {_MODEL}",
        [
            *(-0.01965176355, -0.5104162175, -0.002739811522, -0.07465546217, 0.2120843259, 0.2218947272),
            *(0.8593027362, 0.1076576872, 0.1189344228, 0.003922474384, 0.09319342436, 0.1150084969),
            *(0.1250563017, 0.09675426341),
        ],
        lambda folder: _adjusted(RECURRENCE, folder),
    ),
    Compared(
        "colon, death: Kaplan-Meier at 5 years by arm, and standard errors",
        f"e <- subset(d, etype==2); {_CURVES}",
        [0.5256685295, 0.5353706848, 0.6340146866, 0.02818005713, 0.02833319995, 0.0276747671],
        lambda folder: _survival(DEATH, folder),
    ),
    Compared(
        "colon, death: log-rank, Cox and restricted means of each arm and observation",
        f"e <- subset(d, etype==2); {_TESTS}",
        [
            11.68309271,
            *(0.05696914031, -0.02629154266, 0.1103126992, 1338.548923, 1322.410281, 33.44127878, 34.17978694),
            *(9.965665733, -0.372809345, 0.1187890705, 1338.548923, 1449.880479, 33.44127878, 32.99847221),
        ],
        lambda folder: _comparisons(DEATH, folder),
    ),
    Compared(
        "colon, death: Cox model with covariates, in strata of the extent of spread",
        f"e <- subset(d, etype==2); {_MODEL}",
        [
            *(-0.04333928335, -0.3654923521, 0.007127178011, 0.0423504757, 0.2856460871, 0.2094261495),
            *(0.9559384386, 0.110776029, 0.1191791495, 0.004066289639, 0.09494689212, 0.116378734),
            *(0.1273315303, 0.09820993186),
        ],
        lambda folder: _adjusted(DEATH, folder),
    ),
    Compared(
        "colon, recurrence or death without it: Gray's tests, incidences at 5 years and their variances",
        "first of recurrence (1) and death (2) of rx != 'Lev', arm <- rx=='Lev+5FU'; ci <- cuminc(t,cause,arm); "
        "ci$Tests; timepoints(ci,1825)",
        [
            *(19.363486603822, 0.145947749902),
            *(0.5438952832318, 0.3786264603069, 0.0319297693705, 0.0297117596320),
            *(7.93887326189e-04, 7.78413717856e-04, 9.92900923496e-05, 9.56003068846e-05),
        ],
        _competing,
    ),
    Compared(
        "colon, recurrence with death competing: Fine and Gray's model of arm and more than 4 nodes",
        "crr(t, cause, cbind(arm, node4))",
        [-0.5128485958, 0.8535466998, 0.1199043186, 0.1244160806],
        _subdistribution,
        5e-6,  # crr ends at a gradient of 1e-6
    ),
)
