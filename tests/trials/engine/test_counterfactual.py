from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import TrialPlan, marginal_log_hazard_ratio
from medtwin.trials.engine.counterfactual import MEASURES, Question, true_estimands
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Discontinuation, Dropout, SwitchAtProgression
from medtwin.trials.enrolment.intercurrent import handled, intercurrent_event
from medtwin.trials.outcome.prognosis import AssumedOutcome

RATE, TAU = PiecewiseRate((0.0,), (0.06,)), 18.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
TIMES = 0.5 * TAU * (NODES + 1)


def plan(sd: float = 0.0, **kwargs: object) -> TrialPlan:
    design = SurvivalDesign(GroupSequential(looks=(0.5, 1.0), power=0.8), 0.6)
    pool = AssumedOutcome(12.0, sd).pool(np.random.default_rng(0), 400)
    made = TrialPlan(design, pool, 240, RampedAccrual(12, 3).of_size(240), Dropout.of_share(0.05), 60.0)
    return replace(made, **kwargs)  # type: ignore[arg-type]


def law(made: TrialPlan, hazard_ratio: float, at: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Survival of either arm by the law itself: the mean over the pool, (times,) each."""
    total = np.atleast_1d(made.pool.hazard.cumulative(at))[:, None]
    risk, ratio = np.exp(made.pool.log_risk), np.exp(made.pool.log_hazard_ratios(hazard_ratio))
    return np.exp(-total * risk).mean(axis=1), np.exp(-total * risk * ratio).mean(axis=1)


def densities(made: TrialPlan, hazard_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    total = made.pool.hazard.cumulative(TIMES)[:, None]
    found = []
    for ratio in (1.0, np.exp(made.pool.log_hazard_ratios(hazard_ratio))):
        hazard = made.pool.hazard.rates[0] * np.exp(made.pool.log_risk) * ratio
        found.append((hazard * np.exp(-total * np.exp(made.pool.log_risk) * ratio)).mean(axis=1))
    return found[0], found[1]


@pytest.mark.parametrize("is_mixed", [False, True])
def test_the_true_estimands_are_those_of_the_law(is_mixed: bool) -> None:
    """Risks that differ, effects that differ: integrals of the survival functions, without simulation."""
    made = plan(1.0)
    if is_mixed:
        made = replace(made, pool=replace(made.pool, effect=1.0 + 0.8 * np.sign(made.pool.log_risk)))
    found = true_estimands(made, 3, 0.6, Question(MEASURES, TAU), num_blocks=4)
    control, treated = law(made, 0.6, TAU)
    expected = {"milestone_difference": float((treated - control)[0]), "risk_difference": float((control - treated)[0])}
    s0, s1 = law(made, 0.6, TIMES)
    f0, f1 = densities(made, 0.6)
    expected["restricted_mean_difference"] = float(0.5 * TAU * WEIGHTS @ (s1 - s0))
    expected["average_log_hazard_ratio"] = float(np.log((WEIGHTS @ (f1 * s0)) / (WEIGHTS @ (f0 * s1))))
    for name, value in expected.items():
        estimate = found[name]  # type: ignore[index]
        assert abs(estimate.value - value) < 4 * estimate.standard_error, name
        assert estimate.standard_error < 0.05 * abs(value), name


def test_the_marginal_hazard_ratio_is_that_of_all_alike_and_nearer_to_one_where_risks_differ() -> None:
    alike, mixed = (true_estimands(plan(sd), 3, 0.6, Question())["marginal_log_hazard_ratio"] for sd in (0.0, 1.2))
    assert abs(alike.value - np.log(0.6)) < 4 * alike.standard_error
    assert mixed.value > np.log(0.6) + 10 * mixed.standard_error
    before = marginal_log_hazard_ratio(plan(1.2), 3, 0.6)
    assert abs(mixed.value - before.value) < 4 * before.standard_error


def test_pairs_cut_the_variance_of_independent_arms() -> None:
    made = plan(0.8)
    paired, apart = (
        true_estimands(made, 1, 0.6, Question(MEASURES, TAU), num_blocks=6, is_paired=each) for each in (True, False)
    )
    for measure in MEASURES:
        assert abs(paired[measure].value - apart[measure].value) < 4 * apart[measure].standard_error
        ratio = (apart[measure].standard_error / paired[measure].standard_error) ** 2
        assert ratio > 2.5, measure  # 59 degrees of freedom each: a ratio of 1 would stay below 1.7


def test_a_subgroup_has_its_own_effect() -> None:
    made = plan(0.0)
    is_better = np.arange(400) < 200
    made = replace(made, pool=replace(made.pool, effect=np.where(is_better, 2.0, 0.0)))
    better, worse = (
        true_estimands(made, 2, 0.6, Question(members=each))["marginal_log_hazard_ratio"]
        for each in (is_better, ~is_better)
    )
    assert abs(better.value - 2 * np.log(0.6)) < 4 * better.standard_error
    assert abs(worse.value) < 4 * worse.standard_error + 1e-9
    with pytest.raises(ValueError, match="members must have somebody"):
        Question(members=np.zeros(400, dtype=bool))


def test_under_no_effect_every_estimand_is_none() -> None:
    made = plan(0.5, changes=[SwitchAtProgression(RATE)])
    for estimate in true_estimands(made, 0, 1.0, Question(MEASURES, TAU)).values():
        assert (estimate.value, estimate.standard_error) == (0.0, 0.0)


def test_strategies_ask_different_questions() -> None:
    """Switching controls have the treatment's effect: policy is diluted, the hypothetical effect is the whole one."""
    made = plan(0.0, changes=[SwitchAtProgression(RATE, probability=0.8)])
    policy, would = (
        true_estimands(made, 0, 0.5, Question(MEASURES, TAU, {"switching": each}))
        for each in ("treatment_policy", "hypothetical")
    )
    name = "marginal_log_hazard_ratio"
    assert abs(would[name].value - np.log(0.5)) < 4 * would[name].standard_error
    assert policy[name].value > would[name].value + 0.1
    clean = law(plan(0.0), 0.5, TAU)
    risk = would["risk_difference"]
    assert abs(risk.value - float((clean[0] - clean[1])[0])) < 4 * risk.standard_error


def test_while_on_treatment_and_composite_by_hand() -> None:
    """Constant hazards h of the event, g of stopping: P(event by tau, on) = h / (h + g) (1 - exp(-(h + g) tau))."""
    made = plan(0.0, changes=[Discontinuation(RATE)])
    h, g = made.pool.hazard.rates[0], 0.06
    on = true_estimands(made, 5, 0.6, Question(("risk_difference",), TAU, {"discontinuation": "while_on_treatment"}))
    while_on = 0.6 * h / (0.6 * h + g) * (1 - np.exp(-(0.6 * h + g) * TAU)) - (1 - np.exp(-h * TAU))
    assert abs(on["risk_difference"].value - while_on) < 4 * on["risk_difference"].standard_error
    either = true_estimands(made, 5, 0.6, Question(("risk_difference",), TAU, {"discontinuation": "composite"}))
    composite = np.exp(-h * TAU) - np.exp(-(0.6 * h + g) * TAU)
    assert abs(either["risk_difference"].value - composite) < 4 * either["risk_difference"].standard_error
    alone = true_estimands(made, 5, 1.0, Question(("risk_difference",), TAU, {"discontinuation": "composite"}))
    assert alone["risk_difference"].value > 0.1  # stopping counts as the event, in one arm only


def test_how_the_analysis_handles_a_change() -> None:
    event, dropout = np.array([5.0, np.inf]), np.array([np.inf, 9.0])
    change = [np.array([3.0, 7.0])]
    assert [each.tolist() for each in handled(event, dropout, change, ["treatment_policy"])] == [
        [5, np.inf], [np.inf, 9]
    ]  # fmt: skip
    assert [each.tolist() for each in handled(event, dropout, change, ["composite"])] == [[3, 7], [np.inf, 9]]
    for strategy in ("hypothetical", "while_on_treatment"):
        assert [each.tolist() for each in handled(event, dropout, change, [strategy])] == [[5, np.inf], [3, 7]]  # type: ignore[list-item]
    assert intercurrent_event(Discontinuation(RATE)) == "discontinuation"
    assert intercurrent_event(SwitchAtProgression(RATE)) == "switching"


def test_what_means_nothing_is_refused() -> None:
    made = plan(0.0, changes=[Discontinuation(RATE)])
    with pytest.raises(ValueError, match="tau must be a number of months above 0 for the risk_difference, got None"):
        Question(("risk_difference",))
    with pytest.raises(ValueError, match="survival is not defined after treatment ends"):
        true_estimands(
            made, 0, 0.6, Question(("milestone_difference",), TAU, {"discontinuation": "while_on_treatment"})
        )
