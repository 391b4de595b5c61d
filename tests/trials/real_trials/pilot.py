"""CDISC's pilot study: xanomeline in two doses, or placebo, in Alzheimer's disease; 254 randomised, 26 weeks.

The tables of its SDTM that are public here hold vital signs, laboratory values and adverse events, and no ADAS-Cog: no
result on the primary outcome is claimed. Repeated measures: systolic pressure after 5 minutes' lying. Times: the first
reaction at the place of the patch during treatment; patches with the drug irritate.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np

from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.mmrm import MMRM
from tests.trials.real_trials.compared import Columns, Compared, dummies, rows, survival_by_arm, table

VISITS = ("WEEK 4", "WEEK 8", "WEEK 16", "WEEK 24")
ARMS = ("Placebo", "Xanomeline Low Dose", "Xanomeline High Dose")


def _domain(folder: Path, name: str) -> Columns:
    return table(folder / "trials" / "cdisc_pilot01_sdtm" / name)


def _arms(folder: Path) -> dict[str, str]:
    dm = _domain(folder, "dm.csv")
    return {who: arm for who, arm in zip(dm["USUBJID"].tolist(), dm["ARM"].tolist(), strict=True) if arm in ARMS}


def pressures(folder: Path) -> Columns:
    """A row for each patient and visit: y, base, arm, visit, subject."""
    vs, arm_of = _domain(folder, "vs.csv.gz"), _arms(folder)
    wanted = (vs["VSTESTCD"] == "SYSBP") & (vs["VSTPT"] == "AFTER LYING DOWN FOR 5 MINUTES")
    vs = rows(vs, wanted & ~np.isnan(vs["VSSTRESN"]))
    is_base = vs["VISIT"] == "BASELINE"
    base = dict(zip(vs["USUBJID"][is_base][::-1].tolist(), vs["VSSTRESN"][is_base][::-1].tolist(), strict=True))
    who = vs["USUBJID"].tolist()
    vs = rows(vs, np.isin(vs["VISIT"], VISITS) & np.array([each in base and each in arm_of for each in who]))
    who = vs["USUBJID"].tolist()
    return {
        "y": vs["VSSTRESN"],
        "base": np.array([base[each] for each in who]),
        "arm": np.array([arm_of[each] for each in who]),
        "visit": np.array([VISITS.index(each) for each in vs["VISIT"].tolist()]),
        "subject": vs["USUBJID"],
    }


def _repeated(folder: Path) -> list[float]:
    d = pressures(folder)
    visit = dummies(d["visit"], range(len(VISITS)))
    arm = dummies(d["arm"], ARMS[1:])
    x = np.hstack([visit, visit * arm[:, [0]], visit * arm[:, [1]], visit * d["base"][:, None]])
    fit = MMRM().fit(d["y"], x, d["subject"], d["visit"])
    return [*fit.coefficients, *np.sqrt(np.diag(fit.model_covariance)), fit.log_likelihood]


def reactions(folder: Path) -> Columns:
    """A row for each patient: days to the first reaction at the patch or the end of treatment, event, arm, age, sex."""
    ae, dm, arm_of = _domain(folder, "ae.csv"), _domain(folder, "dm.csv"), _arms(folder)
    first: dict[str, float] = {}
    for who, what, day in zip(ae["USUBJID"].tolist(), ae["AEDECOD"].tolist(), ae["AESTDY"].tolist(), strict=True):
        if what.startswith("APPLICATION SITE") and day >= 1:
            first[who] = min(day, first.get(who, np.inf))
    treated = np.array([who in arm_of for who in dm["USUBJID"].tolist()])
    dm = rows(dm, treated & (dm["RFENDTC"] != ""))
    start, end = ([date.fromisoformat(each[:10]).toordinal() for each in dm[name]] for name in ("RFSTDTC", "RFENDTC"))
    until = np.array(end) - np.array(start) + 1.0
    seen = np.array([first.get(who, np.inf) for who in dm["USUBJID"].tolist()])
    return {
        "time": np.minimum(seen, until),
        "event": (seen <= until).astype(np.float64),
        "arm": dm["ARM"],
        "age": dm["AGE"],
        "female": (dm["SEX"] == "F").astype(np.float64),
    }


def pair(folder: Path, arm: str) -> Columns:
    """Reactions of an arm and of placebo, with `mine` 1 for the arm."""
    d = reactions(folder)
    both = rows(d, np.isin(d["arm"], (ARMS[0], arm)))
    return {**both, "mine": (both["arm"] == arm).astype(np.float64)}


def _reactions(folder: Path) -> list[float]:
    d = reactions(folder)
    counts = [float(d["event"][d["arm"] == arm].sum()) for arm in ARMS]
    model = cox_model(d["time"], d["event"], np.column_stack([dummies(d["arm"], ARMS[1:]), d["age"], d["female"]]))
    free = survival_by_arm(d["time"], d["event"], d["arm"], ARMS, 90.0)[: len(ARMS)]
    test = logrank_test(d["time"], d["event"], d["arm"])
    return [float(len(d["time"])), *counts, test.chi_square, *model.coefficients, *model.standard_errors, *free]


COMPARED = (
    Compared(
        "CDISC pilot: systolic pressure over four visits by arm and baseline, unstructured covariance, REML",
        "nlme::gls(y ~ 0+visit+visit:arm+visit:base, correlation=corSymm(form=~k|USUBJID), "
        "weights=varIdent(form=~1|visit), method='REML')",
        [
            *(57.5626451996, 60.8901546808, 70.0943565195, 52.1183672741),
            *(0.7915775228, -2.5330040509, -1.1117432199, -0.2249186059),
            *(-1.5532637374, -3.1476227082, -0.3310686740, -4.3048233836),
            *(0.5594460949, 0.5630245105, 0.4777492377, 0.6111806928),
            *(8.09715596237, 8.66424735905, 9.25361734952, 9.49749741410),
            *(2.35669599317, 2.46477689248, 2.70870928425, 2.86849124338),
            *(2.34879610022, 2.50670893071, 2.80581980355, 2.79326406385),
            *(0.05728370207, 0.06163605548, 0.06602907815, 0.06766410525),
            -2672.517164,
        ],
        _repeated,
        5e-5,  # nlme ends short of the maximum, medtwin at a gradient of 1e-8
    ),
    Compared(
        "CDISC pilot: reactions at the patch: patients, events by arm, log-rank, Cox model, free of it at 90 days",
        "survdiff(Surv(time,event)~ARM,dm); coxph(Surv(time,event)~low+high+AGE+I(SEX=='F'),dm); "
        "summary(survfit(Surv(time,event)~ARM,dm),times=90)",
        [
            *(254, 15, 37, 33, 21.03327429, 1.309095649, 1.237372077, -0.04073797338, -0.2320349126),
            *(0.3090554753, 0.314563646, 0.01226680083, 0.2200433497, 0.8216644233, 0.564721585, 0.5152429463),
        ],
        _reactions,
    ),
)
