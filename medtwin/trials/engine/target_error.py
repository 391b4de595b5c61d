"""Simulating no more trials than a wanted Monte-Carlo error needs."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

from medtwin.trials.engine.batch import Characteristics, Stops
from medtwin.trials.engine.scenarios import Scenario, characteristics_of
from medtwin.trials.engine.tasks import POWER_CURVE


def cautious_error(rejected: int, num_trials: int) -> float:
    """The standard error of a share of trials, not 0 where all or none of few trials rejected.

    Two trials that rejected and two that did not are added.

    Source: Agresti & Coull 1998, Am Stat 52:119.

    >>> round(cautious_error(0, 100), 4), round(cautious_error(2500, 100000), 6)
    (0.0135, 0.000494)
    """
    share = (rejected + 2) / (num_trials + 4)
    return math.sqrt(share * (1 - share) / (num_trials + 4))


def simulated_until(
    scenarios: Sequence[Scenario], results: Iterable[Sequence[Sequence[Stops]]], target_mcse: float | None
) -> tuple[list[Scenario], list[Characteristics]]:
    """The scenarios with the trials that they have got, and their operating characteristics.

    Tasks are taken in their order until the standard errors of the power of all scenarios, and of the type I error, are
    at most the target, but for the power curve, whose trials are all taken. What is taken therefore depends on the
    trials alone, not on how many tasks are worked on at a time.

    Args:
        scenarios: With the most trials that each may get.
        results: Of the tasks in their order; closed when no more are needed.
        target_mcse: Of the share of trials that reject; None: all trials.

    Raises:
        ValueError: If the target is not above 0.
    """
    if target_mcse is None:
        return list(scenarios), characteristics_of(scenarios, results)
    if not target_mcse > 0:
        raise ValueError(f"target_mcse must be above 0, got {target_mcse!r}")
    taken: list[Sequence[Sequence[Stops]]] = []
    rejected, num_trials = [0] * len(scenarios), [0] * len(scenarios)
    for found in results:
        taken.append(found)
        for number, parts in enumerate(found):
            rejected[number] += sum(int(part.is_rejected.sum()) for part in parts)
            num_trials[number] += sum(len(part.look) for part in parts)
        if all(map(_is_done, scenarios, rejected, num_trials, [target_mcse] * len(scenarios))):
            break
    if isinstance(results, Generator):
        results.close()
    shorter = [replace(each, num_trials=count) for each, count in zip(scenarios, num_trials, strict=True)]
    return shorter, characteristics_of(shorter, taken)


def _is_done(scenario: Scenario, rejected: int, num_trials: int, target: float) -> bool:
    if num_trials >= scenario.num_trials:
        return True
    return scenario.name != POWER_CURVE and num_trials > 0 and cautious_error(rejected, num_trials) <= target
