"""ADaM datasets of one trial: ADSL (a row for each subject), ADTTE (its time to event), ADLB (its laboratory values).

AVAL of ADTTE is in days, ADT - STARTDT + 1: an event on the day of randomisation comes on day 1. CNSR is 0 for an event
and 1 for censoring. AVALM keeps the months that the simulation knows, without rounding to days: analyses of it are
those of the simulation itself.

Source: CDISC ADaM Implementation Guide 1.3, ADSL (3.2) and BDS (3.3); ADaM BDS for Time-to-Event Analyses 1.0, 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.trials.export.patients import TrialData
from medtwin.trials.export.variables import MAX_LABEL, MAX_TEXT, Column, Dataset, variable
from medtwin.trials.population.cohort import significant

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]
PARAMCD = "TTE"
SIMULATED_NOTE = (
    "These subjects do not exist: a computer drew them, their arms, and what became of them. The effect of the "
    "treatment was put in. Nothing here is evidence for or against any treatment."
)
_CHANGE_DIGITS = 9
_VISITS = ("Pre-Baseline", "Baseline", "Post-Baseline")


def adsl(data: TrialData) -> Dataset:
    """ADSL: a row for each subject who was randomised by the analysis."""
    patients = data.patients
    rows = patients.num_rows
    is_left = pc.equal(patients["ended_by"], "dropout")
    is_event = patients["event"]
    death = pc.if_else(is_event, patients["end_date"], None) if data.is_death else pa.nulls(rows, pa.date32())
    status = pc.if_else(is_event, "COMPLETED", pc.if_else(is_left, "DISCONTINUED", "ONGOING"))
    columns = [
        *_identity(data, patients),
        (variable("AGE", "Age", "integer", "completed years on the day of entry"), _age(patients)),
        (variable("AGEU", "Age Units", "string"), pc.if_else(pc.is_valid(patients["age_years"]), "YEARS", None)),
        (
            variable("SEX", "Sex", "string", "F, M; U where it is not known"),
            pc.fill_null(patients["sex"], "U"),
        ),
        (
            variable("RACE", "Race", "string", "MULTIPLE for several, UNKNOWN where there is none"),
            pc.fill_null(patients["race"], "UNKNOWN"),
        ),
        *_population(rows),
        (variable("ARM", "Description of Planned Arm", "string"), _arm(patients)),
        (variable("TRT01P", "Planned Treatment for Period 01", "string", "the arm randomised to"), _arm(patients)),
        (
            variable("TRT01PN", "Planned Treatment for Period 01 (N)", "integer", _arm_numbers(data)),
            _arm_number(data, patients),
        ),
        (
            variable("TRT01A", "Actual Treatment for Period 01", "string", "that of TRT01P, from randomisation on"),
            _arm(patients),
        ),
        (
            variable("TRT01AN", "Actual Treatment for Period 01 (N)", "integer", "that of TRT01A"),
            _arm_number(data, patients),
        ),
        (
            variable("RANDDT", "Date of Randomization", "date", "study start + floor(month x 365.25 / 12)"),
            patients["enrolment_date"],
        ),
        (
            variable("TRTSDT", "Date of First Exposure to Treatment", "date", "RANDDT"),
            patients["enrolment_date"],
        ),
        (
            variable("TRTEDT", "Date of Last Exposure to Treatment", "date", "TRTCHGDT, or else EOSDT or DCUTDT"),
            pc.coalesce(patients["treatment_changed_date"], patients["end_date"]),
        ),
        (
            variable("TRTCHGDT", "Date of First Change of Treatment", "date", "it was stopped or switched"),
            patients["treatment_changed_date"],
        ),
        (
            variable("EOSSTT", "End of Study Status", "string", "COMPLETED with the event"),
            status,
        ),
        (
            variable("EOSDT", "End of Study Date", "date", "day of the event or of leaving; null if ongoing"),
            pc.if_else(pc.equal(patients["ended_by"], "analysis"), None, patients["end_date"]),
        ),
        (
            variable("DCSREAS", "Reason for Discontinuation from Study", "string"),
            pc.if_else(is_left, "LOST TO FOLLOW-UP", None),
        ),
        (
            variable("DTHFL", "Subject Death Flag", "string", "Y for a death; only where death is the endpoint"),
            pc.if_else(is_event, "Y", None) if data.is_death else pa.nulls(rows, pa.string()),
        ),
        (variable("DTHDT", "Date of Death", "date"), death),
        (
            variable("DCUTDT", "Date of Data Cutoff", "date", "day of the analysis at which the trial stopped"),
            _constant(data.cutoff, rows),
        ),
        *_strata(patients),
        *_baseline_columns(data),
    ]
    return _dataset("ADSL", "Subject-Level Analysis Dataset", columns, "one record per subject")


def adtte(data: TrialData) -> Dataset:
    """ADTTE: the time to the trial's endpoint, a row for each subject."""
    patients = data.patients
    rows = patients.num_rows
    is_event, is_left = patients["event"], pc.equal(patients["ended_by"], "dropout")
    start, end = (_days(patients[name]) for name in ("enrolment_date", "end_date"))
    censored = pc.if_else(is_left, "LOST TO FOLLOW-UP", "EVENT-FREE AT DATA CUTOFF")
    columns = [
        *_identity(data, patients),
        *_population(rows),
        *_planned(data, patients),
        (variable("PARAMCD", "Parameter Code", "string", key=3), _constant(PARAMCD, rows)),
        (
            variable("PARAM", "Parameter", "string", "the trial's endpoint"),
            _constant(f"Time to {data.endpoint} (Days)", rows),
        ),
        (variable("AVAL", "Analysis Value", "integer", "ADT - STARTDT + 1"), pa.array(analysis_day(start, end))),
        (
            variable("AVALM", "Analysis Value in Months, Unrounded", "double", "as simulated, 365.25 / 12 days each"),
            patients["months_at_risk"],
        ),
        (
            variable("STARTDT", "Time-to-Event Origin Date for Subject", "date", "ADSL.RANDDT"),
            patients["enrolment_date"],
        ),
        (
            variable("ADT", "Analysis Date", "date", "day of the event, of leaving, or of the data cutoff"),
            patients["end_date"],
        ),
        (variable("CNSR", "Censor", "integer", "0 event, 1 censored"), pc.if_else(is_event, 0, 1)),
        (
            variable("EVNTDESC", "Event or Censoring Description", "string"),
            pc.if_else(is_event, data.endpoint.upper(), censored),
        ),
        (
            variable("CNSDTDSC", "Censor Date Description", "string", "null for an event"),
            pc.if_else(is_event, None, pc.if_else(is_left, "DATE OF LEAVING THE STUDY", "DATE OF DATA CUTOFF")),
        ),
        *_strata(patients),
    ]
    return _dataset("ADTTE", "Time-to-Event Analysis Dataset", columns, "one record per subject per parameter")


def adlb(data: TrialData) -> Dataset | None:
    """ADLB: laboratory values at baseline and after it, a row for each; None where the trial has none.

    The values are those of the record that a patient was drawn from, moved to the dates of the trial: they know nothing
    of the simulated treatment.
    """
    if not data.lab_values.num_rows:
        return None
    codes, names = parameter_codes(data.labs), list(data.labs)
    values = data.lab_values
    number = pc.index_in(values["name"], pa.array(names)).to_numpy()
    subject, day = values["subject"].to_numpy(), values["day"].to_numpy()
    order = np.lexsort((day, number, subject))
    values, number, subject, day = values.take(pa.array(order)), number[order], subject[order], day[order]
    patients = data.patients.take(pc.index_in(values["subject"], data.patients["subject"].combine_chunks()))
    aval = values["value"].to_numpy()
    is_baseline, base = _baselines(subject, number, day, aval)
    visit = np.where(is_baseline, 0, np.sign(day - 0.5).astype(np.int64))
    dated, first = _days(values["date"]), _days(patients["enrolment_date"])
    last = _days(pc.coalesce(patients["treatment_changed_date"], patients["end_date"]))
    change = np.where(day <= 0, np.nan, significant(aval - base, _CHANGE_DIGITS))
    titles = [f"{name} ({unit})" if (unit := data.labs[name]) else name for name in names]
    columns = [
        *_identity(data, patients),
        *_population(len(day)),
        *_planned(data, patients),
        (
            variable("PARAMCD", "Parameter Code", "string", key=3),
            pa.array([codes[name] for name in names]).take(number),
        ),
        (variable("PARAM", "Parameter", "string", "covariate and unit"), pa.array(titles).take(number)),
        (variable("PARAMN", "Parameter (N)", "integer"), pa.array(number.astype(np.int64) + 1)),
        (
            variable("AVISIT", "Analysis Visit", "string", "baseline: the last value up to randomisation"),
            pa.array(_VISITS).take(visit + 1),
        ),
        (variable("AVISITN", "Analysis Visit (N)", "integer"), pa.array(visit)),
        (variable("ADT", "Analysis Date", "date", "day in the source record, moved", key=4), values["date"]),
        (
            variable("ADY", "Analysis Relative Day", "integer", "ADT - TRTSDT, + 1 from TRTSDT on"),
            pa.array(relative_day(first, dated)),
        ),
        (variable("ASEQ", "Analysis Sequence Number", "integer", key=5), pa.array(_count_within(subject))),
        (
            variable("ABLFL", "Baseline Record Flag", "string"),
            _flag(is_baseline),
        ),
        (
            variable("ONTRTFL", "On Treatment Record Flag", "string", "Y from TRTSDT to TRTEDT"),
            _flag((dated >= first) & (dated <= last)),
        ),
        (variable("AVAL", "Analysis Value", "double"), values["value"]),
        (variable("BASE", "Baseline Value", "double", "AVAL where ABLFL is Y"), pa.array(base, from_pandas=True)),
        (variable("CHG", "Change from Baseline", "double", "AVAL - BASE"), pa.array(change, from_pandas=True)),
    ]
    structure = "one record per subject per parameter per analysis date per sequence number"
    return _dataset("ADLB", "Laboratory Analysis Dataset", columns, structure)


def datasets_of(data: TrialData) -> list[Dataset]:
    """ADSL, ADTTE, and ADLB where there are laboratory values."""
    labs = adlb(data)
    return [adsl(data), adtte(data), *([labs] if labs is not None else [])]


def define_of(data: TrialData, datasets: Sequence[Dataset], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a define file tells of the datasets: that all is simulated, how, keys, variables and derivations.

    Args:
        data: Of the trial.
        datasets: Made of it.
        facts: About the simulation, such as scenario and seed.
    """
    described = {
        dataset.name: {
            "label": dataset.label,
            "structure": dataset.structure,
            "keys": dataset.keys,
            "records": dataset.table.num_rows,
            "variables": [_described(column) for column in dataset.columns],
        }
        for dataset in datasets
    }
    return {
        "study": data.study_id,
        "title": data.title,
        "is_simulated": True,
        "note": SIMULATED_NOTE,
        "study_start": data.study_start.isoformat(),
        "data_cutoff": data.cutoff.isoformat(),
        "standard": "ADaM Implementation Guide 1.3, ADaM BDS for Time-to-Event Analyses 1.0, Dataset-JSON 1.1",
        "simulation": dict(facts),
        "datasets": described,
    }


def _described(column: Column) -> dict[str, Any]:
    found = {"name": column.name, "label": column.label, "type": column.data_type}
    return found | ({"derivation": column.derivation} if column.derivation else {})


def analysis_day(start: Days, end: Days) -> Ints:
    """AVAL of a time to event in days: end - start + 1.

    >>> days = np.array(["2014-01-02", "2014-01-03"], dtype="datetime64[D]")
    >>> analysis_day(days[:1], days).tolist()
    [1, 2]
    """
    return np.asarray((end - start).astype(np.int64) + 1)


def relative_day(reference: Days, day: Days) -> Ints:
    """ADY: the reference day is 1 and the day before it -1; there is no day 0.

    >>> days = np.array(["2013-12-31", "2014-01-01", "2014-01-02"], dtype="datetime64[D]")
    >>> relative_day(days[1:2], days).tolist()
    [-1, 1, 2]
    """
    difference = (day - reference).astype(np.int64)
    return difference + (difference >= 0)


def parameter_codes(labs: Mapping[str, str | None]) -> dict[str, str]:
    """A PARAMCD for each covariate: its name without its unit, at most 8 capitals and digits, all different.

    >>> parameter_codes({"hba1c_percent": "%", "systolic_mm_hg": "mm[Hg]", "systolic_standing": "mm[Hg]"})
    {'hba1c_percent': 'HBA1C', 'systolic_mm_hg': 'SYSTOLIC', 'systolic_standing': 'SYSTOLI2'}
    """
    found: dict[str, str] = {}
    for name, unit in labs.items():
        words = re.findall(r"[A-Z0-9]+", name.upper())
        spelled = re.findall(r"[A-Z0-9]+", (unit or "").upper().replace("%", " PERCENT "))
        while len(words) > 1 and words[-1] in spelled:
            words.pop()
        stem = "".join(words)
        stem = (stem if stem[:1].isalpha() else f"L{stem}")[:8]
        code, number = stem, 1
        while code in found.values():
            number += 1
            code = stem[: 8 - len(str(number))] + str(number)
        found[name] = code
    return found


Columns = list[tuple[Column, Any]]


def _dataset(name: str, label: str, columns: Columns, structure: str) -> Dataset:
    """The dataset, text columns with the length of their longest value.

    Raises:
        ValueError: If a text has more than 200 characters.
    """
    described, arrays = [], []
    for column, values in columns:
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        array = array.cast(column.arrow_type)
        if column.data_type == "string":
            length = pc.max(pc.utf8_length(array)).as_py() or 1
            if length > MAX_TEXT:
                raise ValueError(f"{name}.{column.name} must have at most {MAX_TEXT} characters, got {length}")
            column = replace(column, length=length)
        described.append(column)
        arrays.append(array)
    table = pa.Table.from_arrays(arrays, names=[column.name for column in described])
    return Dataset(name, label, described, table, structure)


def _identity(data: TrialData, patients: pa.Table) -> Columns:
    sites = [f"{site:03d}" for site in patients["site"].to_pylist()]
    subjects = [f"{subject:05d}" for subject in patients["subject"].to_pylist()]
    unique = [f"{data.study_id}-{site}-{subject}" for site, subject in zip(sites, subjects, strict=True)]
    rows = len(unique)
    return [
        (variable("STUDYID", "Study Identifier", "string", key=1), _constant(data.study_id, rows)),
        (variable("USUBJID", "Unique Subject Identifier", "string", key=2), pa.array(unique, pa.string())),
        (variable("SUBJID", "Subject Identifier for the Study", "string"), pa.array(subjects, pa.string())),
        (variable("SITEID", "Study Site Identifier", "string"), pa.array(sites, pa.string())),
        (variable("SIMFL", "Simulated Subject Flag", "string", "Y: the subject does not exist"), _constant("Y", rows)),
    ]


def unique_subject_ids(dataset: Dataset) -> list[str]:
    """USUBJID of each row."""
    return [str(each) for each in dataset.table["USUBJID"].to_pylist()]


def _population(rows: int) -> Columns:
    return [
        (variable("ITTFL", "Intent-To-Treat Population Flag", "string", "Y: was randomised"), _constant("Y", rows)),
        (variable("SAFFL", "Safety Population Flag", "string", "Y: treated from RANDDT on"), _constant("Y", rows)),
    ]


def _planned(data: TrialData, patients: pa.Table) -> Columns:
    return [
        (variable("TRTP", "Planned Treatment", "string", "ADSL.TRT01P"), _arm(patients)),
        (variable("TRTPN", "Planned Treatment (N)", "integer", "ADSL.TRT01PN"), _arm_number(data, patients)),
    ]


def _strata(patients: pa.Table) -> Columns:
    """Strata of randomisation and analysis; those that the trial has."""
    found = [
        (variable("STRATAR", "Strata Used for Randomization", "string"), patients["randomisation_stratum"]),
        (variable("STRATAA", "Strata Used for Analysis", "string"), patients["analysis_stratum"]),
    ]
    return [(column, values) for column, values in found if values.null_count < len(values)]


def _baseline_columns(data: TrialData) -> Columns:
    found: Columns = []
    used: set[str] = set()
    for name, code in parameter_codes(data.labs).items():
        stem, number = f"{code[:6]}BL", 1
        while stem in used:
            number += 1
            stem = f"{code[: 6 - len(str(number))]}{number}BL"
        used.add(stem)
        unit = data.labs[name]
        label = f"Baseline {name} ({unit})" if unit else f"Baseline {name}"
        derivation = f"{label}, the last value of its window up to entry"
        found.append((variable(stem, label[:MAX_LABEL], "double", derivation), data.patients[name]))
    return found


def _constant(value: Any, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), rows)


def _arm(patients: pa.Table) -> pa.Array:
    return pc.utf8_capitalize(patients["arm"])


def _arm_number(data: TrialData, patients: pa.Table) -> pa.Array:
    return pc.index_in(patients["arm"], pa.array(list(data.arms)))


def _arm_numbers(data: TrialData) -> str:
    return ", ".join(f"{number} {arm.capitalize()}" for number, arm in enumerate(data.arms))


def _age(patients: pa.Table) -> pa.Array:
    return pc.cast(pc.floor(patients["age_years"]), pa.int64())


def _days(dates: pa.ChunkedArray) -> Days:
    return np.asarray(dates.to_numpy(), dtype="datetime64[D]")


def _flag(holds: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(holds), "Y", pa.scalar(None, pa.string()))


def _baselines(subject: Ints, number: Ints, day: Ints, value: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Which rows are baselines, and the baseline of each row's subject and parameter, nan without one.

    The baseline is the last row up to day 0; rows are sorted by subject, parameter and day.
    """
    is_first = np.concatenate([[True], (np.diff(subject) != 0) | (np.diff(number) != 0)])
    group = np.cumsum(is_first) - 1
    is_before = day <= 0
    is_baseline = is_before & np.concatenate([is_first[1:] | ~is_before[1:], [True]])
    found = np.full(int(group[-1]) + 1, np.nan)
    found[group[is_baseline]] = value[is_baseline]
    return is_baseline, np.asarray(found[group])


def _count_within(subject: Ints) -> Ints:
    """1, 2, ... within the rows of each subject, which stand together."""
    first = np.searchsorted(subject, subject, side="left")
    return np.arange(len(subject), dtype=np.int64) - first + 1
