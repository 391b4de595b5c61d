"""Dose finding: what BOIN, dfcrm and lrstat return, computed by medtwin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.continual_reassessment import ReassessmentModel, skeleton_of_intervals
from medtwin.trials.design.dose_finding import IntervalDesign, ThreePlusThree
from medtwin.trials.design.simon_two_stage import simon_designs
from tests.trials.reference import r_base
from tests.trials.reference.cases import Case, NotCoveredError
from tests.trials.reference.evaluate import Environment, plain
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

Floats = NDArray[np.float64]
BOUNDARY: Arguments = {
    "target": None,
    "ncohort": None,
    "cohortsize": None,
    "n.earlystop": 100.0,
    "p.saf": None,
    "p.tox": None,
    "cutoff.eli": 0.95,
    "extrasafe": False,
    "offset": 0.05,
}
CRM: Arguments = {
    "prior": None,
    "target": None,
    "tox": None,
    "level": None,
    "n": None,
    "dosename": None,
    "include": None,
    "pid": None,
    "conf.level": 0.9,
    "method": "bayes",
    "model": "empiric",
    "intcpt": 3.0,
    "scale": np.sqrt(1.34),
    "model.detail": True,
    "patient.detail": True,
    "var.est": True,
}
PRIOR: Arguments = {
    "halfwidth": None,
    "target": None,
    "nu": None,
    "nlevel": None,
    "model": "empiric",
    "intcpt": 3.0,
}
SIMON: Arguments = {"alpha": None, "beta": None, "piH0": None, "pi": None, "n_max": 110.0}


def boundary(given: Arguments) -> dict[str, Any]:
    """get.boundary() of BOIN."""
    refuse("get.boundary", given, BOUNDARY, "extrasafe")
    low, high = (None if is_missing(given[name]) else float(given[name]) for name in ("p.saf", "p.tox"))
    design = IntervalDesign(float(given["target"]), low, high, float(given["cutoff.eli"]))
    size = int(given["cohortsize"])
    patients = np.arange(1, int(given["ncohort"]) + 1) * size
    patients = patients[patients <= max(float(given["n.earlystop"]), size)]
    rows = np.stack([patients, *design.boundaries(patients)]).astype(float)
    rows[3, rows[3] > rows[0]] = np.nan
    return {"lambda_e": design.escalate_below, "lambda_d": design.de_escalate_above, "boundary_tab": rows}


def crm(given: Arguments) -> dict[str, Any]:
    """crm() of dfcrm."""
    if given["method"] != "bayes":
        raise NotCoveredError(f"method={given['method']!r} of crm()")
    refuse("crm", given, CRM, "include")
    skeleton, level = numbers(given["prior"]), np.array(numbers(given["level"]), dtype=np.int64) - 1
    model = ReassessmentModel(skeleton, float(given["target"]), _intercept(given), float(given["scale"]) ** 2)
    patients = np.bincount(level, minlength=len(skeleton))
    toxicities = np.bincount(level, weights=numbers(given["tox"]), minlength=len(skeleton))
    found = model.after(toxicities, patients)
    return {
        "estimate": found.mean[0],
        "mtd": float(found.dose[0] + 1),
        "ptox": found.toxicity[0],
        "post.var": found.variance[0],
    }


def _intercept(given: Arguments) -> float | None:
    if given["model"] not in ("empiric", "logistic"):
        raise NotCoveredError(f"model={given['model']!r} of dfcrm")
    return None if given["model"] == "empiric" else float(given["intcpt"])


def skeleton(given: Arguments) -> Floats:
    """getprior() of dfcrm."""
    target, halfwidth = float(given["target"]), float(given["halfwidth"])
    return skeleton_of_intervals(target, halfwidth, int(given["nlevel"]), int(given["nu"]) - 1, _intercept(given))


def two_stage(given: Arguments) -> dict[str, Any]:
    """simon2stage() of lrstat, a row for each admissible design."""
    p0, p1, alpha, beta = (float(given[name]) for name in ("piH0", "pi", "alpha", "beta"))
    found = simon_designs(p0, p1, alpha, beta, int(given["n_max"]))
    names = ["Minimax", *["Admissible"] * (len(found) - 2), "Optimal"] if len(found) > 1 else ["Optimal"]
    same = np.ones(len(found))
    return {
        "piH0": p0 * same,
        "pi": p1 * same,
        "alpha": alpha * same,
        "beta": beta * same,
        "n": np.array([each.n for each in found], dtype=float),
        "n1": np.array([each.n1 for each in found], dtype=float),
        "r1": np.array([each.r1 for each in found], dtype=float),
        "r": np.array([each.r for each in found], dtype=float),
        "EN0": np.array([each.expected_n for each in found]),
        "attainedAlpha": np.array([each.alpha for each in found]),
        "attainedPower": np.array([each.power for each in found]),
        "PET0": np.array([each.early_stop for each in found]),
        "w_lower": np.array([each.weights[0] for each in found]),
        "w_upper": np.array([each.weights[1] for each in found]),
        "design": np.array(names),
    }


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **r_base.FUNCTIONS,
    "get.boundary": bound("get.boundary", BOUNDARY, boundary),
    "crm": bound("crm", CRM, crm),
    "getprior": bound("getprior", PRIOR, skeleton),
    "simon2stage": bound("simon2stage", SIMON, two_stage),
    "as.matrix": lambda value: value,
    "as.list": lambda value: value,
    "as.data.frame": lambda value: value,
}


def _answer(case: Case) -> Mapping[str, Any]:
    """Of a call of a package, or of the rule of 3 + 3 that the inputs say."""
    if str(case.inputs.get("rule", "")).startswith("3+3 without de-escalation"):
        design = ThreePlusThree(numbers(case.inputs["p_tox"]))
        return {"escalate_prob": design.escalates, "p_mtd": design.chosen}
    env = Environment({}, _FUNCTIONS)
    env.variables["x"] = env.run(case.call)
    return {name: plain(value) for name, value in env.run(case.extract).items()}


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"dose_finding": _answer}
