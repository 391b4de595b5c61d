"""Agreement with CDISC's pilot study: our ADTTE of its SDTM is the one that CDISC published; days as SDTM counts them.

Published values: cdisc-org/DataExchange-DatasetJson, examples/adam/adtte.json (time to the first dermatologic event of
254 subjects, of whom the first 57 stand here: site and subject, AVAL, CNSR).
"""

from __future__ import annotations

import csv
import os
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medtwin.trials.export.adam import adtte, relative_day
from medtwin.trials.export.patients import LAB_SCHEMA, PATIENT_FIELDS, TrialData

PUBLISHED = """
701-1015 2 0|701-1023 3 0|701-1028 3 0|701-1033 28 1|701-1034 58 0|701-1047 46 1|701-1097 3 0|701-1111 11 1
701-1115 3 0|701-1118 182 1|701-1130 97 0|701-1133 61 0|701-1146 13 0|701-1148 3 0|701-1153 191 1|701-1180 36 0
701-1181 8 1|701-1188 2 0|701-1192 17 0|701-1203 183 1|701-1211 2 0|701-1234 177 1|701-1239 2 0|701-1275 18 0
701-1287 29 0|701-1294 57 0|701-1302 2 0|701-1317 33 0|701-1324 21 0|701-1341 15 0|701-1345 162 1|701-1360 3 0
701-1363 48 0|701-1383 4 0|701-1387 14 1|701-1392 183 1|701-1415 183 1|701-1429 43 1|701-1440 182 1|701-1442 77 0
701-1444 15 0|702-1082 46 0|703-1042 183 1|703-1076 30 0|703-1086 12 0|703-1096 64 1|703-1100 24 0|703-1119 25 0
703-1175 12 1|703-1182 15 0|703-1197 37 1|703-1210 175 1|703-1258 47 0|703-1279 41 1|703-1295 180 1|703-1299 183 1
703-1335 69 1
"""


def domain(name: str) -> list[dict[str, str]]:
    root = os.environ.get("MEDTWIN_DATA")
    path = Path(root or "/nowhere") / "trials" / "cdisc_pilot01_sdtm" / f"{name}.csv"
    if not path.is_file():
        pytest.skip("needs the CDISC pilot below MEDTWIN_DATA")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_dermatologic(row: dict[str, str]) -> bool:
    """The pilot's query CQ01NAM."""
    term = row["AEDECOD"]
    named = any(word in term for word in ("APPLICATION", "DERMATITIS", "ERYTHEMA", "BLISTER"))
    is_skin = row["AEBODSYS"] == "SKIN AND SUBCUTANEOUS TISSUE DISORDERS"
    return named or (is_skin and term not in ("COLD SWEAT", "HYPERHIDROSIS", "ALOPECIA"))


def test_the_pilot_s_time_to_event() -> None:
    subjects = {row["USUBJID"]: row for row in domain("dm")}
    events: dict[str, list[date]] = {}
    for row in domain("ae"):
        if is_dermatologic(row) and len(row["AESTDTC"]) == 10:
            events.setdefault(row["USUBJID"], []).append(date.fromisoformat(row["AESTDTC"]))
    published = [text.split() for text in PUBLISHED.replace("\n", "|").split("|") if text]
    names = [f"01-{name}" for name, _, _ in published]
    starts = [date.fromisoformat(subjects[name]["RFXSTDTC"]) for name in names]
    after = [[day for day in events.get(name, []) if day >= start] for name, start in zip(names, starts, strict=True)]
    ends = [
        min(days, default=date.fromisoformat(subjects[name]["RFENDTC"]))
        for name, days in zip(names, after, strict=True)
    ]
    columns: dict[str, list[object]] = {name: [None] * len(names) for name in PATIENT_FIELDS}
    columns |= {
        "subject": list(range(1, len(names) + 1)),
        "site": [int(name[3:6]) for name in names],
        "arm": ["experimental"] * len(names),
        "enrolment_date": list(starts),
        "months_at_risk": [1.0] * len(names),
        "event": [bool(days) for days in after],
        "ended_by": ["event" if days else "analysis" for days in after],
        "end_date": list(ends),
    }
    table = pa.table({name: pa.array(values, PATIENT_FIELDS[name]) for name, values in columns.items()})
    data = TrialData("CDISCPILOT01", "Pilot", "first dermatologic event", False, min(starts), max(ends), table)
    assert data.lab_values.schema == LAB_SCHEMA
    made = adtte(data).table
    assert made["AVAL"].to_pylist() == [int(days) for _, days, _ in published]
    assert made["CNSR"].to_pylist() == [int(censored) for _, _, censored in published]
    wrong = (np.array(ends, dtype="datetime64[D]") - np.array(starts, dtype="datetime64[D]")).astype(int)
    assert wrong.tolist() != made["AVAL"].to_pylist()  # without the + 1 it is not CDISC's


@pytest.mark.parametrize(
    ("name", "dated", "counted", "num_wrong"),
    [
        ("ae", "AESTDTC", "AESTDY", 1),  # 01-716-1063: day 366 stands beside the day of the first exposure itself
        ("ex", "EXSTDTC", "EXSTDY", 0),
        ("ds", "DSSTDTC", "DSSTDY", 0),
    ],
)
def test_relative_days_are_those_of_sdtm(name: str, dated: str, counted: str, num_wrong: int) -> None:
    start = {row["USUBJID"]: row["RFSTDTC"] for row in domain("dm")}
    rows = [row for row in domain(name) if len(row[dated]) >= 10 and row[counted] and start[row["USUBJID"]]]
    assert len(rows) > 500
    reference = np.array([start[row["USUBJID"]] for row in rows], dtype="datetime64[D]")
    found = relative_day(reference, np.array([row[dated][:10] for row in rows], dtype="datetime64[D]"))
    told = np.array([float(row[counted]) for row in rows])
    assert (found != told).sum() == num_wrong
    assert name != "ds" or (found < 0).any()
