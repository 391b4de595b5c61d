from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials import BigStick, Factor, GroupSequential, PermutedBlocks, RampedAccrual
from medtwin.trials.analysis.means import pooled_t_test
from medtwin.trials.analysis.rates import miettinen_nurminen_test
from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.response_batch import draw_patients, responses_of, run_trials
from medtwin.trials.engine.response_design import NonInferiority, ResponseDesign
from medtwin.trials.engine.response_scenarios import effect_scenarios, response_table, theory_of
from medtwin.trials.engine.response_tests import CovarianceAnalysis, ScoreTestOfRates, StandardisedRates, analyse
from medtwin.trials.engine.response_trial import ResponseTrial, example_patients, explained_by, prepare_responses
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, ResponsePool
from tests.trials.engine.response_trials import PRESSURE, RESPONDS, TRIALS, TWO, simulated

OF_THE_CALENDAR = ("duration, months", "subjects at stop")
"""What theory has of looks in the months in which they are expected."""


def is_near(found: Estimate, wanted: float | None, errors: float = 4.0) -> bool:
    assert wanted is not None
    return abs(found.value - wanted) <= errors * max(found.standard_error, 1e-3)


@pytest.mark.parametrize("name", TRIALS)
def test_agrees_with_theory_under_the_null_and_the_alternative(name: str) -> None:
    study = prepare_responses(TRIALS[name], None)
    for scenario in effect_scenarios(study, 1500, 100)[:2]:
        found = simulated(study, scenario.effect, 15)
        lines = {(line.characteristic, line.look): line for line in response_table(study, scenario, found)}
        power = lines["type I error" if scenario.name == "null" else "power", None]
        if name == "standardised rates" and scenario.name == "alternative":
            assert power.analytical is None
            assert is_near(power.estimate, 0.95, errors=8)  # sized without the covariates, which add to the power
            continue
        for line in lines.values():
            if line.analytical is not None and line.characteristic not in OF_THE_CALENDAR:
                assert is_near(line.estimate, line.analytical), line
        for characteristic in OF_THE_CALENDAR:
            amount = lines[characteristic, None]
            assert amount.analytical is not None
            assert abs(amount.estimate.value / amount.analytical - 1) < 0.02, characteristic
        coverage = lines["coverage of the 95 % interval at stop", None]
        assert 0.92 < coverage.estimate.value < 0.98


def test_more_dropout_than_planned_is_not_what_theory_says() -> None:
    """The control: patients leave three times as often, and the analytical value of the plan is wrong."""
    planned = prepare_responses(replace(TRIALS["t"], annual_dropout=0.2), None)
    heavier = prepare_responses(replace(TRIALS["t"], annual_dropout=0.75, num_subjects=planned.plan.num_subjects), None)
    plan = replace(heavier.plan, design=planned.plan.design)
    found = simulated(replace(heavier, plan=plan), -8.0, 15)
    theory = theory_of(planned, -8.0)
    assert theory is not None
    assert not is_near(found.power, theory.exits.power)
    assert is_near(simulated(planned, -8.0, 15).power, theory.exits.power)


def test_under_and_over_running_hold_alpha() -> None:
    """The last look has far fewer, or more, outcomes than planned: its bound is recomputed and spends the rest."""
    for subjects in (70, 140):
        study = prepare_responses(replace(TRIALS["t"], num_subjects=100, annual_dropout=0.0), None)
        plan = replace(study.plan, num_subjects=subjects)
        found = simulated(replace(study, plan=plan), 0.0, 60)
        assert found.outcomes.value > 0.95 * subjects
        assert is_near(found.power, 0.025)
        last = plan.design.last_bound(1, subjects)
        assert last != plan.design.bounds.efficacy[-1]
        assert math.isclose(last, 1.97, abs_tol=0.04)


def test_a_trial_is_what_the_function_of_one_trial_says() -> None:
    for name in ("t", "rates"):
        study = prepare_responses(TRIALS[name], None)
        plan = study.plan
        effect = plan.design.response.effect
        stops = run_trials(plan, draw_patients(plan, 1, 2), effect)
        for row in (0, 57):
            table = example_patients(study, 1, float(stops.months[row]) + 1e-9, 200 + row)
            seen = [value is not None for value in table["response"]]
            y = np.array([value for value in table["response"] if value is not None], dtype=float)
            arm = np.array(table["arm"])[seen] == "experimental"
            assert len(y) == stops.outcomes[row]
            assert len(table["arm"]) == stops.subjects[row]
            z = stops.z[row, stops.look[row]]
            if name == "t":
                one = pooled_t_test(y[arm], y[~arm], alternative="less")
                assert math.isclose(one.estimate, stops.estimate[row], abs_tol=1e-5)
                assert math.isclose(one.p_value, 0.5 * math.erfc(z / math.sqrt(2)), rel_tol=1e-3)
            else:
                counts = (float(y[arm].sum()), float(y[~arm].sum())), (float(arm.sum()), float((~arm).sum()))
                assert math.isclose(miettinen_nurminen_test(*counts).z, z, abs_tol=1e-9)


def test_patients_keep_their_draws_in_a_larger_trial_and_under_any_effect() -> None:
    small, large = (prepare_responses(replace(TRIALS["t"], num_subjects=n), None).plan for n in (100, 140))
    first, second = draw_patients(small, 3, 1), draw_patients(large, 3, 1)
    for name in ("index", "arm", "chance", "leaves"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name)[:, :100])
    zero, full = responses_of(small, first, 0.0), responses_of(small, first, -8.0)
    np.testing.assert_allclose(full - zero, -8.0 * first.arm, atol=1e-9)
    rates = prepare_responses(TRIALS["rates"], None).plan
    drawn = draw_patients(rates, 3, 1)
    under = [responses_of(rates, drawn, 0.2, np.full_like(drawn.arm, arm)) for arm in (0, 1)]
    assert (under[1] >= under[0]).all()  # the same chance in both arms: nobody responds to the control only
    assert abs((under[1] - under[0]).mean() - 0.2) < 0.02


def test_adjustment_saves_what_the_score_explains() -> None:
    adjusted, plain = (prepare_responses(TRIALS[name], None).plan.design for name in ("ancova", "t"))
    assert math.isclose(adjusted.explained, 0.36, abs_tol=1e-9)
    fixed = GroupSequential(looks=(1.0,))
    sizes = [replace(each, plan=fixed).max_outcomes for each in (adjusted, plain)]
    assert abs(sizes[0] / sizes[1] - 0.64) < 0.02
    pool = ResponsePool.parametric()
    assert explained_by(CovarianceAnalysis(["stratum"]), PRESSURE, pool) < 1e-4
    assert explained_by(CovarianceAnalysis(["stratum", "score"]), PRESSURE, pool) == pytest.approx(0.36)


def test_randomisation_balances_by_a_factor_and_information_waits_for_the_endpoint() -> None:
    trial = replace(TRIALS["t"], randomisation=BigStick(2, [Factor("score", [0.0]), "sex"]))
    plan = prepare_responses(trial, None).plan
    drawn = draw_patients(plan, 1, 0)
    for cell in range(4):
        here = (plan.pool.score[drawn.index] >= 0) + 2 * plan.pool.stratum[drawn.index] == cell
        lead = np.where(here, 2 * drawn.arm - 1, 0).sum(axis=1)
        assert np.abs(lead).max() <= 2
    assert drawn.resolved[drawn.is_observed] - drawn.enrolled[drawn.is_observed] == pytest.approx(6.0)
    assert (drawn.resolved >= drawn.enrolled).all()


def test_a_trial_cut_short_by_the_calendar_has_no_analytical_value_and_holds_alpha() -> None:
    study = prepare_responses(replace(TRIALS["t"], max_months=24.0), None)
    assert theory_of(study, -8.0) is None
    found = simulated(study, 0.0, 30)
    assert found.stops.months.max() <= 24.0
    assert is_near(found.power, 0.025)


def test_trials_that_cannot_be_analysed_find_nothing() -> None:
    response, observed = np.array([[0.0, 1.0, 1.0, 0.0]] * 2), np.array([[True] * 4, [True, True, False, False]])
    arm, nothing = np.array([[0, 0, 1, 1]] * 2), np.zeros((2, 4, 0))
    found = analyse(ScoreTestOfRates(), (response, arm, observed, nothing), 0.0, 0.0)
    assert found.z[0] == 0.0
    assert np.isnan([found.z[1], found.estimate[1], found.z_truth[1]]).all()
    constant = np.zeros((2, 4, 1))
    found = analyse(StandardisedRates(["score"]), (response, arm, np.ones_like(observed), constant), 0.0, 0.0)
    assert np.isnan(found.z).all()


BASE: dict[str, Any] = {"title": "x", "plan": TWO}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint": replace(PRESSURE, effect=8.0)}, "effect must lie below that of the null"),
        ({"endpoint": replace(PRESSURE, effect=0.0)}, "effect must lie below that of the null"),
        ({"endpoint": RESPONDS, "analysis": CovarianceAnalysis()}, "analysis must be of rates"),
        ({"endpoint": PRESSURE, "analysis": StandardisedRates()}, "analysis must be of means"),
        ({"endpoint": PRESSURE, "num_subjects": 0}, "num_subjects must be 1 or more"),
        ({"endpoint": PRESSURE, "allocation_ratio": 2.0}, "block_size must be a multiple of 3"),
        ({"endpoint": PRESSURE, "allocation_ratio": math.pi}, "quotient of integers"),
        ({"endpoint": PRESSURE, "max_months": 6.0}, "max_months must be above the 6 of the endpoint"),
        ({"endpoint": PRESSURE, "eligibility": "age >= 18"}, "eligibility must be a list"),
        ({"endpoint": replace(RESPONDS, control=0.05, effect=0.1), "hypothesis": NonInferiority(0.06)}, "rate between"),
        ({"endpoint": "pain"}, "endpoint must be a ContinuousResponse or BinaryResponse"),
        ({"endpoint": PRESSURE, "annual_dropout": 1.0}, "share"),
    ],
)
def test_trials_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResponseTrial(**(BASE | change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NonInferiority(0.0), "without one the trial tests superiority"),
        (lambda: NonInferiority(-0.1), "margin must be above 0"),
        (lambda: NonInferiority(math.nan), "margin must be above 0"),
        (lambda: BinaryResponse("x", 1.0, 0.9, 0.2), "effect must leave a rate between 0 and 1"),
        (lambda: BinaryResponse("x", 1.0, 1.0, 0.0), "control must be a rate"),
        (lambda: BinaryResponse("x", -1.0, 0.5, 0.1), "months must be 0 or more"),
        (lambda: BinaryResponse("x", 1.0, 0.5, 0.1, -1.0), "prognostic_sd"),
        (lambda: ContinuousResponse("x", 1.0, 1.0, 0.0), "sd must be above 0"),
        (lambda: ContinuousResponse("x", 1.0, math.inf, 1.0), "effect must be finite"),
        (lambda: ContinuousResponse("x", 1.0, 1.0, 1.0, correlation=1.0), "correlation"),
        (lambda: CovarianceAnalysis([]), "covariates must be a list of different names"),
        (lambda: StandardisedRates("score"), "covariates must be a list of different names"),
        (lambda: ResponseDesign(TWO, PRESSURE, fixed=0), "outcomes must be 1 or more"),
        (lambda: ResponseDesign(TWO, PRESSURE, fixed=11).outcomes, "looks must have 10 outcomes or more"),
    ],
)
def test_parts_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (replace(TRIALS["t"], endpoint=replace(PRESSURE, effect=-0.1)), "too many patients"),
        (replace(TRIALS["ancova"], analysis=CovarianceAnalysis(["egfr"])), "covariates must be among score, stratum"),
        (replace(TRIALS["t"], randomisation=PermutedBlocks(4, ["egfr"])), "factors must be among sex, site, score"),
        (replace(TRIALS["t"], num_subjects=12), "looks must have 10 outcomes or more"),
        (replace(TRIALS["t"], max_months=7.0), "max_months must leave time for the first look"),
        (replace(TRIALS["t"], accrual=RampedAccrual(500.0), max_months=20.0), "max_months must leave time"),
    ],
)
def test_what_only_the_plan_shows_is_refused_too(trial: ResponseTrial, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_responses(trial, None)
