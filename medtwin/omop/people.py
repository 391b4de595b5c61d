"""Who the persons are: the tables person, death and observation_period."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, DEATH
from medtwin.omop import concepts
from medtwin.omop.routes import PERSON_WORDS
from medtwin.omop.shard import COLUMN, NOT_CARRIED, WRITTEN, Mask, Rows, Shard, precision_word
from medtwin.omop.tables import TABLES

# The CDM's integer has 32 bits, and R holds integers up to 2^53 exactly.
MAX_KEPT_ID = 2**31 - 1
JOIN = " | "


@dataclass(frozen=True)
class PersonIds:
    """The person_id of every subject.

    Attributes:
        numbers: Subject to number; None where every subject_id serves as it is.
    """

    numbers: Mapping[int, int] | None = None

    def __call__(self, subject_id: int) -> int:
        """The person_id of a subject."""
        return subject_id if self.numbers is None else self.numbers[subject_id]

    def of(self, subjects: NDArray[np.int64]) -> NDArray[np.int64]:
        """The person_id of every row's subject, (rows,)."""
        if self.numbers is None:
            return subjects
        distinct, place = np.unique(subjects, return_inverse=True)
        return np.array([self.numbers[subject] for subject in distinct.tolist()], np.int64)[place]


def person_ids(subjects: Iterable[int]) -> PersonIds:
    """The subject ids themselves where all fit the CDM's integer, else 1, 2, ... in ascending order of the subjects.

    >>> person_ids([7, 3])(7), person_ids([2**40, 3])(2**40)
    (7, 2)
    """
    ordered = sorted(subjects)
    if not ordered or (ordered[0] > 0 and ordered[-1] <= MAX_KEPT_ID):
        return PersonIds()
    return PersonIds({subject: number for number, subject in enumerate(ordered, start=1)})


@dataclass(frozen=True)
class People:
    """The persons of a shard.

    Attributes:
        person, death, periods: Rows of the tables.
        first_date: Subject to the first date of its record: where its undated facts stand.
        num_without_period: Persons of whom nothing is dated but the birth.
    """

    person: pa.Table
    death: pa.Table
    periods: pa.Table
    first_date: Mapping[int, Any]
    num_without_period: int


@dataclass
class _Facts:
    """What the static rows of one subject say."""

    birth: int | None = None
    rows: dict[str, list[str]] = field(default_factory=dict)


def read_people(shard: Shard, ids: PersonIds, *, gap_days: int | None, first_period: int) -> People:
    """The persons of a shard. Rows of subjects without a year of birth get their fate here: no table can hold them.

    Args:
        shard: The shard.
        ids: The person_id of every subject.
        gap_days: A gap longer than this ends an observation period; None: one period per person.
        first_period: The first observation_period_id.

    Source: CDM 5.4: "If no year of birth is available all the person's data should be dropped"; observation periods
    from the first to the last event where the source knows none.
    """
    facts = _facts(shard)
    unborn = [subject for subject, fact in facts.items() if fact.birth is None]
    lost = np.flatnonzero(np.isin(shard.subject, np.array(unborn, np.int64)) & shard.fates.open)
    shard.fates.assign(lost, NOT_CARRIED, "person without a year of birth")
    born = {subject: fact for subject, fact in facts.items() if fact.birth is not None}
    person = [_person(shard, subject, fact, ids(subject)) for subject, fact in sorted(born.items())]
    periods, first_date = _periods(shard, set(born), gap_days)
    rows = [
        {
            "observation_period_id": number,
            "person_id": ids(subject),
            "observation_period_start_date": start,
            "observation_period_end_date": end,
            "period_type_concept_id": concepts.ALGORITHM_FROM_EHR,
        }
        for number, (subject, start, end) in enumerate(periods, start=first_period)
    ]
    for subject, fact in born.items():
        first_date.setdefault(subject, shard.time[fact.birth].astype("datetime64[D]").item())
    return People(
        pa.Table.from_pylist(person, TABLES["person"].schema),
        _deaths(shard, set(born), ids),
        pa.Table.from_pylist(rows, TABLES["observation_period"].schema),
        first_date,
        len(born) - len({subject for subject, _, _ in periods}),
    )


def _facts(shard: Shard) -> dict[int, _Facts]:
    """Birth and static facts of every subject of the shard; those that become columns of person get their fate."""
    facts = {int(subject): _Facts() for subject in np.unique(shard.subject)}
    births = np.flatnonzero(_has_code(shard, BIRTH) & ~np.isnat(shard.time))
    _, first = np.unique(shard.subject[births], return_index=True)
    for row in births[first].tolist():
        facts[int(shard.subject[row])].birth = row
    undated = np.flatnonzero(np.isnat(shard.time) & shard.fates.open)
    for row, code in zip(undated.tolist(), shard.code_text(undated), strict=True):
        word, _, value = code.partition("//")
        if word in PERSON_WORDS or word == "BIRTHSEX":
            facts[int(shard.subject[row])].rows.setdefault(word, []).append(value)
    is_born = np.isin(shard.subject, np.array([s for s, f in facts.items() if f.birth is not None], np.int64))
    shard.fates.assign(births[first], WRITTEN, "person")
    shard.fates.assign(np.delete(births, first), NOT_CARRIED, "further birth")
    for word, column in PERSON_WORDS.items():
        rows = undated[_starts(shard, f"{word}//")[undated] & is_born[undated]]
        shard.fates.assign(rows, COLUMN, f"person.{column}_source_value")
    return facts


def _person(shard: Shard, subject: int, fact: _Facts, person_id: int) -> dict[str, Any]:
    time: Any = shard.time[fact.birth].item()
    word = precision_word(shard.text("time_precision", np.array([fact.birth]))[0])
    gender, races = fact.rows.get("GENDER", []), fact.rows.get("RACE", [])
    ethnicities, sexes = fact.rows.get("ETHNICITY", []), fact.rows.get("BIRTHSEX", [])
    # The column is meant for the sex at birth; the administrative gender stands in where that is not known.
    sex = next((each for each in [*sexes, *gender] if each.upper() in concepts.GENDERS), "")
    return {
        "person_id": person_id,
        "gender_concept_id": concepts.GENDERS.get(sex.upper(), concepts.NO_CONCEPT),
        "year_of_birth": time.year,
        "month_of_birth": time.month if word != "year" else None,
        "day_of_birth": time.day if word not in ("year", "month") else None,
        "birth_datetime": time if word == "second" else None,
        "race_concept_id": _only(races, concepts.RACES),
        "ethnicity_concept_id": _only(ethnicities, concepts.ETHNICITIES),
        "person_source_value": str(subject),
        "gender_source_value": _joined("GENDER", gender),
        "gender_source_concept_id": concepts.NO_CONCEPT,
        "race_source_value": _joined("RACE", races),
        "race_source_concept_id": concepts.NO_CONCEPT,
        "ethnicity_source_value": _joined("ETHNICITY", ethnicities),
        "ethnicity_source_concept_id": concepts.NO_CONCEPT,
    }


def _only(values: list[str], known: Mapping[str, int]) -> int:
    """The concept of the one value; 0 for none or several: mixed races are not supported."""
    return known.get(values[0].upper(), concepts.NO_CONCEPT) if len(values) == 1 else concepts.NO_CONCEPT


def _joined(word: str, values: list[str]) -> str | None:
    return JOIN.join(f"{word}//{value}" for value in values) or None


def _deaths(shard: Shard, born: set[int], ids: PersonIds) -> pa.Table:
    """One death per person: the first dated one. One without a date stays an undated fact."""
    rows = np.flatnonzero(_has_code(shard, DEATH) & ~np.isnat(shard.time) & shard.fates.open)
    _, first = np.unique(shard.subject[rows], return_index=True)
    shard.fates.assign(np.delete(rows, first), NOT_CARRIED, "further death")
    rows = rows[first]
    shard.fates.assign(rows, WRITTEN, "death")
    table = [
        {
            "person_id": ids(int(shard.subject[row])),
            "death_date": shard.time[row].astype("datetime64[D]").item(),
            "death_datetime": shard.time[row].item() if shard.is_instant[row] else None,
            "death_type_concept_id": concepts.EHR,
            "cause_concept_id": concepts.NO_CONCEPT,
        }
        for row in rows.tolist()
        if int(shard.subject[row]) in born
    ]
    return pa.Table.from_pylist(table, TABLES["death"].schema)


def _periods(shard: Shard, born: set[int], gap_days: int | None) -> tuple[list[tuple[int, Any, Any]], dict[int, Any]]:
    """Subject, first and last day of every observation period; and the first day of every subject."""
    happened = ~np.isnat(shard.time) & ~shard.is_negated & ~shard.is_detail & ~_has_code(shard, BIRTH)
    rows = np.flatnonzero(happened & np.isin(shard.subject, np.array(sorted(born), np.int64)))
    start = shard.time[rows].astype("datetime64[D]").astype(np.int64)
    end_time = np.where(np.isnat(shard.end_time[rows]), shard.time[rows], shard.end_time[rows])
    end = np.maximum(end_time.astype("datetime64[D]").astype(np.int64), start)
    order = np.lexsort((start, shard.subject[rows]))
    subject, start, end = shard.subject[rows][order], start[order], end[order]
    bounds = [0, *(np.flatnonzero(np.diff(subject)) + 1).tolist(), len(subject)] if len(subject) else []
    periods, first_date = [], {}
    for low, high in pairwise(bounds):
        person = int(subject[low])
        for first, last in _segments(start[low:high], end[low:high], gap_days):
            periods.append((person, _day(first), _day(last)))
        first_date[person] = _day(int(start[low]))
    return periods, first_date


def _segments(start: Rows, end: Rows, gap_days: int | None) -> Iterator[tuple[int, int]]:
    """First and last day of the stretches without a gap; `start` is ascending."""
    reach = np.maximum.accumulate(end)
    breaks = np.flatnonzero(start[1:] - reach[:-1] > gap_days) + 1 if gap_days is not None else np.zeros(0, np.int64)
    edges = [0, *breaks.tolist(), len(start)]
    for low, high in pairwise(edges):
        yield int(start[low]), int(reach[high - 1])


def _day(number: int) -> Any:
    return np.datetime64(number, "D").item()


def _has_code(shard: Shard, code: str) -> Mask:
    return np.asarray(shard.code == (shard.codes.index(code) if code in shard.codes else -1))


def _starts(shard: Shard, prefix: str) -> Mask:
    flags = np.array([code.startswith(prefix) for code in shard.codes] or [False])
    return np.asarray(flags[shard.code])
