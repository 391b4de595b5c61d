"""Chronic granulomatous disease: interferon gamma or placebo; serious infections, which recur.

128 patients. International Chronic Granulomatous Disease Cooperative Study Group 1991, N Engl J Med 324:509: interferon
gamma lowered the rate of serious infections. d is survival_lgpl/cgd.csv, a row for each spell (tstart, tstop].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medtwin.trials.analysis.cox import CoxModel, cox_model
from tests.trials.real_trials.compared import Columns, Compared, table


def spells(folder: Path) -> Columns:
    """A row for each spell, with `mine` 1 for interferon gamma."""
    d = table(folder / "trials" / "survival_lgpl" / "cgd.csv")
    return {**d, "mine": (d["treat"] == "rIFN-g").astype(np.float64)}


def infections(folder: Path) -> CoxModel:
    """Andersen and Gill's model of the infections by arm alone."""
    d = spells(folder)
    return cox_model(d["tstop"], d["status"], d["mine"], entry=d["tstart"], cluster=d["id"])


def _andersen_gill(folder: Path) -> list[float]:
    d = spells(folder)
    x = np.column_stack([d["mine"], d["age"], d["inherit"] == "autosomal"]).astype(np.float64)
    seen = {"entry": d["tstart"], "strata": d["hos.cat"], "cluster": d["id"]}
    model = cox_model(d["tstop"], d["status"], x, **seen)
    return [*model.coefficients, *model.standard_errors, *np.sqrt(np.diag(model.naive_covariance))]


def _gap_by_order(folder: Path) -> list[float]:
    d = spells(folder)
    model = cox_model(d["tstop"], d["status"], d["mine"], entry=d["tstart"], strata=d["enum"], cluster=d["id"])
    return [model.coefficients[0], model.standard_errors[0], float(np.sqrt(model.naive_covariance[0, 0]))]


COMPARED = (
    Compared(
        "CGD: Andersen and Gill's model in strata of hospitals, robust and naive errors",
        "coxph(Surv(tstart,tstop,status)~I(treat=='rIFN-g')+age+I(inherit=='autosomal')+strata(hos.cat)+cluster(id),d)",
        [
            *(-1.08889903, -0.03345775144, 0.4056018853, 0.2952675745, 0.01694252999, 0.3522848842),
            *(0.2652002195, 0.01466233174, 0.2492247365),
        ],
        _andersen_gill,
    ),
    Compared(
        "CGD: Prentice, Williams and Peterson's model, in strata of the infection's number",
        "coxph(Surv(tstart,tstop,status)~I(treat=='rIFN-g')+strata(enum)+cluster(id), d)",
        [-0.8601421424, 0.2919042746, 0.2801707681],
        _gap_by_order,
    ),
)
