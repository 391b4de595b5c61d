from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest

from medtwin.trials.export.adam import SIMULATED_NOTE, adlb, adsl, adtte, datasets_of, define_of, parameter_codes
from medtwin.trials.export.patients import LAB_SCHEMA, PATIENT_FIELDS, TrialData


def patients(**columns: list[object]) -> pa.Table:
    """Three patients: one with the event, one who left, one who is still in the trial at its cutoff."""
    values: dict[str, list[object]] = {
        "subject": [1, 2, 12],
        "source_subject_id": [7, 7, None],
        "index_day": [date(2020, 3, 1)] * 3,
        "site": [1, 1, 3],
        "arm": ["control", "experimental", "experimental"],
        "randomisation_stratum": ["sex F", "sex not F", "sex F"],
        "analysis_stratum": [None] * 3,
        "enrolment_month": [0.0, 1.0, 2.0],
        "enrolment_date": [date(2026, 1, 1), date(2026, 1, 31), date(2026, 3, 2)],
        "months_at_risk": [0.01, 2.0, 4.5],
        "event": [True, False, False],
        "ended_by": ["event", "dropout", "analysis"],
        "end_date": [date(2026, 1, 1), date(2026, 4, 2), date(2026, 7, 17)],
        "treatment_changed_month": [None, 1.0, None],
        "treatment_changed_date": [None, date(2026, 3, 2), None],
        "age_years": [63.9, None, 40.0],
        "sex": ["F", None, "M"],
        "race": ["WHITE", None, "ASIAN"],
        "hba1c_percent": [6.5, None, 7.1],
        "log_risk": [0.0] * 3,
        "months_to_event_control": [0.01, 9.0, None],
        "months_to_event_experimental": [0.02, 18.0, None],
    }
    given = values | columns
    return pa.table({name: pa.array(given[name], PATIENT_FIELDS.get(name, pa.float64())) for name in given})


def lab_values(*rows: tuple[int, int, date, float]) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    values: dict[str, Sequence[object]] = {
        "subject": columns[0],
        "day": columns[1],
        "date": columns[2],
        "value": columns[3],
    }
    values |= {"name": ["hba1c_percent"] * len(rows), "unit": ["%"] * len(rows)}
    return pa.table({name: values[name] for name in LAB_SCHEMA.names}, schema=LAB_SCHEMA)


def toy(**changes: object) -> TrialData:
    values = lab_values(
        (12, 20, date(2026, 3, 22), 7.4),
        (1, -3, date(2025, 12, 29), 6.5),
        (1, 0, date(2026, 1, 1), 6.6),
        (2, 40, date(2026, 3, 12), 8.0),
        (12, 0, date(2026, 3, 2), 7.1),
    )
    made = TrialData(
        "SIM1", "A toy", "death", True, date(2026, 1, 1), date(2026, 7, 17), patients(), {"hba1c_percent": "%"}, values
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def column(table: pa.Table, name: str) -> list[object]:
    return list(table[name].to_pylist())


def test_time_to_event_by_hand() -> None:
    made = adtte(toy()).table
    assert column(made, "STUDYID") == ["SIM1"] * 3
    assert column(made, "USUBJID") == ["SIM1-001-00001", "SIM1-001-00002", "SIM1-003-00012"]
    # an event on the day of randomisation is on day 1; January 31 to April 2 is 61 days, so day 62; March 2 to July 17
    assert column(made, "AVAL") == [1, 62, 138]
    assert column(made, "CNSR") == [0, 1, 1]
    assert column(made, "AVALM") == [0.01, 2.0, 4.5]
    assert column(made, "STARTDT") == [date(2026, 1, 1), date(2026, 1, 31), date(2026, 3, 2)]
    assert column(made, "ADT") == [date(2026, 1, 1), date(2026, 4, 2), date(2026, 7, 17)]
    assert column(made, "EVNTDESC") == ["DEATH", "LOST TO FOLLOW-UP", "EVENT-FREE AT DATA CUTOFF"]
    assert column(made, "CNSDTDSC") == [None, "DATE OF LEAVING THE STUDY", "DATE OF DATA CUTOFF"]
    assert column(made, "PARAM") == ["Time to death (Days)"] * 3
    assert column(made, "PARAMCD") == ["TTE"] * 3
    assert column(made, "TRTP") == ["Control", "Experimental", "Experimental"]
    assert column(made, "TRTPN") == [0, 1, 1]


def test_subjects_by_hand() -> None:
    dataset = adsl(toy())
    made = dataset.table
    assert column(made, "AGE") == [63, None, 40]
    assert column(made, "AGEU") == ["YEARS", None, "YEARS"]
    assert column(made, "SEX") == ["F", "U", "M"]
    assert column(made, "RACE") == ["WHITE", "UNKNOWN", "ASIAN"]
    assert column(made, "ITTFL") == column(made, "SAFFL") == column(made, "SIMFL") == ["Y"] * 3
    assert column(made, "TRT01P") == column(made, "TRT01A") == ["Control", "Experimental", "Experimental"]
    assert column(made, "EOSSTT") == ["COMPLETED", "DISCONTINUED", "ONGOING"]
    assert column(made, "EOSDT") == [date(2026, 1, 1), date(2026, 4, 2), None]
    assert column(made, "DCSREAS") == [None, "LOST TO FOLLOW-UP", None]
    assert column(made, "DTHFL") == ["Y", None, None]
    assert column(made, "DTHDT") == [date(2026, 1, 1), None, None]
    assert column(made, "TRTEDT") == [date(2026, 1, 1), date(2026, 3, 2), date(2026, 7, 17)]
    assert column(made, "DCUTDT") == [date(2026, 7, 17)] * 3
    assert column(made, "HBA1CBL") == [6.5, None, 7.1]
    assert column(made, "STRATAR") == ["sex F", "sex not F", "sex F"]
    assert "STRATAA" not in made.column_names  # the trial has no strata of analysis
    labels = {each.name: each.label for each in dataset.columns}
    assert labels["HBA1CBL"] == "Baseline hba1c_percent (%)"
    assert {each.name: each.length for each in dataset.columns}["USUBJID"] == 14
    assert dataset.keys == ["STUDYID", "USUBJID"]


def test_an_endpoint_that_is_more_than_death_says_nothing_of_deaths() -> None:
    made = adsl(toy(is_death=False, endpoint="death or admission")).table
    assert column(made, "DTHFL") == column(made, "DTHDT") == [None] * 3


def test_laboratory_values_by_hand() -> None:
    dataset = adlb(toy())
    assert dataset is not None
    made = dataset.table
    assert column(made, "SUBJID") == ["00001", "00001", "00002", "00012", "00012"]
    assert column(made, "AVAL") == [6.5, 6.6, 8.0, 7.1, 7.4]
    assert column(made, "ABLFL") == [None, "Y", None, "Y", None]
    assert column(made, "BASE") == [6.6, 6.6, None, 7.1, 7.1]
    assert column(made, "CHG") == [None, None, None, None, 0.3]  # and not 0.30000000000000071
    assert column(made, "ADY") == [-3, 1, 41, 1, 21]
    assert column(made, "ASEQ") == [1, 2, 1, 1, 2]
    assert column(made, "ONTRTFL") == [None, "Y", None, "Y", "Y"]  # subject 2 had stopped the treatment
    assert column(made, "AVISIT") == ["Pre-Baseline", "Baseline", "Post-Baseline", "Baseline", "Post-Baseline"]
    assert column(made, "AVISITN") == [-1, 0, 1, 0, 1]
    assert dataset.keys == ["STUDYID", "USUBJID", "PARAMCD", "ADT", "ASEQ"]
    assert adlb(toy(lab_values=LAB_SCHEMA.empty_table())) is None


def test_several_arms_have_their_numbers() -> None:
    arms = ("control", "low dose", "high dose")
    made = adsl(toy(arms=arms, patients=patients(arm=["high dose", "control", "low dose"]))).table
    assert column(made, "TRT01P") == ["High dose", "Control", "Low dose"]
    assert column(made, "TRT01PN") == [2, 0, 1]


def test_codes_of_parameters_differ_and_fit() -> None:
    codes = parameter_codes(dict.fromkeys(["2nd value", "a", "A", "neutrophils", "neutrophils_band", "mg"], None))
    assert list(codes.values()) == ["L2NDVALU", "A", "A2", "NEUTROPH", "NEUTROP2", "MG"]
    made = toy(labs={"neutrophils": None, "neutrophils_band": None}, lab_values=LAB_SCHEMA.empty_table())
    made = replace(made, patients=patients(neutrophils=[1.0, 2.0, 3.0], neutrophils_band=[None, None, None]))
    names = adsl(made).table.column_names
    assert names[-2:] == ["NEUTROBL", "NEUTR2BL"]


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ADTTE\.PARAM must have at most 200 characters, got 265"):
        adtte(toy(endpoint="x" * 250))


def test_the_description_says_that_nobody_exists() -> None:
    data = toy()
    datasets = datasets_of(data)
    assert [each.name for each in datasets] == ["ADSL", "ADTTE", "ADLB"]
    told = define_of(data, datasets, {"seed": 3})
    assert told["is_simulated"] is True
    assert told["note"] == SIMULATED_NOTE
    assert (told["study_start"], told["data_cutoff"]) == ("2026-01-01", "2026-07-17")
    assert told["simulation"] == {"seed": 3}
    variables = {each["name"]: each for each in told["datasets"]["ADTTE"]["variables"]}
    assert variables["AVAL"] == {
        "name": "AVAL",
        "label": "Analysis Value",
        "type": "integer",
        "derivation": "ADT - STARTDT + 1",
    }
