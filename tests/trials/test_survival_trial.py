from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.config import build, compose
from medtwin.core.errors import ConfigError
from medtwin.core.paths import config_dir
from medtwin.trials import (
    Age,
    AssumedOutcome,
    Endpoint,
    GroupSequential,
    Has,
    IndexDay,
    Measure,
    Minimisation,
    PermutedBlocks,
    ResponseTrial,
    SurvivalTrial,
    SwitchAtMonth,
    prepare,
)
from medtwin.trials.design.timing import expected_events
from medtwin.trials.engine.survival_trial import example_patients
from medtwin.trials.population.cohort import Cohort
from tests.trials.samples import DIABETES, FAILURE, cohort, death, has, subject, visit

TRIAL = SurvivalTrial(
    "t",
    GroupSequential(looks=(0.5, 1.0)),
    0.6,
    eligibility=[Age(18), Has([DIABETES], name="diabetes")],
    endpoint=Endpoint("death or heart failure", [FAILURE]),
)


def people(count: int = 60, event_every: int = 2) -> Cohort:
    subjects = []
    for n in range(1, count + 1):
        rows = [visit(n, 0), has(n, 0), visit(n, 900 + n)]
        if n % event_every == 0:
            rows.append(has(n, 100 + 10 * n, FAILURE) if n % 4 else death(n, 901 + n))
        subjects.append(subject(n, *rows, born_years_ago=30.0 + n / 2, sex="FM"[n % 2]))
    return cohort(subjects)


def test_patients_are_as_many_as_make_the_events() -> None:
    study = prepare(TRIAL, people(), 0)
    assert (study.cohort_size, study.num_eligible, study.num_events) == (60, 60, 30)
    assert study.fitted is not None
    planned = TRIAL.planned_months(study.plan.num_subjects)
    events = expected_events([planned], study.arms(0.6), study.plan.enroll_rate, study.plan.num_subjects)[0]
    assert events == pytest.approx(study.plan.design.events[-1], rel=0.03)
    assert study.plan.num_subjects % 4 == 0
    assert study.months_of_looks(0.6)[-1] == pytest.approx(planned, abs=3)
    assert study.months_of_looks(0.6, 2.0)[-1] < study.months_of_looks(0.6)[-1]


def test_the_example_is_a_trial_of_the_run() -> None:
    from medtwin.trials.engine.batch import run_block

    study = prepare(TRIAL, people(), 5)
    stops = run_block(study.plan, 5, 1, 0.6)
    columns = example_patients(study, 5, float(stops.months[17]), trial_index=117)
    assert sum(columns["event"]) == stops.events[17]  # type: ignore[arg-type]
    assert len(columns["patient"]) == stops.subjects[17]
    assert set(columns["source_subject_id"]) <= set(range(1, 61))
    assert {len(values) for values in columns.values()} == {len(columns["patient"])}
    control = np.array(columns["months_to_event_control"], dtype=np.float64)
    assert (np.array(columns["months_to_event_experimental"], dtype=np.float64) >= control).all()
    for arm, event, risk, own in zip(
        columns["arm"],
        columns["event"],
        columns["months_at_risk"],
        zip(columns["months_to_event_control"], columns["months_to_event_experimental"], strict=True),
        strict=True,
    ):
        if event:
            assert risk == own[arm == "experimental"]


def test_without_a_cohort_the_outcome_is_assumed() -> None:
    study = prepare(replace(TRIAL, assumed=AssumedOutcome(24.0, 0.5)), None, 0)
    assert study.attrition == ()
    assert "source_subject_id" not in example_patients(study, 0, 30.0)
    with pytest.raises(ConfigError, match=r"trial\.assumed\.control_median_months"):
        prepare(TRIAL, None, 0)


def test_too_few_events_are_an_error_or_an_assumption_by_choice() -> None:
    who = people(event_every=1000)
    with pytest.raises(ConfigError, match="never occurs among the 60 eligible subjects"):
        prepare(TRIAL, who, 0)
    with pytest.raises(ConfigError, match="never occurs"):
        prepare(replace(TRIAL, assumed=AssumedOutcome(24.0)), who, 0)
    study = prepare(replace(TRIAL, assumed=AssumedOutcome(24.0), assume_if_too_few=True), who, 0)
    assert study.fitted is None
    assert study.num_eligible == 60
    assert prepare(replace(TRIAL, assumed=AssumedOutcome(24.0), assume_if_too_few=True), people(), 0).fitted


def test_a_trial_that_nobody_could_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"too few events: \d+ are needed, for which .* patients"):
        prepare(replace(TRIAL, hazard_ratio=0.97), people(), 0)
    with pytest.raises(ConfigError, match="num_subjects must be at least"):
        prepare(replace(TRIAL, num_subjects=50), people(), 0)
    with pytest.raises(ConfigError, match="max_months must be at least the 24 months of enrolment"):
        prepare(replace(TRIAL, max_months=3.0), people(), 0)
    with pytest.raises(ConfigError, match="nobody is eligible: 'has a day with an encounter after birth' left 0 of 60"):
        prepare(TRIAL, cohort([subject(n, has(n, 0)) for n in range(60)]), 0)
    for changes, message in (
        ({"follow_up_months": 0.0}, "above 0"),
        ({"num_subjects": 0}, "1 or more"),
        ({"assume_if_too_few": True}, "needs an assumed outcome"),
        ({"randomisation": PermutedBlocks(3)}, "multiple of 2"),
        ({"randomisation": Minimisation(["sex"])}, "analysis_strata must be given with minimisation"),
        ({"analysis_strata": ["sex", "sex"]}, "factors must differ"),
        ({"treatment_changes": [SwitchAtMonth(12.0)]}, "num_subjects must be given"),
        ({"annual_dropout": 1.0}, "share"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TRIAL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", sorted(path.stem for path in (config_dir() / "trial").glob("*.yaml")))
def test_every_trial_config_builds_and_is_designed(option: str) -> None:
    trial = build(compose("simulate", [f"trial={option}", "cohort=null"])["trial"], "trial")
    if isinstance(trial, SurvivalTrial):
        assert trial.design.events[-1] > 100
        assert trial.design.bounds.efficacy[-1] > 1.9
    else:
        assert isinstance(trial, ResponseTrial)
        assert trial.plan.bounds_at(trial.plan.looks).efficacy[-1] > 1.9


def test_a_wrong_trial_config_names_the_place() -> None:
    config = compose("simulate", ["cohort=null", "trial.eligibility.0.minimum=200"])
    with pytest.raises(ConfigError, match=r"trial\.eligibility\[0\]: Age: age: minimum must be"):
        build(config["trial"], "trial")


def test_eligibility_takes_expressions_among_criteria() -> None:
    criteria = ["age >= 18 & observed >= 0d", Has([DIABETES], name="diabetes"), "kg > 1 | age > 1"]
    mixed = replace(TRIAL, eligibility=criteria, measures={"kg": Measure(["LOINC//29463-7"], "kg")})
    labels = ["age >= 18", "observed >= 0d", "has diabetes", "kg > 1 kg | age > 1"]
    assert [criterion.label for criterion in mixed.criteria] == labels
    expressed = replace(TRIAL, eligibility=[f"age >= 18 & condition({DIABETES})"])
    study = prepare(expressed, people(), 0)
    assert study.num_eligible == prepare(TRIAL, people(), 0).num_eligible == 60
    assert [(row.criterion, row.assessed, row.fails) for row in study.attrition[2:]] == [
        ("age >= 18", 60, 0),
        (f"condition({DIABETES})", 60, 0),
    ]
    with pytest.raises(ConfigError, match=r"column 1: .* did you mean age\?"):
        replace(TRIAL, eligibility=["agge >= 18"])
    with pytest.raises(ValueError, match="eligibility must be a list"):
        replace(TRIAL, eligibility="age >= 18")


def test_codes_are_all_that_the_trial_asks_for() -> None:
    assert TRIAL.codes() == [DIABETES, FAILURE]
    assert replace(TRIAL, index=IndexDay(codes=["X//1"])).codes() == [DIABETES, "X//1", FAILURE]
