from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.survival_size import (
    ExponentialTrial,
    ProportionalHazards,
    effect_per_event,
    enroll_duration_for,
    events_for_drift,
    follow_up_for,
    optimal_allocation_ratio,
)
from tests.trials.design.survival_trials import proportional

DRIFT = norm.isf(0.025) + norm.ppf(0.9)

UNKNOWN: Any = "unheard of"


def test_events_by_hand() -> None:
    squared = DRIFT**2
    assert events_for_drift(DRIFT, 0.5) == pytest.approx(4 * squared / np.log(2) ** 2)
    assert events_for_drift(DRIFT, 0.5, formula="freedman") == pytest.approx(9 * squared)
    assert events_for_drift(DRIFT, 0.5, 2.0, formula="freedman") == pytest.approx(squared * 2**2 / 0.25 / 2)
    assert events_for_drift(DRIFT, 1.0, null_hazard_ratio=1.3) == pytest.approx(4 * squared / np.log(1.3) ** 2)


def test_freedman_and_hsieh_are_one_for_equal_arms_only() -> None:
    assert effect_per_event(0.6, 1.0, formula="freedman") == pytest.approx(
        effect_per_event(0.6, 1.0, formula="hsieh_freedman")
    )
    assert (
        abs(effect_per_event(0.6, 3.0, formula="freedman") - effect_per_event(0.6, 3.0, formula="hsieh_freedman"))
        > 0.01
    )


def test_the_enrolment_factor_gives_the_power_that_was_asked_for() -> None:
    law = ProportionalHazards(proportional(0.7, 0.004), 0.7)
    factor = law.enrolment_factor(30.0, 0.025, 0.9)
    sized = law.with_trial(law.trial.enrolling(factor))
    assert sized.power(30.0, 0.025) == pytest.approx(0.9)
    assert sized.drift_excess(30.0, 0.025, 0.9) == pytest.approx(0.0, abs=1e-12)


def test_lachin_and_foulkes_by_event_probabilities() -> None:
    """The general trial agrees with the closed form of exponential times and uniform entry."""
    hazard = np.log(2) / 12
    closed = ExponentialTrial(hazard, 0.7 * hazard, 12.0, 30.0, 0.004)
    law = ProportionalHazards(proportional(0.7, 0.004), 0.7)
    subjects = law.enrolment_factor(30.0, 0.025, 0.9) * 240
    assert closed.subjects(0.025, 0.9, scale="ratio") == pytest.approx(subjects)


def test_null_hazards_matter() -> None:
    pooled = ProportionalHazards(proportional(0.5), 0.5).enrolment_factor(20.0, 0.025, 0.9)
    control = ProportionalHazards(proportional(0.5), 0.5, null_hazards="control").enrolment_factor(20.0, 0.025, 0.9)
    assert control < pooled


def test_entry_that_is_nearly_uniform_is_uniform() -> None:
    uniform = ExponentialTrial(0.06, 0.03, 12.0, 24.0, 0.01)
    nearly = ExponentialTrial(0.06, 0.03, 12.0, 24.0, 0.01, entry_rate=1e-7)
    assert nearly.event_probability(0.06) == pytest.approx(uniform.event_probability(0.06), rel=1e-5)
    early = ExponentialTrial(0.06, 0.03, 12.0, 24.0, 0.01, entry_rate=0.5)
    assert early.event_probability(0.06) > uniform.event_probability(0.06)


def test_durations_solve_for_events() -> None:
    def lack(trial: Any, time: Any) -> Any:
        return trial.total_events(time) - 150.0

    trial = proportional()
    months = follow_up_for(trial, lack)
    assert trial.total_events(12.0 + months) == pytest.approx(150.0)
    duration = enroll_duration_for(trial, 6.0, lack)
    assert trial.enrolling_for(duration).total_events(duration + 6.0) == pytest.approx(150.0)
    with pytest.raises(ValueError, match="follow_up must be within"):
        follow_up_for(trial, lambda t, time: t.total_events(time) - 500.0)
    with pytest.raises(ValueError, match="follow_up must be above 0 months, but less is enough"):
        follow_up_for(trial, lambda t, time: t.total_events(time) - 1.0)


def test_the_best_allocation_of_a_symmetric_cost_is_equal() -> None:
    assert optimal_allocation_ratio(lambda r: (1 + r) ** 2 / r) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: effect_per_event(-1.0), "hazard_ratio must be above 0"),
        (lambda: effect_per_event(0.7, formula=UNKNOWN), "formula must be schoenfeld, freedman"),
        (lambda: effect_per_event(0.7, 1.0, 1.3, "freedman"), "formula must be schoenfeld for a null"),
        (lambda: events_for_drift(3.0, 1.0), "hazard_ratio must not be the null"),
        (lambda: events_for_drift(3.0, 0.7, 0.0), "allocation_ratio"),
        (lambda: ProportionalHazards(proportional(), 1.0), "hazard_ratio must be above 0 and not 1"),
        (lambda: ExponentialTrial(0.1, 0.1, 12.0, 6.0), "study_duration must be at least"),
        (
            lambda: ExponentialTrial(0.1, 0.1, 6.0, 12.0).subjects(0.025, 0.9, scale="ratio"),
            "experimental_hazard must not",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(build: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build()
