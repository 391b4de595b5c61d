"""Operating characteristics of simulated trials, judged by four standard errors of both simulations."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.milestones import MilestoneCharacteristics, simulate_milestones
from tests.trials.reference import dose_simulations, r_base, rpact_designs, rpact_simulations
from tests.trials.reference.cases import Case, NotCoveredError, Simulated
from tests.trials.reference.evaluate import Environment, Named, plain

_LUNG = Path(__file__).parents[3] / "scripts" / "examples" / "lung_trial.py"
_BRIEF_TRIALS = 1000
"""Trials behind the published numbers of the brief."""
_FUNCTIONS = {
    **r_base.FUNCTIONS,
    **rpact_designs.FUNCTIONS,
    "as.vector": lambda value: _by_column(value),
    **rpact_simulations.FUNCTIONS,
    **dose_simulations.FUNCTIONS,
}


def _answer(case: Case) -> Mapping[str, Any]:
    """Of a call of rpact, or of the brief that a case names."""
    if case.raw["source"]["package"] == "external":
        return _brief(case)
    env = Environment({}, _FUNCTIONS)
    env.variables["x"] = env.run(case.call)
    return {name: _flat(value) for name, value in env.run(case.extract).items()}


def _by_column(value: Any) -> Any:
    """A matrix as R's vector of it."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [each for column in zip(*value, strict=True) for each in column]
    return value


def _flat(value: Any) -> Any:
    return plain(value) if isinstance(value, Named) else value


def _brief(case: Case) -> Mapping[str, Any]:
    """Issue 118 of RConsortium/pharma-skills, as scripts/examples/lung_trial.py has it."""
    if not case.raw["source"]["version"].endswith("#118"):
        raise NotCoveredError(f"the brief {case.raw['source']['version']}")
    script = runpy.run_path(str(_LUNG))
    found: MilestoneCharacteristics = simulate_milestones(
        script["TRIAL"], script["SCENARIOS"][0], rpact_simulations.NUM_TRIALS, seed=rpact_simulations.SEED
    )
    design = script["PFS_DESIGN"]
    return {
        "p_orr_gate": _of(found.reached("checkpoint"), found),
        "pfs_power": _of(found.power("PFS"), found),
        "os_power": _of(found.power("OS"), found),
        "any_win": _of(found.any_rejected, found),
        "p_stop_look1": _of(found.stopped_at("response gate"), found),
        "expected_duration": _of(found.duration, found),
        "p_extend": _of(found.acted("checkpoint", "end by month 54"), found),
        "median_hr_pfs": _of(found.median_effect("PFS", "final"), found),
        "median_hr_os": _of(found.median_effect("OS", "final"), found),
        "planned_pfs_events": design.events[-1],
        "z_pfs": design.plan.bounds.efficacy,
        "z_os": found_bound(found),
    }


def found_bound(found: MilestoneCharacteristics) -> float:
    """The bound at which OS was tested: between the statistics that were and were not enough."""
    at, z = found.records.rejected_at[:, 1] >= 0, found.records.z[:, 1, -1]
    return float(0.5 * (z[at].min() + z[~at & (z == z)].max()))


def _of(estimate: Estimate, found: MilestoneCharacteristics) -> Simulated:
    """With the error of the published number beside ours."""
    more = math.sqrt(1 + found.num_trials / _BRIEF_TRIALS)
    return Simulated(estimate.value, estimate.standard_error * more)


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"operating_characteristics": _answer}
