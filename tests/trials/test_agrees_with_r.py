"""Agreement with R (rpact, gsDesign, survival): numbers computed there and stored with the public data sets."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio,
    logrank_z,
    risk_sets,
)
from medtwin.trials.design.boundaries import (
    Bounds,
    cumulative_bounds,
    efficacy_only,
    exit_probabilities,
    fixed_drift,
    haybittle_peto_bounds,
    inflation,
    shaped_bounds,
    spending_both,
    spending_bounds,
    with_futility,
)
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.rates import RatesTest
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.survival_size import events_for_drift
from medtwin.trials.design.timing import Arm, event_probability, expected_events, time_of_events
from medtwin.trials.outcome.prognosis import ridge_cox

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
REFERENCE = DATA.parent / "reference"
pytestmark = pytest.mark.real
KINDS = {"asOF": "obrien_fleming", "asP": "pocock", "asHSD": "hwang_shih_decani", "asKD": "kim_demets"}
BOUNDARY_CASES = (
    "OF_k3_a025", "P_k4_a05_twosided", "WT25_k4", "HP_k3_291", "asOF_50", "asOF_65", "asOF_30_70", "asOF_25_50_75",
    "asOF_65_a015", "asOF_k2_a10_twosided", "asP_50", "asP_30_70", "asKD_rho1_k3", "asKD_rho1.5_k3", "asKD_rho2_k3",
    "asHSD_g-8_k4", "asHSD_g-4_k4", "asHSD_m4_unequal", "asUser_k3", "noEarlyEfficacy_k3",
)  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    path = REFERENCE / "trial_reference.json"
    if not path.is_file():
        pytest.skip(f"needs {path}: the reference numbers from R stand beside the public data sets")
    return {case["id"]: case for case in json.loads(path.read_text())["cases"]}


def agree(case: dict[str, Any], name: str, found: Any) -> None:
    """The stored rule: |x - ref| <= abs + rel |ref|."""
    tolerance = case["tolerance"]
    np.testing.assert_allclose(
        np.asarray(found, dtype=np.float64),
        np.asarray(case["outputs"][name], dtype=np.float64),
        atol=tolerance["abs"],
        rtol=tolerance["rel"],
        err_msg=f"{case['id']} {name}",
    )


def read_columns(name: str) -> dict[str, np.ndarray]:
    path = REFERENCE / "trial_data" / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, np.ndarray] = {}
    for key in rows[0]:
        try:
            columns[key] = np.array([float(row[key] or "nan") for row in rows])
        except ValueError:
            columns[key] = np.array([row[key] for row in rows])
    return columns


def bounds_of(inputs: dict[str, Any]) -> np.ndarray:
    kind, t, alpha = inputs["type"], inputs["information_rates"], inputs["alpha"]
    two_sided = inputs.get("sided") == 2
    if kind in KINDS:
        spending = Spending(KINDS[kind], inputs.get("rho", inputs.get("gamma")))
        return spending_bounds(t, alpha, spending, two_sided=two_sided)
    if kind == "asUser":
        return cumulative_bounds(t, inputs["user_alpha_spending"])
    if kind == "noEarlyEfficacy":
        return cumulative_bounds(t, [0.0] * (len(t) - 1) + [alpha])
    if kind == "HP":
        return haybittle_peto_bounds(t, alpha, inputs["constant_bounds_hp"], two_sided=two_sided)
    delta = {"OF": 0.0, "P": 0.5}.get(kind, inputs.get("delta_wt"))
    return shaped_bounds(t, alpha, delta, two_sided=two_sided)


@pytest.mark.parametrize("name", BOUNDARY_CASES)
def test_boundaries(cases: dict[str, dict[str, Any]], name: str) -> None:
    case = cases[name]
    found = bounds_of(case["inputs"])
    expected = np.array([np.inf if z is None else z for z in case["outputs"]["critical_values"]], dtype=np.float64)
    finite = np.isfinite(expected) & (expected < 10)  # rpact writes a look without a bound as a very large number
    np.testing.assert_allclose(found[finite], expected[finite], atol=case["tolerance"]["abs"], rtol=1e-6)
    assert (found[~finite] > 7).all()


def test_every_boundary_case_is_named(cases: dict[str, dict[str, Any]]) -> None:
    assert {name for name, case in cases.items() if case["category"] == "gs_boundary"} == set(BOUNDARY_CASES)


def test_a_wrong_spending_function_does_not_agree(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["asOF_30_70"]
    wrong = spending_bounds(case["inputs"]["information_rates"], 0.025, Spending("pocock"))
    with pytest.raises(AssertionError, match="asOF_30_70"):
        agree(case, "critical_values", wrong)


def check_characteristics(
    case: dict[str, Any], bounds: Bounds, alpha: float, beta: float, names: dict[str, str]
) -> None:
    """Shift, inflation, exit probabilities and expected sample sizes of a design, by the names of the case."""
    exits, drift = bounds.exits(bounds.drift), bounds.drift
    found = {
        "shift": drift**2,
        "inflation": inflation(bounds, alpha, 1 - beta),
        "rejections": exits.upper,
        "power": exits.upper.cumsum(),
    }
    ratio = inflation(bounds, alpha, 1 - beta)
    for key, at in (("asn_h1", 1.0), ("asn_h01", 0.5), ("asn_h0", 0.0)):
        found[key] = bounds.exits(at * drift).expected(bounds.fractions) * ratio
    for key, name in names.items():
        agree(case, name, found[key])


RPACT_FUTILITY = {
    "shift": "shift", "inflation": "inflation_factor", "rejections": "rejection_probabilities_h1",
    "asn_h1": "asn_ratio_h1", "asn_h01": "asn_ratio_h01", "asn_h0": "asn_ratio_h0",
}  # fmt: skip


def test_binding_beta_spending(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["bsP_binding"]
    spending = (Spending("obrien_fleming"), Spending("pocock"))
    bounds = spending_both([0.3, 0.7, 1.0], 0.025, 0.2, spending, binding=True)
    agree(case, "critical_values", bounds.efficacy)
    agree(case, "futility_bounds", bounds.futility[:-1])
    agree(case, "futility_probabilities_h1", bounds.exits(bounds.drift).lower[:-1])
    check_characteristics(case, bounds, 0.025, 0.2, RPACT_FUTILITY)


@pytest.mark.parametrize("name", ["fixedfut_nonbinding", "fixedfut_binding"])
def test_fixed_futility_bounds(cases: dict[str, dict[str, Any]], name: str) -> None:
    case, t, futility = cases[name], [0.3, 0.7, 1.0], [0.0, 0.5, -np.inf]
    lower = futility if case["inputs"]["binding"] else None
    efficacy = spending_bounds(t, 0.025, Spending("obrien_fleming"), lower=lower)
    agree(case, "critical_values", efficacy)
    bounds = with_futility(t, efficacy, futility, 0.9)
    agree(case, "futility_probabilities_h1", bounds.exits(bounds.drift).lower[:-1])
    check_characteristics(case, bounds, 0.025, 0.1, RPACT_FUTILITY)


@pytest.mark.parametrize(
    ("name", "t", "beta", "gamma", "binding"),
    [
        ("gs_tt3_default", [0.3, 0.7, 1.0], 0.1, -2.0, True),
        ("gs_tt4_ldof_hsd", [0.25, 0.5, 0.75, 1.0], 0.15, -8.0, False),
    ],
)
def test_gsdesign_beta_spending(
    cases: dict[str, dict[str, Any]], name: str, t: list[float], beta: float, gamma: float, binding: bool
) -> None:
    case = cases[name]
    spending = (Spending("obrien_fleming"), Spending("hwang_shih_decani", gamma))
    bounds = spending_both(t, 0.025, beta, spending, binding=binding)
    agree(case, "upper", bounds.efficacy)
    agree(case, "lower", bounds.futility)
    fixed = case["inputs"].get("n_fixed", 1)
    size = inflation(bounds, 0.025, 1 - beta) * bounds.fractions * fixed
    agree(case, "n_I", size)
    null, alternative = bounds.exits(0.0), bounds.exits(bounds.drift)
    agree(case, "upper_crossing_h0", null.upper)
    agree(case, "upper_crossing_h1", alternative.upper)
    agree(case, "lower_crossing_h0", null.lower)
    agree(case, "lower_crossing_h1", alternative.lower)
    agree(case, "expected_n", [null.expected(size), alternative.expected(size)])


def test_characteristics(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["char_OF3"]
    t = [1 / 3, 2 / 3, 1.0]
    bounds = efficacy_only(t, shaped_bounds(t, 0.025, 0.0), 0.9)
    names = {
        "shift": "shift", "inflation": "inflation_factor", "power": "power_by_stage",
        "rejections": "rejection_probabilities", "asn_h1": "asn_h1", "asn_h01": "asn_h01", "asn_h0": "asn_h0",
    }  # fmt: skip
    check_characteristics(case, bounds, 0.025, 0.1, names)
    agree(case, "n_fixed_info", fixed_drift(0.025, 0.9) ** 2)


@pytest.mark.parametrize("name", ["paasn_k3", "paasn_k2_fut"])
def test_power_and_average_sample_number(cases: dict[str, dict[str, Any]], name: str) -> None:
    case = cases[name]
    inputs = case["inputs"]
    t, most = inputs["information_rates"], inputs["n_max"]
    if inputs["type"] == "OF":
        upper = shaped_bounds(t, 0.025, 0.0)
    else:
        upper = spending_bounds(t, 0.025, Spending("obrien_fleming"))
    lower = None if "futility_bounds_z" not in inputs else np.array([inputs["futility_bounds_z"], -np.inf])
    exits = [exit_probabilities(t, upper, lower, theta * most**0.5) for theta in inputs["theta"]]
    agree(case, "overall_reject", [each.power for each in exits])
    agree(case, "asn", [each.expected(np.array(t) * most) for each in exits])
    agree(case, "early_stop", [(each.upper + each.lower)[:-1].sum() for each in exits])


def test_events_and_patients_of_survival_designs(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["sss_fixed_hr07"]
    events = events_for_drift(fixed_drift(0.025, 0.9), 0.7)
    agree(case, "events", events)
    control = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05))
    arms, even = (control.treated(0.7), control), PiecewiseRate((0.0,), (1 / 12,))
    agree(case, "n", events / expected_events([30], arms, even, 1.0)[0])
    case = cases["sss_fixed_alloc2"]
    events = events_for_drift(fixed_drift(0.015, 0.9), 0.7, 2.0)
    agree(case, "events", events)
    control = Arm(PiecewiseRate.of_median(8))
    even = PiecewiseRate((0.0,), (1 / 30,))
    agree(case, "n", events / expected_events([48], (control.treated(0.7), control), even, 1.0, 2 / 3)[0])
    agree(cases["sss_ni"], "events", events_for_drift(fixed_drift(0.025, 0.9), 1.0, null_hazard_ratio=1.291))


def test_group_sequential_survival_design(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["sss_gs2"]
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


def test_power_of_a_survival_design(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["pws_gs2"]
    upper = spending_bounds([0.5, 1.0], 0.025, Spending("obrien_fleming"))
    ratios = case["inputs"]["hr"]
    exits = [exit_probabilities([0.5, 1.0], upper, None, -np.log(ratio) * 75**0.5) for ratio in ratios]
    agree(case, "overall_reject", [each.power for each in exits])
    agree(case, "early_stop", [each.upper[0] for each in exits])
    agree(case, "expected_events", [each.expected([150, 300]) for each in exits])
    control, rate = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)), PiecewiseRate((0.0,), (450 / 12,))
    months = np.array([time_of_events([150, 300], expected_under(ratio, control, rate, 450)) for ratio in ratios])
    agree(case, "analysis_time_stage1", months[:, 0])
    agree(case, "analysis_time_stage2", months[:, 1])


def test_event_probabilities(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["evprob1"]
    control, rate = Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)), PiecewiseRate((0.0,), (450 / 12,))
    times = case["inputs"]["time"]
    agree(case, "event_probability_1", event_probability(times, control.treated(0.7), rate, 450))
    agree(case, "event_probability_2", event_probability(times, control, rate, 450))
    case = cases["evprob2"]
    control, rate = Arm(PiecewiseRate((0.0, 6.0), (0.08, 0.04))), PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 25.0))
    size = float(rate.cumulative([24.0])[0])
    agree(case, "event_probability_1", event_probability(case["inputs"]["time"], control.treated(0.6), rate, size))
    agree(case, "event_probability_2", event_probability(case["inputs"]["time"], control, rate, size))


def test_calendar_time_of_events(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["caltime1"]
    control, rate = (
        Arm(PiecewiseRate.of_median(12), dropout_rate(0.05)),
        PiecewiseRate((0.0, 3.0, 6.0), (5.0, 15.0, 25.0)),
    )
    size = float(rate.cumulative([24.0])[0])
    arms = (control.treated(0.7), control)
    found = time_of_events([100, 200, 300], lambda t: float(expected_events([t], arms, rate, size)[0]))
    agree(case, "calendar_time", found)


def test_means_and_rates(cases: dict[str, dict[str, Any]]) -> None:
    case = cases["ssm_gs3_bs"]
    plan = GroupSequential(looks=(0.3, 0.7, 1.0), futility=Spending("hwang_shih_decani", -2.0))
    fixed = MeansTest(5, 12, known_sd=True).subjects(plan.alpha, plan.power)
    agree(case, "max_n", fixed * plan.inflation)
    test, plan = RatesTest(0.45, 0.3), GroupSequential(looks=(0.5, 1.0))
    agree(cases["ssr_2s"], "n_fixed", test.subjects(0.025, 0.8))
    agree(cases["ssr_gs2"], "max_n", test.subjects(plan.alpha, plan.power) * plan.inflation)


LOGRANK = {
    "lr_veteran_trt": ("veteran", "time", "status", 1.0, "trt", 2.0),
    "lr_pbc_trt": ("pbc_randomised", "time", "status", 2.0, "trt", 1.0),
    "lr_colon_os": ("colon_os_obs_vs_lev5fu", "time", "status", 1.0, "trt", 1.0),
}


@pytest.mark.parametrize("name", LOGRANK)
def test_logrank(cases: dict[str, dict[str, Any]], name: str) -> None:
    dataset, time, status, event, group, experimental = LOGRANK[name]
    columns = read_columns(dataset)
    arm = (columns[group] == experimental).astype(np.int64)
    sets = risk_sets(columns[time][None], (columns[status] == event)[None], arm[None])
    agree(cases[name], "chisq", logrank_z(sets)[0] ** 2)


def test_sign_of_z(cases: dict[str, dict[str, Any]]) -> None:
    columns = read_columns("veteran")
    arm = (columns["trt"] == 2).astype(np.int64)
    z = logrank_z(risk_sets(columns["time"][None], (columns["status"] == 1)[None], arm[None]))[0]
    agree(cases["fh_veteran_0_0"], "z", z)


COX = {
    "cox_veteran_trt": ("veteran", "time", "status", "trt", 2.0),
    "cox_colon": ("colon_os_obs_vs_lev5fu", "time", "status", "trt", 1.0),
    "cox_gbsg_hormon": ("gbsg", "rfstime", "status", "hormon", 1.0),
}


@pytest.mark.parametrize("name", COX)
def test_cox(cases: dict[str, dict[str, Any]], name: str) -> None:
    dataset, time, status, group, experimental = COX[name]
    columns = read_columns(dataset)
    arm = (columns[group] == experimental).astype(np.int64)
    found = cox_log_hazard_ratio(risk_sets(columns[time][None], (columns[status] == 1)[None], arm[None]))
    agree(cases[name], "coef", found.estimate[0])
    agree(cases[name], "se", found.standard_error[0])


def test_kaplan_meier(cases: dict[str, dict[str, Any]]) -> None:
    columns = read_columns("lung")
    case = cases["km_lung_loglog"]
    curve = kaplan_meier(columns["time"], columns["status"] == 2)
    at = np.searchsorted(curve.time, case["inputs"]["times"], side="right") - 1
    agree(case, "surv", curve.survival[at])
    agree(case, "std_err", curve.standard_error[at])
    agree(case, "lower", curve.low[at])
    agree(case, "upper", curve.high[at])


def test_the_prognostic_score_without_penalty_is_a_cox_model(cases: dict[str, dict[str, Any]]) -> None:
    """Breslow ties instead of Efron's: lung has few ties, so they agree to two digits only."""
    columns = read_columns("lung")
    x = np.stack([columns[name] for name in ("sex", "age", "ph.ecog")], axis=1)
    keep = ~np.isnan(x).any(axis=1)
    beta = ridge_cox(columns["time"][keep], columns["status"][keep] == 2, x[keep] - x[keep].mean(axis=0), 0.0)
    np.testing.assert_allclose(beta, cases["cox_lung"]["outputs"]["coef"], rtol=0.01)
