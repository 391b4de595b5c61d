"""Scenarios of trials whose endpoint is read once: what is true where they were planned on other assumptions.

What says how events come over time has no meaning for them, and is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.trials.engine.assumptions import (
    Assumptions,
    DifferencePrior,
    EffectPrior,
    at_rate,
    check_blocks_of_prior,
    refused,
)
from medtwin.trials.engine.response_design import ResponseDesign
from medtwin.trials.engine.response_scenarios import EffectScenario
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Response

Floats = NDArray[np.float64]
_WHY = "has no meaning for an endpoint that is read once"


def check_response_assumptions(assumptions: Assumptions, response: Response) -> None:
    """Refuses what has no meaning for the endpoint.

    Args:
        assumptions: What is true.
        response: The endpoint.

    Raises:
        ConfigError: Names the field.
    """
    ratio = assumptions.hazard_ratio
    if isinstance(ratio, EffectPrior):
        raise refused("hazard_ratio", ratio, _WHY, "state scenario.difference={_target_: ...DifferencePrior, sd: ...}")
    if ratio is not None and ratio != 1:
        raise refused("hazard_ratio", ratio, f"{_WHY}, but for 1, the null", "state scenario.difference")
    if ratio == 1 and assumptions.difference is not None:
        why = "does not go with hazard_ratio=1, the null"
        raise refused("difference", assumptions.difference, why, "leave one of them out")
    if assumptions.effect:
        raise refused("effect", assumptions.effect, _WHY, "it changes over time; state scenario.difference")
    if assumptions.hazard_factor != 1:
        instead = "state scenario.control_rate, of rates, or scenario.sd_factor, of means"
        raise refused("hazard_factor", assumptions.hazard_factor, _WHY, instead)
    if assumptions.treatment_changes:
        kinds = [type(change).__name__ for change in assumptions.treatment_changes]
        instead = "a switch in time has no course here; state the difference that is left as scenario.difference"
        raise refused("treatment_changes", kinds, _WHY, instead)
    if assumptions.sd_factor != 1 and not isinstance(response, ContinuousResponse):
        raise refused("sd_factor", assumptions.sd_factor, "has no meaning for a rate", "state scenario.control_rate")
    if assumptions.control_rate is not None and not isinstance(response, BinaryResponse):
        raise refused("control_rate", assumptions.control_rate, "has no meaning for a mean", "state scenario.sd_factor")


def responses_under(study: ResponseStudy, assumptions: Assumptions) -> ResponseStudy:
    """The study as it is in a scenario: its looks, bounds, patients and last month are those that were planned.

    Args:
        study: As planned.
        assumptions: What is true.

    Raises:
        ConfigError: If the scenario has no meaning for the endpoint, or cannot be: too few patients ever come, or the
            difference leaves no rate.
    """
    plan, planned = study.plan, study.plan.design.response
    check_response_assumptions(assumptions, planned)
    truth = planned
    try:
        if isinstance(planned, ContinuousResponse):
            truth = replace(planned, sd=planned.sd * assumptions.sd_factor)
        elif isinstance(planned, BinaryResponse) and assumptions.control_rate is not None:
            truth = replace(planned, control=assumptions.control_rate)
        if isinstance(assumptions.difference, (int, float)):
            truth.check_effect(assumptions.difference)
        found = replace(
            plan,
            accrual=at_rate(plan.accrual, assumptions.accrual_factor),
            dropout=assumptions.dropout(plan.dropout),
            truth=truth if truth != planned else plan.truth,
        )
    except ValueError as error:
        raise ConfigError(f"scenario: {error}") from error
    return replace(study, plan=found)


def effects_under(
    scenarios: Sequence[EffectScenario], assumptions: Assumptions, study: ResponseStudy
) -> list[EffectScenario]:
    """What is simulated of a trial in a scenario: its own difference takes the alternative's place.

    Differences of the power curve that leave no rate are left out.

    Args:
        scenarios: Of the trial, as planned.
        assumptions: What is true.
        study: In its scenario.

    Raises:
        ConfigError: If the difference has a prior.
    """
    difference, null = assumptions.difference, study.plan.design.null
    if isinstance(difference, DifferencePrior):
        raise ConfigError("scenario.difference has a prior: `medtwin compare` averages over it")
    if assumptions.hazard_ratio == 1 or difference == null:
        return [each for each in scenarios if each.effect == null]
    found = list(scenarios)
    if difference is not None:
        found = [replace(each, effect=difference) if each.name == "alternative" else each for each in scenarios]
    return [each for each in found if _is_possible(study, each.effect)]


def _is_possible(study: ResponseStudy, effect: float) -> bool:
    try:
        study.plan.response.check_effect(effect)
    except ValueError:
        return False
    return True


def differences_of(assumptions: Assumptions, design: ResponseDesign, planned: float, num_blocks: int) -> Floats:
    """The difference of each block of trials, (blocks,).

    Args:
        assumptions: What is true.
        design: Whose null is meant where the null is true.
        planned: What the first design was planned for.
        num_blocks: Over how many a prior is spread.

    Raises:
        ConfigError: If they are too few for the prior, or it reaches differences that leave no rate.
    """
    difference = assumptions.difference
    if isinstance(difference, DifferencePrior):
        check_blocks_of_prior(num_blocks, "difference")
        return difference.differences(num_blocks, planned)
    if assumptions.hazard_ratio == 1:
        return np.full(num_blocks, design.null)
    return np.full(num_blocks, planned if difference is None else difference)
