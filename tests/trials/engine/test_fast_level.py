"""The patient level, the fast level and numerical integration, held against each other: and where they must differ."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from medtwin.trials import (
    AssumedOutcome,
    GroupSequential,
    PermutedBlocks,
    RampedAccrual,
    Spending,
    SurvivalTrial,
    prepare,
)
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.bound_surface import InformationRange
from medtwin.trials.engine.canonical import joined, run_canonical
from medtwin.trials.engine.fast_level import (
    FastScenario,
    response_fast_scenarios,
    response_lines,
    stayers,
    survival_lines,
    survival_scenarios,
)
from medtwin.trials.engine.response_scenarios import EffectLine, effect_scenarios, response_table
from medtwin.trials.engine.response_trial import prepare_responses
from medtwin.trials.engine.scenarios import (
    Line,
    Scenario,
    characteristics_of,
    run_task,
    scenarios_of,
    table_of,
    tasks_of,
)
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.enrolment.adherence import Discontinuation
from tests.trials.engine.response_trials import TRIALS, simulated

SURVIVAL = SurvivalTrial(
    "x",
    GroupSequential(looks=(0.5, 0.75, 1.0), futility=Spending("hwang_shih_decani", -4.0)),
    0.7,
    randomisation=PermutedBlocks(4),
    accrual=RampedAccrual(24.0),
    follow_up_months=24.0,
    assumed=AssumedOutcome(12.0),
)
Key = tuple[str, int | None]


def fast(scenario: FastScenario, num_trials: int = 200_000) -> dict[Key, Line | EffectLine]:
    tasks = replace(scenario, num_trials=num_trials).tasks(3)
    found = joined(map(run_canonical, tasks))
    lines = survival_lines if scenario.information == "events at stop" else response_lines
    return {(line.characteristic, line.look): line for line in lines(scenario, found)}


def patients(study: Study, scenario: Scenario, num_trials: int) -> dict[Key, Line]:
    chosen = [replace(scenario, num_trials=num_trials)]
    found = characteristics_of(chosen, map(run_task, tasks_of(study, chosen, 3)))
    return {(line.characteristic, line.look): line for line in table_of(study, chosen[0], found[0], 3)}


def gap(first: Estimate, second: Estimate | float) -> float:
    """In Monte-Carlo standard errors."""
    value, error = (second.value, second.standard_error) if isinstance(second, Estimate) else (second, 0.0)
    both = math.hypot(first.standard_error, error)
    return 0.0 if first.value == value else abs(first.value - value) / max(both, 1e-12)


def shares(lines: dict[Key, Line | EffectLine]) -> dict[Key, Line | EffectLine]:
    """The rows that are shares of trials."""
    return {
        key: line
        for key, line in lines.items()
        if key[0] in ("power", "type I error", "rejected at look", "futile at look")
    }


@pytest.mark.parametrize("number", [0, 1, 2])
def test_survival_at_both_levels(number: int) -> None:
    study = prepare(SURVIVAL, None, 1)
    scenario = scenarios_of(study, 100, 100)[number]
    quick, slow = fast(survival_scenarios(study, [scenario])[0]), patients(study, scenario, 3000)
    for key, line in shares(quick).items():
        assert gap(line.estimate, slow[key].estimate) < 4, key
        assert line.analytical is not None
        assert gap(line.estimate, line.analytical) < 4, key
        assert line.analytical == pytest.approx(slow[key].analytical)
    for name in ("events at stop", "subjects at stop", "duration, months", "bias at stop"):
        if (name, None) in slow:
            assert quick[name, None].estimate.value == pytest.approx(
                slow[name, None].estimate.value, rel=0.03, abs=0.02
            )


def test_where_the_patients_are_not_what_the_statistic_takes_them_for_the_levels_differ() -> None:
    """The controls: risks that differ, an effect that wears off, and few events."""
    study = prepare(SURVIVAL, None, 1)
    alternative = scenarios_of(study, 100, 100)[0]
    quick = fast(survival_scenarios(study, [alternative])[0])["power", None].estimate
    spread = prepare(replace(SURVIVAL, assumed=AssumedOutcome(12.0, 1.5)), None, 1)
    assert gap(quick, patients(spread, alternative, 1000)["power", None].estimate) > 8
    wearing_off = [Discontinuation(PiecewiseRate((0.0, 6.0), (0.0, 0.3)))]
    changed = prepare(replace(SURVIVAL, treatment_changes=wearing_off, num_subjects=study.plan.num_subjects), None, 1)
    assert gap(quick, patients(changed, alternative, 1000)["power", None].estimate) > 8
    with pytest.raises(ValueError, match="treatment_changes"):
        survival_scenarios(changed, [alternative])
    few = replace(SURVIVAL, hazard_ratio=0.2, plan=GroupSequential(looks=(0.5, 1.0), efficacy=Spending("pocock")))
    small = prepare(few, None, 1)
    assert small.plan.design.events[0] < 12
    of_few = fast(survival_scenarios(small, scenarios_of(small, 100, 100)[:1])[0])["rejected at look", 1].estimate
    assert gap(of_few, patients(small, scenarios_of(small, 100, 100)[0], 3000)["rejected at look", 1].estimate) > 6


@pytest.mark.parametrize("name", ["t", "ancova", "rates", "rates non-inferiority 2:1"])
def test_responses_at_both_levels(name: str) -> None:
    study = prepare_responses(TRIALS[name], None)
    for scenario in effect_scenarios(study, 100, 100)[:2]:
        quick = fast(response_fast_scenarios(study, [scenario])[0])
        slow = {
            (line.characteristic, line.look): line
            for line in response_table(study, scenario, simulated(study, scenario.effect, 15))
        }
        for key, line in shares(quick).items():
            assert gap(line.estimate, slow[key].estimate) < 4, key
            assert line.analytical is not None
            assert abs(line.estimate.value - line.analytical) < 4 * line.estimate.standard_error + 2e-3, key
        for what in ("outcomes at stop", "subjects at stop", "duration, months"):
            assert quick[what, None].estimate.value == pytest.approx(slow[what, None].estimate.value, rel=0.03)


def test_responses_at_both_levels_differ_where_dropout_is_heavier() -> None:
    """The control."""
    study = prepare_responses(replace(TRIALS["t"], annual_dropout=0.2), None)
    quick = fast(response_fast_scenarios(study, effect_scenarios(study, 100, 100)[:1])[0])["power", None].estimate
    heavier = prepare_responses(replace(TRIALS["t"], annual_dropout=0.75, num_subjects=study.plan.num_subjects), None)
    plan = replace(heavier.plan, design=study.plan.design)
    assert gap(quick, simulated(replace(heavier, plan=plan), -8.0, 15).power) > 6


def test_observed_information_is_taken_into_account() -> None:
    study = prepare(SURVIVAL, None, 1)
    around = InformationRange((0.4, 0.65, 0.82), (0.6, 0.8, 1.2))
    chosen = scenarios_of(study, 100, 100)
    null, disregarded = (fast(each) for each in survival_scenarios(study, chosen[1:3], around))
    assert gap(disregarded["type I error", None].estimate, 0.025) < 4
    assert null["type I error", None].estimate.value < 0.025
    assert null["type I error", None].analytical is None  # the information is random
    planned = fast(survival_scenarios(study, chosen[:1])[0])
    under = fast(survival_scenarios(study, chosen[:1], InformationRange((0.4, 0.6, 0.7), (0.5, 0.65, 0.8)))[0])
    assert under["power", None].estimate.value < planned["power", None].estimate.value - 0.05


def test_who_stays_gives_the_last_look_its_information() -> None:
    study = prepare_responses(TRIALS["t"], None)
    ranges = stayers(study)
    assert ranges is not None
    mean = study.plan.num_subjects * study.plan.retained / study.plan.design.outcomes[-1]
    assert (ranges.low[-1] + ranges.high[-1]) / 2 == pytest.approx(mean)
    assert ranges.low[0] == ranges.high[0] == study.plan.design.outcomes[0] / study.plan.design.outcomes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_type_1_error_and_power_of_100000_trials(name: str) -> None:
    """Within .003 of nominal under the null, and the fast level's within Monte-Carlo error of the patients'."""
    study = prepare_responses(TRIALS[name], None)
    for scenario in effect_scenarios(study, 100, 100)[:3]:
        found = simulated(study, scenario.effect, 1000, obeys=scenario.obeys_futility)
        lines = {(line.characteristic, line.look): line for line in response_table(study, scenario, found)}
        quick = fast(response_fast_scenarios(study, [scenario])[0], 1_000_000)
        for key, line in shares(quick).items():
            if lines[key].analytical is not None:
                assert abs(line.estimate.value - lines[key].estimate.value) < 0.006, (scenario.name, key)
                assert abs(lines[key].estimate.value - lines[key].analytical) < 0.006, (scenario.name, key)
        if scenario.name == "null, futility disregarded" or (
            scenario.name == "null" and study.trial.plan.futility is None
        ):
            assert abs(found.power.value - 0.025) < 0.003


@pytest.mark.slow
def test_survival_at_both_levels_with_100000_trials() -> None:
    study = prepare(SURVIVAL, None, 1)
    for scenario in scenarios_of(study, 100, 100)[:3]:
        quick, slow = fast(survival_scenarios(study, [scenario])[0], 2_000_000), patients(study, scenario, 100_000)
        for key, line in shares(quick).items():
            assert abs(line.estimate.value - slow[key].estimate.value) < 0.006, (scenario.name, key)
