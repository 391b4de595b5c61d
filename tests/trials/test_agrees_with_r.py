"""What the engine counts and tests with, against rpact and survival: events over time, batched tests, the prognosis.

The runner, `test_reference.py`, asks the functions for one design and for one trial's data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio,
    logrank_z,
    risk_sets,
)
from medtwin.trials.design.boundaries import exit_probabilities, fixed_drift, spending_bounds
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.survival_size import events_for_drift
from medtwin.trials.design.timing import Arm, event_probability, expected_events, time_of_events
from medtwin.trials.outcome.prognosis import ridge_cox
from tests.trials.reference.cases import Case, agrees

pytestmark = pytest.mark.real


def agree(case: Case, name: str, found: Any) -> None:
    """Fails unless the answer lies within the tolerance of its case."""
    assert agrees(case, name, np.asarray(found)), (case.id, name, found, case.outputs[name])


def test_events_and_patients_of_survival_designs(reference_cases: dict[str, Case]) -> None:
    case = reference_cases["sss_fixed_hr07"]
    events = events_for_drift(fixed_drift(0.025, 0.9), 0.7)
    agree(case, "events", events)
    control = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05))
    arms, even = (control.treated(0.7), control), PiecewiseRate((0.0,), (1 / 12,))
    agree(case, "n", events / expected_events([30], arms, even, 1.0)[0])
    case = reference_cases["sss_fixed_alloc2"]
    events = events_for_drift(fixed_drift(0.015, 0.9), 0.7, 2.0)
    agree(case, "events", events)
    control = Arm(PiecewiseRate.of_median(8))
    even = PiecewiseRate((0.0,), (1 / 30,))
    agree(case, "n", events / expected_events([48], (control.treated(0.7), control), even, 1.0, 2 / 3)[0])
    agree(reference_cases["sss_ni"], "events", events_for_drift(fixed_drift(0.025, 0.9), 1.0, null_hazard_ratio=1.291))


def test_group_sequential_survival_design(reference_cases: dict[str, Case]) -> None:
    case = reference_cases["sss_gs2"]
    plan = GroupSequential(alpha=0.015, power=0.9, looks=(0.65, 1.0))
    events = events_for_drift(plan.bounds.drift, 0.7, 2.0)
    agree(case, "max_events", events)
    agree(case, "events_per_stage", np.array(plan.looks) * events)
    control = Arm(PiecewiseRate.of_median(8))
    arms = (control.treated(0.7), control)
    n = events / expected_events([48], arms, PiecewiseRate((0.0,), (1 / 30,)), 1.0, 2 / 3)[0]
    agree(case, "max_n", n)
    rate = PiecewiseRate((0.0,), (n / 30,))
    wanted = [0.65 * events, events * (1 - 1e-9)]
    months = time_of_events(wanted, lambda t: float(expected_events([t], arms, rate, n, 2 / 3)[0]))
    agree(case, "analysis_time", months)
    agree(case, "study_duration_h1", plan.bounds.exits(plan.bounds.drift).expected(months))
    agree(case, "expected_events_h1", plan.bounds.exits(plan.bounds.drift).expected(wanted))


def expected_under(ratio: float, control: Arm, rate: PiecewiseRate, size: float) -> Callable[[float], float]:
    arms = (control.treated(ratio), control)
    return lambda month: float(expected_events([month], arms, rate, size)[0])


def test_power_of_a_survival_design(reference_cases: dict[str, Case]) -> None:
    case = reference_cases["pws_gs2"]
    upper = spending_bounds([0.5, 1.0], 0.025, Spending("obrien_fleming"))
    ratios = case.inputs["hr"]
    exits = [exit_probabilities([0.5, 1.0], upper, None, -np.log(ratio) * 75**0.5) for ratio in ratios]
    agree(case, "overall_reject", [each.power for each in exits])
    agree(case, "early_stop", [each.upper[0] for each in exits])
    agree(case, "expected_events", [each.expected([150, 300]) for each in exits])
    control, rate = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)), PiecewiseRate((0.0,), (450 / 12,))
    months = np.array([time_of_events([150, 300], expected_under(ratio, control, rate, 450)) for ratio in ratios])
    agree(case, "analysis_time_stage1", months[:, 0])
    agree(case, "analysis_time_stage2", months[:, 1])


def test_event_probabilities(reference_cases: dict[str, Case]) -> None:
    case = reference_cases["evprob1"]
    control, rate = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)), PiecewiseRate((0.0,), (450 / 12,))
    times = case.inputs["time"]
    agree(case, "event_probability_1", event_probability(times, control.treated(0.7), rate, 450))
    agree(case, "event_probability_2", event_probability(times, control, rate, 450))
    case = reference_cases["evprob2"]
    control, rate = Arm(PiecewiseRate((0.0, 6.0), (0.08, 0.04))), PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 25.0))
    size = float(rate.cumulative([24.0])[0])
    agree(case, "event_probability_1", event_probability(case.inputs["time"], control.treated(0.6), rate, size))
    agree(case, "event_probability_2", event_probability(case.inputs["time"], control, rate, size))


def test_calendar_time_of_events(reference_cases: dict[str, Case]) -> None:
    case = reference_cases["caltime1"]
    control, rate = (
        Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)),
        PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 25.0)),
    )
    size = float(rate.cumulative([24.0])[0])
    arms = (control.treated(0.7), control)
    found = time_of_events([100, 200, 300], lambda t: float(expected_events([t], arms, rate, size)[0]))
    agree(case, "calendar_time", found)


LOGRANK = {
    "lr_veteran_trt": ("time", "status", 1.0, "trt", 2.0),
    "lr_pbc_trt": ("time", "status", 2.0, "trt", 1.0),
    "lr_colon_os": ("time", "status", 1.0, "trt", 1.0),
}


@pytest.mark.parametrize("name", LOGRANK)
def test_logrank(reference_cases: dict[str, Case], name: str) -> None:
    time, status, event, group, experimental = LOGRANK[name]
    columns = reference_cases[name].data
    arm = (columns[group] == experimental).astype(np.int64)
    sets = risk_sets(columns[time][None], (columns[status] == event)[None], arm[None])
    agree(reference_cases[name], "chisq", logrank_z(sets)[0] ** 2)


def test_sign_of_z(reference_cases: dict[str, Case]) -> None:
    columns = reference_cases["fh_veteran_0_0"].data
    arm = (columns["trt"] == 2).astype(np.int64)
    z = logrank_z(risk_sets(columns["time"][None], (columns["status"] == 1)[None], arm[None]))[0]
    agree(reference_cases["fh_veteran_0_0"], "z", z)


COX = {
    "cox_veteran_trt": ("time", "status", "trt", 2.0),
    "cox_colon": ("time", "status", "trt", 1.0),
    "cox_gbsg_hormon": ("rfstime", "status", "hormon", 1.0),
}


@pytest.mark.parametrize("name", COX)
def test_cox(reference_cases: dict[str, Case], name: str) -> None:
    time, status, group, experimental = COX[name]
    columns = reference_cases[name].data
    arm = (columns[group] == experimental).astype(np.int64)
    found = cox_log_hazard_ratio(risk_sets(columns[time][None], (columns[status] == 1)[None], arm[None]))
    agree(reference_cases[name], "coef", found.estimate[0])
    agree(reference_cases[name], "se", found.standard_error[0])


def test_the_prognostic_score_without_penalty_is_a_cox_model(reference_cases: dict[str, Case]) -> None:
    """Breslow ties instead of Efron's: lung has few ties, so they agree to two digits only."""
    columns = reference_cases["cox_lung"].data
    x = np.stack([columns[name] for name in ("sex", "age", "ph.ecog")], axis=1)
    keep = ~np.isnan(x).any(axis=1)
    beta = ridge_cox(columns["time"][keep], columns["status"][keep] == 2, x[keep] - x[keep].mean(axis=0), 0.0)
    np.testing.assert_allclose(beta, reference_cases["cox_lung"].outputs["coef"], rtol=0.01)
