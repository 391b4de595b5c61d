from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import course_of, draw_patients
from medtwin.trials.engine.survival_trial import SurvivalTrial, arms_of, prepare
from medtwin.trials.enrolment.adherence import Discontinuation, Dropout
from medtwin.trials.outcome.effect import parse_effect
from medtwin.trials.outcome.prognosis import AssumedOutcome, PatientPool
from medtwin.trials.population.criteria import Baseline

AGE = np.array([40.0, 60.0, 80.0, np.nan])
TABLE = Baseline(
    np.arange(4), ("age_years", "is_female", "egfr"),
    np.column_stack([AGE, [1.0, 0.0, 1.0, 0.0], [90.0, 50.0, 30.0, 60.0]]), np.array(["F", "M", "F", "M"]),
)  # fmt: skip
PLAN = GroupSequential(looks=(1.0,), power=0.8)


def found(text: str) -> list[float]:
    return parse_effect(text).log_hazard_ratios(np.array([0.0, 1.0, 2.0, 3.0]), TABLE).tolist()


def test_effects_by_hand() -> None:
    """The missing age is the median, 60; ages then have mean 60 and standard deviation sqrt(200)."""
    step = 20 / np.sqrt(200.0)
    assert found("-0.36 + 0.2 * scale(age)") == pytest.approx([-0.36 - 0.2 * step, -0.36, -0.36 + 0.2 * step, -0.36])
    assert found("log_hr = -0.5*female") == [-0.5, 0.0, -0.5, 0.0]
    assert found("0.1 - .2*female*(egfr < 60) + 0.05*2*log_risk") == pytest.approx([0.1, 0.2, 0.1, 0.4])
    assert found("-(age >= 60)") == [0.0, -1.0, -1.0, -1.0]
    assert found("-1e-1") == [-0.1] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a number or a covariate, got 'the end'"),
        ("-0.36 +", "column 8: expected a number or a covariate"),
        ("-0.36 + 0.2 age", "column 13: expected '.', '-', '.' or the end, got 'age'"),
        ("0.2 * scale(agee)", r"no covariate 'agee' but log_risk, age_years, is_female, egfr; did you mean age\?"),
        ("0.2 * scale(exp(age))", r"column 16: expected '\)', got '\('"),
        ("__import__('os')", "column 12: .* has no meaning here"),
        ("age ** 2", "column 6: expected a number or a covariate"),
        ("0.2 * age", r"within 10, got 16; did you forget scale"),
        ("(age > x)", "column 8: expected a number, got 'x'"),
    ],
)
def test_what_is_no_effect_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(text)


def test_a_covariate_that_is_the_same_for_all_cannot_be_scaled() -> None:
    with pytest.raises(ConfigError, match="needs a covariate that differs"):
        parse_effect("scale(log_risk)").log_hazard_ratios(np.zeros(3))


def pool_of(effect: np.ndarray | None) -> PatientPool:
    size = 4 if effect is None else len(effect)
    return PatientPool(np.zeros(size), np.arange(size) % 2, PiecewiseRate((0.0,), (0.1,)), effect=effect)


def trial(**kwargs: object) -> SurvivalTrial:
    common = {"assumed": AssumedOutcome(12.0, 0.6), "num_subjects": 400, "follow_up_months": 36.0}
    return SurvivalTrial("t", PLAN, 0.7, **{**common, **kwargs})  # type: ignore[arg-type]


def test_each_patient_has_the_effect_that_the_text_says() -> None:
    """Of the same draws: months to the event under treatment over months without are 1 / HR of that patient."""
    made = prepare(trial(effect="log_hr = -0.36 + 0.3*scale(log_risk)"), None, 0).plan
    wanted = -0.36 + 0.3 * (made.pool.log_risk - made.pool.log_risk.mean()) / made.pool.log_risk.std()
    np.testing.assert_allclose(made.pool.log_hazard_ratios(0.7), wanted, atol=1e-12)
    drawn = draw_patients(made, 0, 0)
    both = course_of(made, drawn.doubled(), 0.7).event.reshape(100, 2, -1)
    np.testing.assert_allclose(np.log(both[:, 0] / both[:, 1]), wanted[drawn.index], atol=1e-9)
    null = course_of(made, drawn.doubled(), 1.0).event.reshape(100, 2, -1)
    np.testing.assert_array_equal(null[:, 0], null[:, 1])  # under no effect nobody has one


def test_a_constant_effect_is_that_of_the_hazard_ratio() -> None:
    one, same = (prepare(trial(effect=text), None, 0) for text in (None, str(np.log(0.7))))
    drawn = draw_patients(one.plan, 0, 0)
    np.testing.assert_allclose(course_of(one.plan, drawn, 0.7).event, course_of(same.plan, drawn, 0.7).event)
    np.testing.assert_allclose(one.months_of_looks(0.7), same.months_of_looks(0.7), rtol=1e-9)


def test_the_effect_holds_under_changes_of_treatment() -> None:
    never = Discontinuation(PiecewiseRate((0.0,), (1e-9,)))
    made = prepare(trial(effect="-1.0*(log_risk > 0)", treatment_changes=[never]), None, 0).plan
    drawn = draw_patients(made, 0, 0)
    both = course_of(made, drawn.doubled(), 0.7).event.reshape(100, 2, -1)
    expected = np.where(made.pool.log_risk > 0, -1.0, 0.0)[drawn.index]
    np.testing.assert_allclose(np.log(both[:, 0] / both[:, 1]), expected, atol=1e-9)


def test_expected_events_know_the_effects() -> None:
    """Half of the patients have HR 0.5, half 1: survival of the treated is the mean of both."""
    experimental, control = arms_of(pool_of(np.array([2.0, 0.0] * 4)), Dropout.of_share(0.0), float(np.sqrt(0.5)))
    assert experimental.survival(10.0) == pytest.approx((np.exp(-0.5) + np.exp(-1.0)) / 2)
    assert control.survival(10.0) == pytest.approx(np.exp(-1.0))
    wrong = arms_of(replace(pool_of(None)), Dropout.of_share(0.0), float(np.sqrt(0.5)))[0]
    assert abs(float(wrong.survival(10.0)) - (np.exp(-0.5) + np.exp(-1.0)) / 2) > 0.005
