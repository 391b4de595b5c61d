"""Designs side by side on common random numbers, scenarios, assurance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.core.errors import ConfigError
from medtwin.trials import (
    AssumedOutcome,
    Assumptions,
    Discontinuation,
    EffectPrior,
    GroupSequential,
    PiecewiseRate,
    RampedAccrual,
    Spending,
    Study,
    SurvivalTrial,
    SwitchAtProgression,
    prepare,
)
from medtwin.trials.engine.assumptions import analytical_exits, scenarios_under, study_under
from medtwin.trials.engine.batch import Characteristics, course_of, draw_patients, run_block
from medtwin.trials.engine.comparison import (
    DURATION,
    EVENTS,
    MEASURES,
    REJECTED,
    analytical_of,
    compare_designs,
    paired_difference,
    settings_of,
)
from medtwin.trials.engine.scenarios import scenarios_of
from medtwin.trials.enrolment.effect_over_time import effect_over_time


def study(looks: tuple[float, ...] = (0.5, 1.0), kind: str = "obrien_fleming", power: float = 0.8) -> Study:
    plan = GroupSequential(power=power, looks=looks, efficacy=Spending(kind))  # type: ignore[arg-type]
    trial = SurvivalTrial(
        "a trial", plan, 0.6, assumed=AssumedOutcome(10.0), accrual=RampedAccrual(12.0), follow_up_months=12.0
    )
    return prepare(trial, None, 0)


ONE, TWO, POCOCK = study((1.0,)), study(), study(kind="pocock")


def test_a_design_beside_others_is_the_design_alone() -> None:
    found = compare_designs(
        {"one": ONE, "two": TWO}, {"h1": Assumptions(), "h0": Assumptions(hazard_ratio=1.0)}, 150, 7
    )
    assert (found.designs, found.scenarios) == (["one", "two"], ["h1", "h0"])
    alone = [run_block(TWO.plan, 7, block, 0.6) for block in range(2)]
    mine = found.of("two", "h1")
    assert mine.num_trials == 200  # whole blocks
    assert (mine.stops.months == np.concatenate([each.months for each in alone])).all()
    line = next(x for x in found.lines() if (x.design, x.scenario, x.characteristic) == ("two", "h1", REJECTED))
    assert line.estimate.value == mine.stops.is_rejected.mean()
    assert line.estimate == mine.power
    with pytest.raises(KeyError, match="no design 'three'"):
        found.of("three", "h1")


def test_paired_errors_are_true_and_smaller_than_those_of_independent_draws() -> None:
    """Of 40 batches of 100 trials: the spread of their differences is the error that is told of each."""
    h1 = {"h1": Assumptions()}
    paired = compare_designs({"one": ONE, "two": TWO}, h1, 4000, 1)
    other = compare_designs({"two": TWO}, h1, 4000, 2)
    one, two, apart = paired.of("one", "h1"), paired.of("two", "h1"), other.of("two", "h1")
    found = paired_difference(two, one, REJECTED)

    def batches(first: Characteristics, second: Characteristics) -> float:
        """The error of the difference of means of 4,000, from the spread of batches."""
        values = MEASURES[REJECTED](first.stops) - MEASURES[REJECTED](second.stops)
        return float(values.reshape(40, 100).mean(axis=1).std(ddof=1) / math.sqrt(40))

    assert batches(two, one) == pytest.approx(found.estimate.standard_error, rel=0.4)
    assert batches(apart, one) == pytest.approx(found.independent_error, rel=0.4)
    assert found.error_ratio < 0.5  # a quarter as many trials for the same error, or fewer
    assert abs(found.estimate.value) < 0.02  # both have 80 % power
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    same = paired_difference(one, one, DURATION)
    assert (same.estimate.value, same.estimate.standard_error) == (0.0, 0.0)
    with pytest.raises(ValueError, match="as many"):
        paired_difference(one, Characteristics(0.6, run_block(ONE.plan, 1, 0, 0.6)), REJECTED)
    with pytest.raises(ValueError, match="characteristic must be one of"):
        paired_difference(one, two, "cost")


def test_power_and_events_are_the_analytical_ones() -> None:
    found = compare_designs(
        {"two": TWO, "pocock": POCOCK}, {"h1": Assumptions(), "h0": Assumptions(hazard_ratio=1.0)}, 2000, 3
    )
    for line in found.lines():
        if line.characteristic in (REJECTED, EVENTS):
            assert line.analytical is not None
            tolerance = 4 * line.estimate.standard_error + (0.01 if line.characteristic == REJECTED else 1.0)
            assert abs(line.estimate.value - line.analytical) < tolerance, line


@pytest.mark.slow
def test_power_under_a_delayed_effect_is_that_of_the_average_hazard_ratio() -> None:
    for looks in ((1.0,), (0.6, 1.0)):
        late = {"late": Assumptions(effect=[[0, 0.0], [3, 1.0]])}
        found = compare_designs({"a": study(looks, power=0.9)}, late, 20_000, 5)
        power = next(line for line in found.lines() if line.characteristic == REJECTED)
        assert power.analytical == pytest.approx(power.estimate.value, abs=0.02)
        assert power.analytical is not None
        assert power.analytical < 0.8


def test_a_late_effect_begins_when_it_is_said_to() -> None:
    late = study_under(TWO, Assumptions(effect=[[0, 0.0], [4, 1.0]]))
    drawn = draw_patients(late.plan, 0, 0)
    with_effect, without = (course_of(plan, drawn.doubled(), 0.6).event for plan in (late.plan, TWO.plan))
    half = with_effect.shape[1] // 2
    control, treated = with_effect[:, :half], with_effect[:, half:]
    assert (control == without[:, :half]).all()
    early = control <= 4
    assert np.allclose(treated[early], control[early])
    assert np.allclose(treated[~early] - 4, (control[~early] - 4) / 0.6)  # the hazard is constant
    whole = study_under(TWO, Assumptions(effect=[[0, 1.0]]))
    assert np.allclose(course_of(whole.plan, draw_patients(whole.plan, 0, 0).doubled(), 0.6).event, without)
    exits = analytical_exits(whole, 0.6)
    assert exits is not None
    assert exits.power == pytest.approx(TWO.plan.design.bounds.exits(TWO.plan.design.drift(0.6)).power, abs=0.01)


def test_assurance_of_a_fixed_design_has_a_closed_form() -> None:
    """theta ~ N(m, s^2), Z ~ N(theta sqrt(I), 1): P(Z > z) = Phi((m sqrt(I) - z) / sqrt(1 + s^2 I))."""
    prior = EffectPrior(log_sd=0.25, median=0.65)
    setting = settings_of({"one": ONE}, {"prior": Assumptions(hazard_ratio=prior)}, 10_000)[0]
    information = ONE.plan.design.events[-1] / 4
    mean, z = -math.log(0.65) * math.sqrt(information), ONE.plan.design.bounds.efficacy[0]
    exact = float(norm.cdf((mean - z) / math.sqrt(1 + 0.25**2 * information)))
    assert analytical_of(setting)[REJECTED] == pytest.approx(exact, abs=5e-4)
    assert setting.effects.mean() == pytest.approx(0.65 * math.exp(0.25**2 / 2), rel=5e-3)
    found = compare_designs({"one": ONE}, {"prior": Assumptions(hazard_ratio=prior)}, 2000, 3).of("one", "prior")
    assert abs(found.power.value - exact) < 4 * found.power.standard_error
    with pytest.raises(ConfigError, match="num_trials must be 500 or more"):
        settings_of({"one": ONE}, {"prior": Assumptions(hazard_ratio=prior)}, 400)
    coarse = analytical_of(settings_of({"one": ONE}, {"prior": Assumptions(hazard_ratio=prior)}, 500)[0])[REJECTED]
    assert abs(coarse - exact) < math.sqrt(exact * (1 - exact) / 500)
    planned = EffectPrior(log_sd=0.1).hazard_ratios(100, 0.6)
    assert np.exp(np.log(planned).mean()) == pytest.approx(0.6)


def test_scenarios_change_what_they_say_and_nothing_else() -> None:
    plan = TWO.plan
    slow = study_under(TWO, Assumptions(accrual_factor=0.5)).plan
    assert slow.enroll_rate.time_at(plan.num_subjects) == pytest.approx(2 * plan.enroll_rate.time_at(plan.num_subjects))
    assert (slow.num_subjects, slow.design, slow.max_months) == (plan.num_subjects, plan.design, plan.max_months)
    a, b = draw_patients(plan, 0, 0), draw_patients(slow, 0, 0)
    assert (a.amount == b.amount).all()
    assert np.allclose(b.enrolled, 2 * a.enrolled)
    leaving = study_under(TWO, Assumptions(annual_dropout=0.3)).plan
    assert float(leaving.dropout.control.cumulative(12.0)) == pytest.approx(-math.log(0.7))
    rarer = study_under(TWO, Assumptions(hazard_factor=0.5)).plan
    assert np.allclose(course_of(rarer, a, 0.6).event, 2 * course_of(plan, a, 0.6).event)
    switch = [SwitchAtProgression(PiecewiseRate((0.0,), (0.1,)))]
    switched = study_under(TWO, Assumptions(treatment_changes=switch)).plan
    drawn = draw_patients(switched, 0, 0)
    sooner = course_of(switched, drawn, 0.6).event >= course_of(plan, drawn, 0.6).event
    assert sooner.all()  # controls who switch have their event later
    assert analytical_exits(study_under(TWO, Assumptions(treatment_changes=switch)), 0.6) is None
    assert study_under(TWO, Assumptions()).plan.accrual is plan.accrual


def test_a_scenario_says_in_words_what_it_changes() -> None:
    assert Assumptions().describe() == []
    assert Assumptions().is_planned
    told = Assumptions(
        hazard_ratio=0.8, effect=[[0, 0.0], [4, 1.0]], hazard_factor=0.7, accrual_factor=0.5, annual_dropout=0.2
    ).describe()
    assert told == [
        "the hazard ratio is 0.8",
        "the part of the log hazard ratio since enrolment is 0% from month 0, 100% from month 4",
        "events come at 0.7 times the planned hazard in both arms",
        "patients come at 0.5 times the planned rate",
        "0.2 of the patients leave within a year",
    ]


def test_scenarios_of_a_simulation_follow_the_truth() -> None:
    planned = scenarios_of(TWO, 100, 100)
    assert scenarios_under(planned, Assumptions()) == planned
    assert {each.hazard_ratio for each in scenarios_under(planned, Assumptions(hazard_ratio=1.0))} == {1.0}
    weak = scenarios_under(planned, Assumptions(hazard_ratio=0.9))
    assert (weak[0], weak[1:]) == (replace(planned[0], hazard_ratio=0.9), planned[1:])
    with pytest.raises(ConfigError, match="medtwin compare"):
        scenarios_under(planned, Assumptions(hazard_ratio=EffectPrior(0.2)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hazard_ratio": 0.0}, "hazard_ratio must be above 0"),
        ({"hazard_ratio": math.nan}, "hazard_ratio must be above 0"),
        ({"accrual_factor": -1.0}, "accrual_factor must be above 0"),
        ({"hazard_factor": math.inf}, "hazard_factor must be above 0"),
        ({"effect": [[1, 0.0]]}, "months that begin with 0"),
        ({"effect": [[0, 0.0], [0, 1.0]]}, "increase"),
        ({"effect": [[0, 0.0, 1.0]]}, "pairs"),
        ({"annual_dropout": 1.0}, "dropout must be a share"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assumptions(**values)  # type: ignore[arg-type]


def test_what_does_not_go_together_is_refused() -> None:
    stopping = [Discontinuation(PiecewiseRate((0.0,), (0.05,)))]
    with pytest.raises(ValueError, match="leave one of them out"):
        Assumptions(effect=[[0, 0.0], [4, 1.0]], treatment_changes=stopping)
    changing = study_under(TWO, Assumptions(treatment_changes=stopping))
    with pytest.raises(ConfigError, match=r"scenario\.effect cannot change over time"):
        study_under(changing, Assumptions(effect=[[0, 0.0], [4, 1.0]]))
    assert effect_over_time([]) == []
    for empty, message in (({}, "designs"), ({"a": TWO}, "scenarios")):
        with pytest.raises(ValueError, match=f"{message} must be 1 or more"):
            settings_of(empty, {}, 100)
    with pytest.raises(ValueError, match="log_sd must be above 0"):
        EffectPrior(0.0)
