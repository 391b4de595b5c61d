"""Scenarios of means and rates: what is true changes, the design stays; what has no meaning is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials import (
    Assumptions,
    BinaryResponse,
    ContinuousResponse,
    DifferencePrior,
    EffectPrior,
    GroupSequential,
    NonInferiority,
    PiecewiseRate,
    RampedAccrual,
    ResponseTrial,
    SwitchAtProgression,
    prepare_responses,
)
from medtwin.trials.engine.assumptions import study_under
from medtwin.trials.engine.comparison import DURATION, OUTCOMES, REJECTED, analytical_of, compare_designs, settings_of
from medtwin.trials.engine.response_assumptions import effects_under, responses_under
from medtwin.trials.engine.response_batch import draw_patients, responses_of, run_trials
from medtwin.trials.engine.response_scenarios import effect_scenarios
from tests.trials.test_comparison import TWO

PLAN = GroupSequential(looks=(0.5, 1.0), power=0.9)
ACCRUAL = RampedAccrual(12.0)
PAIN = prepare_responses(
    ResponseTrial("pain", PLAN, ContinuousResponse("pain", 3.0, 0.8, 1.6), accrual=ACCRUAL, annual_dropout=0.1), None
)
ONE = prepare_responses(replace(PAIN.trial, plan=GroupSequential(looks=(1.0,), power=0.9)), None)
RATE = prepare_responses(
    ResponseTrial("rate", PLAN, BinaryResponse("response", 6.0, 0.05, 0.25), accrual=ACCRUAL, annual_dropout=0.1), None
)
RELAPSE = prepare_responses(
    ResponseTrial(
        "relapse",
        PLAN,
        BinaryResponse("relapse", 6.0, 0.3, 0.0, higher_is_better=False),
        NonInferiority(0.25),
        accrual=ACCRUAL,
    ),
    None,
)


def test_what_is_true_changes_and_the_design_stays() -> None:
    wide = responses_under(PAIN, Assumptions(sd_factor=1.5, accrual_factor=0.5, annual_dropout=0.3))
    assert wide.plan.design is PAIN.plan.design
    assert wide.plan.num_subjects == PAIN.plan.num_subjects
    assert wide.plan.retained < PAIN.plan.retained
    assert wide.months_of_looks[0] > 1.5 * PAIN.months_of_looks[0]
    values = [responses_of(plan, draw_patients(plan, 1, 0), 0.0) for plan in (PAIN.plan, wide.plan)]
    np.testing.assert_allclose(values[1], 1.5 * values[0])  # the same draws
    assert responses_under(PAIN, Assumptions()).plan == PAIN.plan
    other = responses_under(RATE, Assumptions(control_rate=0.5)).plan
    drawn = responses_of(other, draw_patients(other, 1, 0), 0.25)
    arm = draw_patients(other, 1, 0).arm
    for which, wanted in ((0, 0.5), (1, 0.75)):
        mine = drawn[arm == which]
        assert abs(mine.mean() - wanted) < 4 * (wanted * (1 - wanted) / mine.size) ** 0.5


@pytest.mark.parametrize(
    ("study", "truth", "effect"),
    [
        (PAIN, Assumptions(sd_factor=1.4), 0.8),
        (PAIN, Assumptions(difference=0.4), 0.4),
        (RATE, Assumptions(control_rate=0.4), 0.25),
        (RELAPSE, Assumptions(difference=0.1), 0.1),
    ],
)
def test_power_in_a_scenario_is_that_of_theory(study: Any, truth: Assumptions, effect: float) -> None:
    """As planned the power is 0.9: the negative control."""
    found = compare_designs({"x": study}, {"truth": truth}, 1000, 3)
    line = next(each for each in found.lines() if each.characteristic == REJECTED)
    assert line.analytical is not None
    assert found.settings[0].effects.tolist() == [effect] * 10
    assert abs(line.estimate.value - line.analytical) < 4 * line.estimate.standard_error + 0.01
    assert line.analytical < 0.8


def test_the_null_is_that_of_the_trial() -> None:
    """Of non-inferiority it is the margin, in the wrong direction; there a test rejects at its level."""
    found = compare_designs({"x": RELAPSE}, {"h0": Assumptions(hazard_ratio=1.0), "h1": Assumptions()}, 1000, 2)
    errors = {line.scenario: line for line in found.lines() if line.characteristic == REJECTED}
    assert found.settings[0].effects[0] == 0.25
    assert abs(errors["h0"].estimate.value - 0.025) < 4 * 0.005
    assert errors["h1"].estimate.value > 0.8
    planned = effect_scenarios(RELAPSE, 100, 100)
    assert {each.effect for each in effects_under(planned, Assumptions(hazard_ratio=1.0), RELAPSE)} == {0.25}
    weak = effects_under(planned, Assumptions(difference=0.1), RELAPSE)
    assert [each.effect for each in weak][:2] == [0.1, 0.25]
    assert effects_under(planned, Assumptions(), RELAPSE) == planned


def test_designs_are_compared_on_the_same_patients() -> None:
    found = compare_designs({"two": PAIN, "one": ONE}, {"h1": Assumptions()}, 500, 3)
    assert found.measures[4] == found.information == OUTCOMES
    pairs = {pair.characteristic: pair for pair in found.differences()}
    assert pairs[REJECTED].error_ratio < 0.8
    assert pairs[DURATION].estimate.low > 0  # looking early saves time
    alone = run_trials(PAIN.plan, draw_patients(PAIN.plan, 3, 0), 0.8)
    np.testing.assert_array_equal(alone.months, found.of("two", "h1").stops.months[:100])


def test_assurance_averages_over_the_prior() -> None:
    prior = {"prior": Assumptions(difference=DifferencePrior(0.4))}
    setting = settings_of({"x": PAIN}, prior, 2000)[0]
    assert setting.effects.mean() == pytest.approx(0.8)
    assert setting.effects.std() == pytest.approx(0.4, rel=0.1)
    assert 0.5 < analytical_of(setting)[REJECTED] < 0.85
    with pytest.raises(ConfigError, match="num_trials must be 500 or more"):
        settings_of({"x": PAIN}, prior, 400)
    with pytest.raises(ConfigError, match=r"scenarios\.prior, designs\.x: effect must leave a rate"):
        settings_of({"x": RATE}, {"prior": Assumptions(difference=DifferencePrior(2.0))}, 500)
    with pytest.raises(ConfigError, match="`medtwin compare` averages over it"):
        effects_under([], prior["prior"], PAIN)


SWITCH = [SwitchAtProgression(PiecewiseRate((0.0,), (0.1,)), 0.5)]


@pytest.mark.parametrize(
    ("study", "truth", "field"),
    [
        (PAIN, {"treatment_changes": SWITCH}, "treatment_changes has no meaning"),
        (PAIN, {"effect": [[0, 0.0], [4, 1.0]]}, "effect has no meaning"),
        (PAIN, {"hazard_factor": 0.7}, "hazard_factor has no meaning"),
        (RATE, {"hazard_ratio": 0.7}, "hazard_ratio has no meaning"),
        (RATE, {"hazard_ratio": EffectPrior(0.2)}, "hazard_ratio has no meaning"),
        (RATE, {"sd_factor": 1.2}, "sd_factor has no meaning for a rate"),
        (PAIN, {"control_rate": 0.5}, "control_rate has no meaning for a mean"),
        (RATE, {"hazard_ratio": 1.0, "difference": 0.1}, "difference does not go with hazard_ratio=1"),
        (RATE, {"difference": 0.97}, "effect must leave a rate between 0 and 1"),
        (TWO, {"difference": 0.1}, "difference has no meaning for a time to an event"),
        (TWO, {"sd_factor": 1.2}, "sd_factor has no meaning for a time to an event"),
        (TWO, {"control_rate": 0.2}, "control_rate has no meaning for a time to an event"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(study: Any, truth: dict[str, Any], field: str) -> None:
    under = study_under if study is TWO else responses_under
    with pytest.raises(ConfigError, match=f"scenario.*{field}"):
        under(study, Assumptions(**truth))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"difference": float("nan")}, "difference must be finite"),
        ({"sd_factor": 0.0}, "sd_factor must be above 0"),
        ({"control_rate": 1.0}, "control_rate must be between 0 and 1"),
    ],
)
def test_numbers_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assumptions(**values)
    with pytest.raises(ValueError, match="sd must be above 0"):
        DifferencePrior(0.0)


def test_designs_of_several_kinds_are_not_compared() -> None:
    for other in (RATE, TWO):
        with pytest.raises(ConfigError, match="endpoints of one kind, got a of a mean, b of a "):
            settings_of({"a": PAIN, "b": other}, {"h1": Assumptions()}, 100)
