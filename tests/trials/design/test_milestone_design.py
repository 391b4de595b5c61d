from typing import Any

import numpy as np
import pytest

from medtwin.trials.design.milestone_design import milestone_survival, restricted_mean
from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from tests.trials.design.survival_trials import delayed, proportional


def test_complete_follow_up_is_a_binomial_proportion() -> None:
    """Everybody followed to the milestone and nobody lost: the Kaplan-Meier variance is S (1 - S) / n."""
    found = milestone_survival(proportional(0.7), 40.0, 12.0)
    assert found.values == pytest.approx([0.5**0.7, 0.5])
    assert found.variances == pytest.approx(found.values * (1 - found.values) / 120)


def test_complete_follow_up_gives_the_variance_of_the_restricted_time() -> None:
    rate, tau = np.log(2) / 12, 12.0
    mean = (1 - np.exp(-rate * tau)) / rate
    second = 2 * (1 - np.exp(-rate * tau) * (1 + rate * tau)) / rate**2
    found = restricted_mean(proportional(0.7), 40.0, tau)
    assert found.values[1] == pytest.approx(mean)
    assert found.variances[1] == pytest.approx((second - mean**2) / 120)


def test_censoring_costs_information() -> None:
    complete, censored = (milestone_survival(proportional(0.7), t, 12.0) for t in (40.0, 16.0))
    assert censored.difference == pytest.approx(complete.difference)
    assert censored.information < complete.information


def test_no_difference_before_the_effect_begins() -> None:
    assert milestone_survival(delayed(), 30.0, 3.0).difference == pytest.approx(0.0)
    assert restricted_mean(delayed(), 30.0, 3.0).difference == pytest.approx(0.0)
    assert restricted_mean(delayed(), 30.0, 12.0).difference > 0


def test_two_equal_strata_are_one() -> None:
    one = proportional(0.7)
    group = one.enrolling(0.5).strata[0]
    both = TwoArmSurvival([group, group], 12.0)
    for summary in (milestone_survival, restricted_mean):
        assert summary(both, 20.0, 9.0).information == pytest.approx(summary(one, 20.0, 9.0).information)


@pytest.mark.parametrize("milestone", [0.0, 20.0, 25.0])
def test_a_milestone_that_nobody_reaches_is_refused(milestone: Any) -> None:
    with pytest.raises(ValueError, match="milestone must be above 0 and below the follow-up"):
        milestone_survival(proportional(), 20.0, milestone)
