from typing import Any

import numpy as np
import pytest

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.event_driven import event_driven_looks
from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from tests.trials.design.survival_trials import constant, proportional


def test_events_under_uniform_entry_have_their_closed_form() -> None:
    """P(event) = h / (h + g) (1 - (exp(-(h + g)(T - R)) - exp(-(h + g) T)) / ((h + g) R)), Lachin & Foulkes 1986."""
    hazard, leaving, entry, end = np.log(2) / 12, 0.01, 12.0, 30.0
    total = hazard + leaving
    share = hazard / total * (1 - (np.exp(-total * (end - entry)) - np.exp(-total * end)) / (total * entry))
    found = proportional(1.0, leaving).events(end)[0]
    assert found == pytest.approx([120 * share] * 2, rel=1e-12)


def test_dropouts_are_to_events_as_their_hazards_are() -> None:
    trial = proportional(1.0, 0.01)
    assert trial.dropouts(20.0) / trial.events(20.0) == pytest.approx(0.01 * 12 / np.log(2))


def test_all_patients_are_at_risk_dropped_out_or_have_had_the_event() -> None:
    trial, time = proportional(0.7, 0.02), 9.0
    still = np.array([seen.weight @ seen.at_risk.T for seen in trial.all_follow_up(time)])
    person_months = trial.events(time) / (np.array([[0.7, 1.0]]) * np.log(2) / 12)
    assert still == pytest.approx(person_months)
    assert trial.at_risk([0.0], time).sum() == pytest.approx(180.0)


def test_far_calendar_months_have_all_events() -> None:
    assert proportional(0.7).total_events(1e4) == pytest.approx(240.0, rel=1e-9)


def test_the_month_of_events_inverts_their_number() -> None:
    trial = proportional(0.7, 0.01)
    times = trial.time_of_events([0.0, 50.0, 150.0, 1000.0])
    assert [trial.total_events(t) for t in times[1:3]] == pytest.approx([50.0, 150.0])
    assert times[0] == 0.0
    assert times[3] == np.inf


def test_fixed_follow_up_stops_the_clock_of_each_patient() -> None:
    trial = TwoArmSurvival(proportional(1.0).strata, 12.0, max_follow_up=6.0)
    assert trial.total_events(100.0) == pytest.approx(240 * (1 - 0.5**0.5))


@pytest.mark.parametrize("shape", [0.5, 0.8, 1.7])
def test_weibull_hazards_agree_with_a_fine_sum(shape: Any) -> None:
    hazard = WeibullHazard(0.05, shape)
    trial = TwoArmSurvival([Stratum(Arm(hazard), Arm(hazard), constant(20.0))], 12.0)
    follow_up = 30.0 - (np.arange(200000) + 0.5) * 12 / 200000
    expected = 240 * np.mean(1 - np.exp(-((0.05 * follow_up) ** shape)))
    assert trial.total_events(30.0) == pytest.approx(expected, rel=1e-8)


def test_a_weibull_hazard_of_shape_one_is_constant() -> None:
    one, other = WeibullHazard(0.05, 1.0), constant(0.05)
    assert one.at([1.0, 9.0]) == pytest.approx(other.at([1.0, 9.0]))
    assert one.scaled(2.0).cumulative(3.0) == pytest.approx(0.3)
    assert one.time_at(0.5) == pytest.approx(10.0)


def test_strata_add_up_and_keep_their_shares() -> None:
    group = proportional().strata[0]
    both = TwoArmSurvival([group, Stratum(group.experimental, group.control, constant(60.0))], 12.0)
    assert both.stratum_shares == pytest.approx((0.25, 0.75))
    assert both.total_events(20.0) == pytest.approx(4 * proportional().total_events(20.0))


def test_rates_add() -> None:
    total = PiecewiseRate((0.0, 3.0), (1.0, 2.0)).plus(PiecewiseRate((0.0, 5.0), (10.0, 20.0)))
    assert total.starts == (0.0, 3.0, 5.0)
    assert total.rates == (11.0, 12.0, 22.0)


def test_expected_course_weighs_the_looks_by_where_the_trial_stops() -> None:
    trial = proportional()
    looks = event_driven_looks(trial, [50.0, 100.0])
    exits = exit_probabilities([0.5, 1.0], [1.5, 2.0], None, 2.0)
    course, stop = looks.expected(exits), float(exits.upper[0])
    assert course.events == pytest.approx(50 * stop + 100 * (1 - stop))
    assert course.duration == pytest.approx(looks.times @ [stop, 1 - stop])
    with pytest.raises(ValueError, match="events must be as many as the trial can have"):
        event_driven_looks(trial, [500.0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TwoArmSurvival([], 12.0), "strata must be at least one"),
        (lambda: TwoArmSurvival(proportional().strata, 0.0), "enroll_duration must be above 0"),
        (lambda: TwoArmSurvival(proportional().strata, 1.0, -1.0), "allocation_ratio must be above 0"),
        (lambda: WeibullHazard(0.0, 1.0), "rate must be above 0"),
    ],
)
def test_what_is_no_trial_is_refused(build: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build()
