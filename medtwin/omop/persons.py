"""The persons of a CDM as subjects: pseudonyms, date shifts, what is known of each, birth and death."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event, events_to_table
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger, Reject
from medtwin.omop import concepts
from medtwin.omop.people import JOIN
from medtwin.omop.source import OmopSource, Rows

FIRST_YEAR, LAST_YEAR = 1850, 2300
_FACT = re.compile(r"(GENDER|RACE|ETHNICITY)//[A-Za-z0-9][A-Za-z0-9 ,./()\-]{0,63}")
_GENDERS = {8507: "M", 8532: "F", 8521: "O", 8551: "U"}
_RACES = {concept: code for code, concept in concepts.RACES.items() if code[0].isdigit()}
_ETHNICITIES = {concept: code for code, concept in concepts.ETHNICITIES.items()}


@dataclass
class Persons:
    """The subjects of a CDM.

    Attributes:
        person_id: Ascending, (persons,).
        subject_id, shift_days: Of each, (persons,).
        identities: What each was in the source, for the private map.
    """

    person_id: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    subject_id: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    shift_days: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    identities: dict[str, int] = field(default_factory=dict)

    def find(self, person_ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Place of each person, -1 for nobody, (rows,)."""
        wanted = person_ids.fill_null(-1).to_numpy()
        if not len(self.person_id):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(self.person_id, wanted), len(self.person_id) - 1)
        return np.where(self.person_id[place] == wanted, place, -1)


def read_persons(
    source: OmopSource, pseudonyms: Pseudonyms, ledger: Ledger, *, is_ours: bool
) -> tuple[Persons, list[pa.Table]]:
    """The persons, and their events but for death.

    Rejected: rows without person_id, a second row of a person, a birth that is no date. A person without a year of
    birth is carried without a birth.
    """
    found: dict[int, int] = {}
    shifts: dict[int, int] = {}
    tables = []
    for rows in source.rows("person"):
        ledger.read["person"] += len(rows.table)
        events: list[Event] = []
        for index, row in enumerate(rows.table.to_pylist()):
            place = source.where("person", rows, index)
            fault = _fault(row, found, malformed=bool(rows.malformed[index]))
            if fault is not None:
                ledger.reject(Reject(*place, *fault))
                continue
            person = row["person_id"]
            subject = found[person] = pseudonyms.subject_id(f"omop:{person}")
            shift = pseudonyms.shift(subject)
            shifts[person] = shift.days
            facts = [Event(subject, None, code, resource="Patient") for code in _facts(row, is_ours=is_ours)]
            born = _birth(row, is_ours=is_ours)
            if born is None:
                ledger.flags["person-without-birth"] += 1
            else:
                time, precision = born
                events.append(_moved_birth(subject, time, precision, shift))
            events += facts
            ledger.carried["person"] += 1
        tables.append(events_to_table(events))
    ids = np.array(sorted(found), np.int64)
    subjects = np.array([found[person] for person in ids.tolist()], np.int64)
    days = np.array([shifts[person] for person in ids.tolist()], np.int64)
    identities = {f"omop:{person}": subject for person, subject in found.items()}
    return Persons(ids, subjects, days, identities), tables


def _fault(row: Mapping[str, Any], found: Mapping[int, int], *, malformed: bool) -> tuple[str, str] | None:
    if malformed:
        return "malformed-value", "a value is not of its column's type (CDM 5.4)"
    if row["person_id"] is None:
        return "no-person", "person_id must not be null"
    if row["person_id"] in found:
        return "duplicate-person", "person_id must be unique: the first row of the person was read"
    year = row["year_of_birth"]
    if year is not None:
        try:
            datetime(year, row["month_of_birth"] or 1, row["day_of_birth"] or 1)
        except ValueError:
            return "malformed-date", "year, month and day of birth must be a date"
        if not FIRST_YEAR <= year <= LAST_YEAR:
            return "malformed-date", f"year_of_birth must lie in {FIRST_YEAR} to {LAST_YEAR}"
    return None


def _facts(row: Mapping[str, Any], *, is_ours: bool) -> Iterator[str]:
    """Gender, race and ethnicity: what medtwin wrote as source values, else by the standard concept."""
    known = (("GENDER", "gender", _GENDERS), ("RACE", "race", _RACES), ("ETHNICITY", "ethnicity", _ETHNICITIES))
    for word, column, codes in known:
        stated = (row[f"{column}_source_value"] or "").split(JOIN) if is_ours else []
        told = [text for text in stated if _FACT.fullmatch(text) and text.startswith(f"{word}//")]
        if told:
            yield from told
        elif (code := codes.get(row[f"{column}_concept_id"] or 0)) is not None:
            yield f"{word}//{code}"


def _birth(row: Mapping[str, Any], *, is_ours: bool) -> tuple[datetime, str] | None:
    """The birth and its precision. A midnight of a foreign CDM is a date: its conventions fill unknown times so."""
    moment, year = row["birth_datetime"], row["year_of_birth"]
    if moment is not None and FIRST_YEAR <= moment.year <= LAST_YEAR:
        is_date = not is_ours and (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
        if not is_date:
            return moment, "second"
        if year is None:
            return moment, "day"
    if year is None:
        return None
    month, day = row["month_of_birth"], row["day_of_birth"]
    precision = "year" if month is None else "month" if day is None else "day"
    return datetime(year, month or 1, day if month and day else 1), precision


def _moved_birth(subject: int, time: datetime, precision: str, shift: Any) -> Event:
    moved = time + shift
    if precision == "year":
        moved = moved.replace(month=1, day=1)
    elif precision == "month":
        moved = moved.replace(day=1)
    return Event(subject, moved, BIRTH, time_precision=precision, resource="Patient")


def read_deaths(source: OmopSource, persons: Persons, ledger: Ledger, *, is_ours: bool) -> Iterator[pa.Table]:
    """The deaths; rows of nobody and without a date are rejected. Causes are counted as not carried."""
    for rows in source.rows("death"):
        ledger.read["death"] += len(rows.table)
        place = persons.find(rows.table["person_id"])
        events = []
        for index, row in enumerate(rows.table.to_pylist()):
            fault = _death_fault(row, rows, index, is_known=place[index] >= 0)
            if fault is not None:
                ledger.reject(Reject(*source.where("death", rows, index), *fault))
                continue
            time, precision = row_time(row["death_datetime"], row["death_date"], is_ours=is_ours)
            at = place[index]
            moved = time + np.timedelta64(int(persons.shift_days[at]), "D").item()
            events.append(
                Event(int(persons.subject_id[at]), moved, DEATH, time_precision=precision, resource="Patient")
            )
            ledger.carried["death"] += 1
            if row["cause_source_value"] or row["cause_concept_id"] or row["cause_source_concept_id"]:
                ledger.elements_not_carried["death.cause"] += 1
        yield events_to_table(events)


def _death_fault(row: Mapping[str, Any], rows: Rows, index: int, *, is_known: bool) -> tuple[str, str] | None:
    if rows.malformed[index]:
        return "malformed-value", "a value is not of its column's type (CDM 5.4)"
    if not is_known:
        return "unknown-person", "person_id must be that of a row of person"
    moment = row["death_datetime"] or row["death_date"]
    if moment is None:
        return "no-time", "death_date must be given"
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        return "malformed-date", f"the year must lie in {FIRST_YEAR} to {LAST_YEAR}"
    return None


def row_time(moment: datetime | None, day: Any, *, is_ours: bool) -> tuple[datetime, str]:
    """The time of a row and its precision: the datetime, else the date; a midnight of a foreign CDM is a date."""
    if moment is None:
        return datetime(day.year, day.month, day.day), "day"
    is_midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
    return moment, "day" if is_midnight and not is_ours else "second"
