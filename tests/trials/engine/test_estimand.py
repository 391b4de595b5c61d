from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials import AssumedOutcome, Discontinuation, Endpoint, Estimand, GroupSequential, SurvivalTrial, prepare
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import course_of, draw_patients
from medtwin.trials.engine.estimand import attributes
from medtwin.trials.enrolment.adherence import SwitchAtMonth, SwitchAtProgression

RATE = PiecewiseRate((0.0,), (0.05,))
STOP, SWITCH = Discontinuation(RATE), SwitchAtProgression(RATE)
HOSPITAL = Endpoint("admission", ("SNOMED//32485007",), death=False)


def trial(estimand: Estimand | None, changes: object = (), endpoint: Endpoint | None = None) -> SurvivalTrial:
    return SurvivalTrial(
        "t",
        GroupSequential(looks=(1.0,), power=0.8),
        0.6,
        num_subjects=300,
        treatment_changes=changes,  # type: ignore[arg-type]
        endpoint=endpoint or Endpoint(),
        assumed=AssumedOutcome(12.0),
        estimand=estimand,
    )


def test_an_estimand_that_the_trial_simulates_and_analyses_is_taken() -> None:
    made = trial(Estimand(intercurrent_events={"discontinuation": "treatment_policy"}), [STOP])
    assert prepare(made, None, 0).plan.handling == ("treatment_policy",)
    trial(
        Estimand(intercurrent_events={"switching": "hypothetical", "death": "composite"}), [SWITCH, SwitchAtMonth(9.0)]
    )
    trial(Estimand(intercurrent_events={"death": "while_alive"}), endpoint=HOSPITAL)


@pytest.mark.parametrize(
    ("estimand", "changes", "endpoint", "message"),
    [
        (Estimand(), [STOP], None, "lacks discontinuation, which trial.treatment_changes simulates: say `disc"),
        (
            Estimand(intercurrent_events={"switching": "composite"}),
            [],
            None,
            "simulates none: simulate it there, or take",
        ),
        (Estimand(), [], HOSPITAL, "death must be while_alive where death only ends follow-up"),
        (
            Estimand(intercurrent_events={"death": "composite"}),
            [],
            HOSPITAL,
            "or let it count: trial.endpoint.death=true",
        ),
        (
            Estimand(intercurrent_events={"death": "while_alive"}),
            [],
            None,
            "death counts as an event: set trial.endpoint",
        ),
        (
            Estimand(measure="restricted_mean_difference", tau_months=12.0),
            [],
            None,
            "estimates the marginal_hazard_ratio",
        ),
        (
            Estimand(supplementary=["risk_difference"], tau_months=2.0),
            [],
            Endpoint(horizon_months=1.0),
            "beyond trial.endp",
        ),
    ],
)
def test_an_estimand_of_another_trial_is_refused_with_field_and_fix(
    estimand: Estimand, changes: list[object], endpoint: Endpoint | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trial(estimand, changes, endpoint)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measure": "odds_ratio"}, "estimand.measure must be one of marginal_hazard_ratio"),
        (
            {"intercurrent_events": {"rescue": "composite"}},
            "must be among discontinuation, switching, death, got 'rescue'",
        ),
        (
            {"intercurrent_events": {"switching": "ignore"}},
            "intercurrent_events.switching must be one of treatment_policy",
        ),
        ({"intercurrent_events": {"death": "hypothetical"}}, "death must be one of composite, while_alive"),
        ({"supplementary": ["risk_difference"]}, "tau must be a number of months above 0"),
        (
            {
                "supplementary": ["milestone_difference"],
                "tau_months": 9.0,
                "intercurrent_events": {"discontinuation": "while_on_treatment"},
            },
            "survival is not defined after treatment ends",
        ),
    ],
)
def test_what_is_no_estimand_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Estimand(**given)  # type: ignore[arg-type]


def test_the_strategy_decides_what_the_analysis_sees() -> None:
    """The same patients: censored at the switch, followed on, or the switch as the event."""
    courses = {}
    for strategy in ("treatment_policy", "hypothetical", "composite"):
        plan = prepare(trial(Estimand(intercurrent_events={"switching": strategy}), [SWITCH]), None, 0).plan
        courses[strategy] = course_of(plan, draw_patients(plan, 0, 0), 0.6)
    policy, would, either = (courses[name] for name in ("treatment_policy", "hypothetical", "composite"))
    assert (would.leaves <= policy.leaves).all()
    assert would.is_event.sum() < policy.is_event.sum() < either.is_event.sum()
    np.testing.assert_array_equal(either.leaves[policy.patients.arm == 1], policy.leaves[policy.patients.arm == 1])


def test_five_attributes_are_told() -> None:
    stated = Estimand(population="adults", intercurrent_events={"switching": "hypothetical"})
    told = {each.name: each.text for each in attributes(stated, Endpoint(), ["age 18 or more years"], [SWITCH])}
    assert list(told) == ["population", "treatment", "variable", "intercurrent events", "population-level summary"]
    assert told["population"] == "adults"
    assert "switching: hypothetical" in told["intercurrent events"]
    assert "death: composite" in told["intercurrent events"]
    implied = {each.name: each.text for each in attributes(None, HOSPITAL, ["age 18 or more years"], [STOP])}
    assert implied["population"] == "age 18 or more years"
    assert "discontinuation: treatment policy" in implied["intercurrent events"]
    assert "death: while alive" in implied["intercurrent events"]
