"""Crosswalk of the simulations of BOIN and dfcrm; answers carry the Monte-Carlo error of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from medtwin.trials.design.continual_reassessment import ReassessmentModel
from medtwin.trials.design.dose_finding import IntervalDesign
from medtwin.trials.engine.dose_trials import Cohorts, DoseTrials, simulate_interval_design, simulate_reassessment
from tests.trials.reference.cases import NotCoveredError, Simulated
from tests.trials.reference.rpact_simulations import SEED, mean, share
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

NUM_TRIALS = 20_000
OC: Arguments = {
    "target": None,
    "p.true": None,
    "ncohort": None,
    "cohortsize": None,
    "n.earlystop": 100.0,
    "startdose": 1.0,
    "titration": False,
    "p.saf": None,
    "p.tox": None,
    "cutoff.eli": 0.95,
    "extrasafe": False,
    "offset": 0.05,
    "boundMTD": False,
    "ntrial": 1000.0,
    "seed": 6.0,
}
CRMSIM: Arguments = {
    "PI": None,
    "prior": None,
    "target": None,
    "n": None,
    "x0": None,
    "nsim": 1.0,
    "mcohort": 1.0,
    "restrict": True,
    "count": True,
    "method": "bayes",
    "model": "empiric",
    "intcpt": 3.0,
    "scale": np.sqrt(1.34),
    "seed": 1009.0,
}


def _counts(found: DoseTrials, n: float) -> tuple[list[Simulated], list[Simulated]]:
    """Mean patients and toxicities by dose."""
    both = found.patients, found.toxicities
    patients, toxicities = ([mean(column.astype(np.float64), n) for column in each.T] for each in both)
    return patients, toxicities


def interval_design(given: Arguments) -> dict[str, Any]:
    """get.oc() of BOIN."""
    refuse("get.oc", given, OC, "titration", "extrasafe", "boundMTD")
    low, high = (None if is_missing(given[name]) else float(given[name]) for name in ("p.saf", "p.tox"))
    design = IntervalDesign(float(given["target"]), low, high, float(given["cutoff.eli"]))
    cohorts = Cohorts(int(given["ncohort"]), int(given["cohortsize"]), int(given["startdose"]) - 1)
    if float(given["n.earlystop"]) < cohorts.num_cohorts * cohorts.size:
        raise NotCoveredError("n.earlystop of get.oc()")
    truth, n = numbers(given["p.true"]), float(given["ntrial"])
    found = simulate_interval_design(design, truth, cohorts, NUM_TRIALS, seed=SEED)
    chosen = [_percent(share(found.chosen == dose, n)) for dose in range(-1, len(truth))]
    patients, toxicities = _counts(found, n)
    return {"selpercent": chosen[1:], "npatients": patients, "ntox": toxicities, "percentstop": chosen[0]}


def _percent(value: Simulated) -> Simulated:
    return replace(value, value=100 * value.value, error=100 * value.error)


def reassessment(given: Arguments) -> dict[str, Any]:
    """crmsim() of dfcrm without skipping of doses."""
    refuse("crmsim", given, CRMSIM, "method", "restrict")
    if given["model"] not in ("empiric", "logistic"):
        raise NotCoveredError(f"model={given['model']!r} of crmsim()")
    size, subjects = int(given["mcohort"]), int(given["n"])
    if subjects % size:
        raise NotCoveredError("cohorts of crmsim() that are not all of one size")
    intercept = None if given["model"] == "empiric" else float(given["intcpt"])
    model = ReassessmentModel(numbers(given["prior"]), float(given["target"]), intercept, float(given["scale"]) ** 2)
    truth, n = numbers(given["PI"]), float(given["nsim"])
    cohorts = Cohorts(subjects // size, size, int(given["x0"]) - 1)
    found = simulate_reassessment(model, truth, cohorts, NUM_TRIALS, seed=SEED)
    patients, toxicities = _counts(found, n)
    chosen = [share(found.chosen == dose, n) for dose in range(len(truth))]
    return {"MTD": chosen, "level": patients, "tox": toxicities}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get.oc": bound("get.oc", OC, interval_design),
    "crmsim": bound("crmsim", CRMSIM, reassessment),
}
