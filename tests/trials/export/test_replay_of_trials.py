from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache

import numpy as np
import pytest

from medtwin.core.events import Event, events_to_table
from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.batch import BLOCK, run_block
from medtwin.trials.engine.scenarios import Scenario, scenarios_of
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial, prepare
from medtwin.trials.enrolment.adherence import Discontinuation, SwitchAtMonth
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.enrolment.randomisation import PermutedBlocks
from medtwin.trials.export.adam import adlb, adsl, adtte
from medtwin.trials.export.patients import PATIENT_FIELDS, Replay, choose_scenario, level_text, replay_trial
from medtwin.trials.export.records import PoolRecord, pool_record
from medtwin.trials.outcome.prognosis import AssumedOutcome
from medtwin.trials.population.cohort import Cohort, read_cohort
from medtwin.trials.population.criteria import FollowUp, IndexDay, Lab
from tests.trials.samples import HBA1C, KNOWN, day, death, lab, subject, visit

START = date(2026, 1, 1)
PLAN = GroupSequential(looks=(0.5, 1.0), futility=Spending("hwang_shih_decani", -4.0))
TRIAL = SurvivalTrial("Toy", PLAN, 0.6, assumed=AssumedOutcome(12.0, 0.5))


@cache
def study() -> Study:
    return prepare(TRIAL, None, 3)


def z_of(*arguments: object, strata: object = None) -> float:
    """The log-rank statistic, positive where the experimental arm (1) has fewer events than expected."""
    test = logrank_test(*arguments, strata=strata)  # type: ignore[arg-type]
    return float((test.expected - test.observed)[1].sum() / np.sqrt(test.variance[1, 1]))


def replayed(made: Study, scenario: Scenario, trial: int, record: PoolRecord | None = None) -> Replay:
    return replay_trial(made, scenario, trial, seed=3, study_id="SIM1", study_start=START, record=record)


@pytest.mark.parametrize(("name", "trial"), [("alternative", 1), ("alternative", 137), ("null", 100), ("null", 101)])
def test_the_replayed_patients_give_the_statistic_of_the_engine(name: str, trial: int) -> None:
    scenario = choose_scenario(scenarios_of(study(), 200, 100), name)
    found = replayed(study(), scenario, trial)
    stops = run_block(study().plan, 3, (trial - 1) // BLOCK, scenario.hazard_ratio)
    row = (trial - 1) % BLOCK
    assert found.z == stops.z[row][: found.look].tolist()
    assert (found.look, found.month, found.events) == (stops.look[row] + 1, stops.months[row], stops.events[row])
    patients = found.data.patients.to_pydict()
    arm = (np.array(patients["arm"]) == "experimental").astype(int)
    exact = z_of(patients["months_at_risk"], patients["event"], arm)
    assert exact == pytest.approx(stops.z[row][stops.look[row]], abs=2e-6)  # the engine's is of single precision
    tte = adtte(found.data).table.to_pydict()
    event = 1 - np.array(tte["CNSR"])
    assert int(event.sum()) == found.events
    assert z_of(tte["AVALM"], event, tte["TRTPN"]) == pytest.approx(exact, abs=1e-12)
    in_days = z_of(tte["AVAL"], event, tte["TRTPN"])
    assert 0 < abs(in_days - exact) < 0.05  # days are ties and roundings
    fit = cox_model(tte["AVALM"], event, np.array(tte["TRTPN"], dtype=float)[:, None])
    assert float(fit.coefficients[0]) == pytest.approx(found.log_hazard_ratio, abs=1e-4)


def test_another_trial_is_not_taken_for_it() -> None:
    scenario = scenarios_of(study(), 200, 100)[0]
    one, other = replayed(study(), scenario, 1), replayed(study(), scenario, 2)
    assert one.z != other.z
    assert not one.data.patients.equals(other.data.patients)
    assert one.data.patients.equals(replayed(study(), scenario, 1).data.patients)


def test_dates_follow_the_months() -> None:
    found = replayed(study(), scenarios_of(study(), 100, 100)[0], 5)
    table = found.data.patients
    assert table.column_names == list(PATIENT_FIELDS)
    assert found.data.cutoff == date.fromordinal(START.toordinal() + int(found.month * 365.25 / 12))
    for row in table.to_pylist():
        enrolled = int(row["enrolment_month"] * 365.25 / 12)
        assert (row["enrolment_date"] - START).days == enrolled
        assert row["enrolment_date"] <= row["end_date"] <= found.data.cutoff
        assert row["event"] == (row["ended_by"] == "event")
        if row["ended_by"] == "analysis":
            assert row["end_date"] == found.data.cutoff
            assert row["enrolment_month"] + row["months_at_risk"] == pytest.approx(found.month)
        else:
            days = (row["end_date"] - START).days
            assert days == int((row["enrolment_month"] + row["months_at_risk"]) * 365.25 / 12)
        if row["event"]:
            assert row["months_at_risk"] == pytest.approx(row[f"months_to_event_{row['arm']}"], rel=1e-12)
    ratio = np.array(table["months_to_event_experimental"]) / np.array(table["months_to_event_control"])
    assert ratio == pytest.approx(1 / 0.6)  # a constant hazard, and one draw for both arms
    assert table["source_subject_id"].null_count == table.num_rows


def test_scenarios_and_trials_that_were_not_simulated_are_refused() -> None:
    scenarios = scenarios_of(study(), 100, 100)
    with pytest.raises(ValueError, match="scenario must be one of 'alternative', 'null', 'null, futility disregarded'"):
        choose_scenario(scenarios, "nil")
    with pytest.raises(ValueError, match=r"hazard_ratio of 'power curve' must be one of 0\.465, .*, got None"):
        choose_scenario(scenarios, "power curve")
    with pytest.raises(ValueError, match=r"hazard_ratio of 'alternative' must be one of 0\.6, got 0\.9"):
        choose_scenario(scenarios, "alternative", 0.9)
    assert choose_scenario(scenarios, "power curve", 0.465).hazard_ratio == 0.6**1.5
    for number in (0, 101):
        with pytest.raises(ValueError, match=r"trial must be from 1 to 100 \(those simulated of 'alternative'\)"):
            replayed(study(), scenarios[0], number)


def test_strata_and_changes_of_treatment_are_told() -> None:
    trial = replace(
        TRIAL,
        num_subjects=240,
        randomisation=PermutedBlocks(4, ("sex", Factor("log_risk", (0.0,)))),
        analysis_strata=[Factor("log_risk", (0.0,))],
        treatment_changes=[Discontinuation(PiecewiseRate((0.0,), (0.02,))), SwitchAtMonth(20.0, 0.5)],
    )
    made = prepare(trial, None, 3)
    found = replayed(made, scenarios_of(made, 100, 100)[0], 7)
    data = found.data.patients.to_pydict()
    assert {text.split("; ")[1] for text in data["randomisation_stratum"]} == {"log_risk <0", "log_risk >=0"}
    assert all(
        (text == "log_risk <0") == (risk < 0)
        for text, risk in zip(data["analysis_stratum"], data["log_risk"], strict=True)
    )
    arm = (np.array(data["arm"]) == "experimental").astype(int)
    stratified = z_of(data["months_at_risk"], data["event"], arm, strata=np.array(data["analysis_stratum"]))
    assert stratified == pytest.approx(found.z[-1], abs=2e-6)
    crude = z_of(data["months_at_risk"], data["event"], arm)
    assert abs(crude - found.z[-1]) > 1e-3  # without strata it is another test
    changed = [month for month in data["treatment_changed_month"] if month is not None]
    assert 0 < len(changed) < len(arm)
    subjects = adsl(found.data).table.to_pylist()
    for row, month in zip(subjects, data["treatment_changed_month"], strict=True):
        assert (row["TRTCHGDT"] is None) == (month is None)
        assert row["TRTEDT"] == (row["TRTCHGDT"] or row["EOSDT"] or row["DCUTDT"])
        assert row["STRATAR"]
        assert row["STRATAA"] in ("log_risk <0", "log_risk >=0")
    assert level_text(Factor("sex"), 0, has_sex=False) == "1"


def a_cohort() -> Cohort:
    """Forty subjects with a visit on day 0 or 3, HbA1c before, on and after it; every second one dies."""
    events = []
    for number in range(1, 41):
        on = 3.0 * (number % 2)
        rows = [
            visit(number, on),
            lab(number, on - 5, 6.0),
            lab(number, on + 30, 7.0),
            lab(number, on + 400, 0.08, "1"),
        ]
        if number % 4:
            rows.append(lab(number, on, 6.5))
        if number % 2:
            rows.append(death(number, on + 500 + number))
        rows.append(visit(number, on + 700))
        events += subject(number, *rows, sex="F" if number % 3 else "M")
        events.append(Event(number, None, "RACE//2106-3" if number % 5 else "RACE//2028-9", resource="Patient"))
    table = events_to_table(sorted(events, key=lambda event: (event.subject_id, event.time is not None)))
    return read_cohort([table], KNOWN, [HBA1C])


LABS = [Lab("hba1c_percent", [HBA1C], "%")]
COHORT_TRIAL = replace(
    TRIAL, index=IndexDay(), eligibility=[FollowUp(1)], labs=LABS, num_subjects=200, follow_up_months=12.0
)


def test_the_record_of_the_pool_is_that_of_its_subjects() -> None:
    cohort = a_cohort()
    made, record = prepare(COHORT_TRIAL, cohort, 3), pool_record(cohort, COHORT_TRIAL)
    baseline = made.plan.pool.baseline
    assert baseline is not None
    assert record.subject_id.tolist() == baseline.subject_id.tolist()
    (labs,) = record.labs
    first = labs.subject == 0  # subject 1: entry on day 3; values on days -2, 3, 33 and 403
    assert labs.day[first].tolist() == [0, 30, 400]
    assert labs.value[first].tolist() == [6.5, 7.0, 8.0]
    fourth = labs.subject == 3  # nothing on the day itself: the value of five days before
    assert labs.day[fourth].tolist() == [-5, 30, 400]
    at_baseline = labs.value[labs.day <= 0]
    assert at_baseline.tolist() == baseline.values[:, baseline.names.index("hba1c_percent")].tolist()
    assert record.race[[0, 4]].tolist() == ["WHITE", "ASIAN"]
    assert record.entry_day[0] == (day(3).date() - date(1970, 1, 1)).days


def test_laboratory_values_are_moved_to_the_trial() -> None:
    cohort = a_cohort()
    made, record = prepare(COHORT_TRIAL, cohort, 3), pool_record(cohort, COHORT_TRIAL)
    found = replayed(made, scenarios_of(made, 100, 100)[0], 1, record)
    patients = {row["subject"]: row for row in found.data.patients.to_pylist()}
    labs = adlb(found.data)
    assert labs is not None
    rows = labs.table.to_pylist()
    assert {row["PARAMCD"] for row in rows} == {"HBA1C"}
    assert {row["PARAM"] for row in rows} == {"hba1c_percent (%)"}
    by_subject: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        by_subject.setdefault(int(row["SUBJID"]), []).append(row)
    assert by_subject.keys() == patients.keys()
    for number, mine in by_subject.items():
        patient = patients[number]
        days = [0 if patient["source_subject_id"] % 4 else -5, 30, 400]
        followed = (patient["end_date"] - patient["enrolment_date"]).days
        days = [each for each in days if each <= followed]
        assert [(row["ADT"] - patient["enrolment_date"]).days for row in mine] == days
        assert [row["ADY"] for row in mine] == [each + (each >= 0) for each in days]
        assert [row["ABLFL"] for row in mine] == ["Y", None, None][: len(days)]
        base = 6.5 if patient["source_subject_id"] % 4 else 6.0
        assert [row["AVAL"] for row in mine] == [base, 7.0, 8.0][: len(days)]
        assert {row["BASE"] for row in mine} == {base}
        assert [row["CHG"] for row in mine] == [None, 7.0 - base, 8.0 - base][: len(days)]
        assert [row["ASEQ"] for row in mine] == [1, 2, 3][: len(days)]
        assert all(row["ONTRTFL"] == ("Y" if each >= 0 else None) for row, each in zip(mine, days, strict=True))
    subjects = adsl(found.data).table.to_pylist()
    for row in subjects:
        patient = patients[int(row["SUBJID"])]
        assert row["HBA1CBL"] == (6.5 if patient["source_subject_id"] % 4 else 6.0)
        assert row["SEX"] == ("F" if patient["source_subject_id"] % 3 else "M")
        assert row["RACE"] == ("WHITE" if patient["source_subject_id"] % 5 else "ASIAN")
        assert (row["AGE"], row["AGEU"]) == (50, "YEARS")


def test_the_record_of_another_pool_is_refused() -> None:
    cohort = a_cohort()
    made, record = prepare(COHORT_TRIAL, cohort, 3), pool_record(cohort, COHORT_TRIAL)
    scenario = scenarios_of(made, 100, 100)[0]
    with pytest.raises(ValueError, match="record must be that of the study's pool"):
        replayed(made, scenario, 1, replace(record, subject_id=record.subject_id + 1))
    twice = replace(made, trial=replace(made.trial, labs=[Lab("site", [HBA1C])]))
    with pytest.raises(ValueError, match="labs must not have the names of other columns, got site"):
        replayed(twice, scenario, 1)
