from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.trials import Age, Endpoint, GroupSequential, IndexDay, Lab
from medtwin.trials.engine.response_tests import CovarianceAnalysis, StandardisedRates
from medtwin.trials.engine.response_trial import ResponseTrial, prepare_responses
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Reading
from medtwin.trials.outcome.response_fit import read_events, read_values
from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import Candidates, find_eligible
from tests.trials.samples import FAILURE, HBA1C, cohort, death, has, lab, subject, visit

PLAN = GroupSequential(looks=(0.5, 1.0))
READ = ContinuousResponse("HbA1c", 6.0, -0.5, 9.0, record=Reading([HBA1C], "%", 60), higher_is_better=False)
FAILS = BinaryResponse("heart failure", 12.0, 0.5, -0.15, record=Endpoint("heart failure", [FAILURE], death=False),
                       higher_is_better=False)  # fmt: skip
HBA1C_AT_ENTRY = Lab("hba1c", [HBA1C], "%", 30)


def entry(found: Cohort) -> Candidates:
    return find_eligible(found, IndexDay(first_only=True), [Age(18)]).entry


@cache
def drawn(count: int = 300) -> Cohort:
    """HbA1c at entry and half a year later with correlation 0.8; heart failure in a quarter, by HbA1c."""
    generator = np.random.default_rng(4)
    rows = []
    for number in range(1, count + 1):
        first = 8 + generator.standard_normal()
        later = 7.5 + 0.8 * (first - 8) + 0.6 * generator.standard_normal()
        fails = generator.random() < 1 / (1 + math.exp(1.2 - 1.2 * (first - 8)))
        events = [visit(number, 0), lab(number, 0, first), lab(number, 180, later), visit(number, 500)]
        rows.append(subject(number, *events, *([has(number, 200, FAILURE)] if fails else [])))
    return cohort(rows)


def test_the_value_nearest_to_the_month_within_the_window() -> None:
    people = [
        [lab(1, 0, 9.0), lab(1, 150, 8.0), lab(1, 190, 7.0)],  # 183 days are wanted: 190 is nearer
        [lab(2, 0, 9.0), lab(2, 170, 6.0), lab(2, 230, 5.0)],  # 170 is
        [lab(3, 0, 9.0)],  # the day of entry does not count
        [lab(4, 0, 9.0), lab(4, 90, 4.0)],  # beyond the window
        [lab(5, 200, 11.0, unit="mg/dL")],  # of another dimension
        [],
        [lab(7, 240, 3.0)],
    ]
    found = cohort(subject(n, visit(n, 0), *events, visit(n, 400)) for n, events in enumerate(people, 1))
    values = read_values(found, entry(found), Reading([HBA1C], "%", 60), 6.0)
    np.testing.assert_array_equal(values, [7.0, 6.0, np.nan, np.nan, np.nan, np.nan, 3.0])


def test_whether_the_endpoint_came_in_time() -> None:
    people = [
        [has(1, 100, FAILURE), visit(1, 500)],
        [has(2, 400, FAILURE), visit(2, 500)],  # later than a year
        [visit(3, 300)],  # not seen for a year
        [death(4, 200)],
        [visit(5, 400)],
    ]
    found = cohort(subject(n, visit(n, 0), *events) for n, events in enumerate(people, 1))
    endpoint = Endpoint("heart failure", [FAILURE], death=False)
    np.testing.assert_array_equal(read_events(found, entry(found), endpoint, 12.0), [1, 0, np.nan, np.nan, 0])
    with_death = Endpoint("heart failure or death", [FAILURE], death=True)
    np.testing.assert_array_equal(read_events(found, entry(found), with_death, 12.0), [1, 0, np.nan, 1, 0])


def test_a_number_is_fitted_and_the_score_saves_patients() -> None:
    trial = ResponseTrial("x", PLAN, READ, labs=[HBA1C_AT_ENTRY], analysis=CovarianceAnalysis())
    study = prepare_responses(trial, drawn())
    assert study.fitted is not None
    response = study.fitted.response
    assert isinstance(response, ContinuousResponse)
    assert response.sd == pytest.approx(1.0, abs=0.08)  # of the cohort; what was stated, 9, is not used
    assert response.mean == pytest.approx(7.5, abs=0.15)
    assert response.correlation == pytest.approx(0.8, abs=0.05)
    assert study.fitted.coefficients["hba1c"] == pytest.approx(0.8, abs=0.12)
    assert study.fitted.num_readings == 300
    plain = prepare_responses(ResponseTrial("x", PLAN, READ, labs=[HBA1C_AT_ENTRY]), drawn())
    assert study.plan.design.max_outcomes / plain.plan.design.max_outcomes == pytest.approx(1 - 0.64, abs=0.08)
    named = prepare_responses(
        ResponseTrial("x", PLAN, READ, labs=[HBA1C_AT_ENTRY], analysis=CovarianceAnalysis(["hba1c"])), drawn()
    )
    assert named.plan.design.explained == pytest.approx(study.plan.design.explained, abs=0.02)


def test_a_rate_is_fitted_with_the_spread_of_risks() -> None:
    trial = ResponseTrial("x", PLAN, FAILS, labs=[HBA1C_AT_ENTRY], analysis=StandardisedRates(["hba1c"]))
    study = prepare_responses(trial, drawn())
    assert study.fitted is not None
    response = study.fitted.response
    assert isinstance(response, BinaryResponse)
    assert 0.2 < response.control < 0.3
    assert response.prognostic_sd == pytest.approx(1.2, abs=0.35)
    control, experimental = response.expected(study.plan.pool.score, -0.15)
    assert control.mean() == pytest.approx(response.control)
    assert experimental.mean() == pytest.approx(response.control - 0.15)
    assert control.std() > 0.1


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (ContinuousResponse("x", 6.0, 1.0, 1.0, record=Reading(["LOINC//0"])), "LOINC//0"),
        (ContinuousResponse("x", 30.0, 1.0, 1.0, record=Reading([HBA1C])), "at least 20 needed.*record=null"),
        (BinaryResponse("x", 3.0, 0.5, 0.1, record=Endpoint("x", [FAILURE], death=False)), "at least 5 each needed"),
        (
            BinaryResponse("x", 12.0, 0.5, -0.3, record=Endpoint("x", [FAILURE], death=False), higher_is_better=False),
            "the cohort's control rate is 0.2",
        ),
    ],
)
def test_a_record_that_does_not_carry_the_endpoint_is_refused(
    endpoint: ContinuousResponse | BinaryResponse, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_responses(ResponseTrial("x", PLAN, endpoint), drawn())


def test_without_a_record_the_cohort_gives_the_covariates_alone() -> None:
    stated = ContinuousResponse("HbA1c", 6.0, -0.5, 1.0, higher_is_better=False)
    study = prepare_responses(ResponseTrial("x", PLAN, stated, labs=[HBA1C_AT_ENTRY]), drawn())
    assert study.fitted is None
    assert study.plan.design.response is stated
    assert study.num_eligible == 300
    assert set(study.plan.pool.numbers) == {"score", "stratum", "age_years", "is_female", "hba1c"}
