from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from medtwin.core.shards import map_shards
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.engine.batch import BLOCK, Characteristics, Stops
from medtwin.trials.engine.scenarios import BLOCKS_PER_TASK, Scenario, run_task, scenarios_of, tasks_of
from medtwin.trials.engine.survival_trial import SurvivalTrial, prepare
from medtwin.trials.engine.target_error import cautious_error, simulated_until
from medtwin.trials.engine.tasks import POWER_CURVE
from medtwin.trials.outcome.prognosis import AssumedOutcome

STUDY = prepare(SurvivalTrial("t", GroupSequential(looks=(0.5, 1.0)), 0.5, assumed=AssumedOutcome(12.0)), None, 7)
STEP = BLOCKS_PER_TASK * BLOCK


def simulated(target: float | None, num_trials: int, workers: int = 1) -> tuple[list[Scenario], list[Characteristics]]:
    scenarios = scenarios_of(STUDY, num_trials, 500)
    results = map_shards(run_task, tasks_of(STUDY, scenarios, 7), num_workers=workers)
    return simulated_until(scenarios, results, target)


def test_trials_are_added_until_the_error_is_small_enough() -> None:
    scenarios, found = simulated(0.012, 20_000)
    counts = {scenario.name: each.num_trials for scenario, each in zip(scenarios, found, strict=True)}
    assert counts[POWER_CURVE] == 500
    assert counts["alternative"] == counts["null"] < 3000
    assert counts["null"] % STEP == 0
    for scenario, each in zip(scenarios, found, strict=True):
        assert scenario.num_trials == each.num_trials
        if scenario.name != POWER_CURVE:
            assert each.power.standard_error <= 0.012
    # a step earlier some error was too large
    before = [int(each.stops.is_rejected[: each.num_trials - STEP].sum()) for each in found[:2]]
    assert max(cautious_error(hits, found[0].num_trials - STEP) for hits in before) > 0.012


def test_no_more_than_the_most_and_none_without_a_target() -> None:
    for target in (1e-6, None):
        scenarios, found = simulated(target, 900)
        assert [each.num_trials for each in found] == [each.num_trials for each in scenarios]
        assert {each.num_trials for each in found[:2]} == {900}


def test_the_curve_is_finished_though_the_target_is_met_before() -> None:
    _, found = simulated(0.2, 5000)
    assert [each.num_trials for each in found[2:]] == [500] * 5
    assert found[0].num_trials == 2 * STEP


def test_the_number_of_workers_changes_nothing() -> None:
    (_, one), (_, two) = simulated(0.012, 4000), simulated(0.012, 4000, workers=2)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.stops.z, second.stops.z)
        np.testing.assert_array_equal(first.stops.log_hazard_ratio, second.stops.log_hazard_ratio)


def test_a_few_trials_that_all_agree_do_not_end_it() -> None:
    """The plain standard error of 0 of 100 is 0: it would stop at once whatever the target."""
    none = Stops(*(np.zeros(100, dtype=bool),) * 9)

    def results() -> Iterator[list[list[Stops]]]:
        for _ in range(50):
            yield [[none]]

    scenarios, _ = simulated_until([Scenario("null", 1.0, 5000)], results(), 0.001)
    assert 1000 < scenarios[0].num_trials < 2500
    assert cautious_error(0, scenarios[0].num_trials) <= 0.001 < cautious_error(0, scenarios[0].num_trials - 100)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_a_target_that_cannot_be_met_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_mcse must be above 0"):
        simulated_until([], [], target)
