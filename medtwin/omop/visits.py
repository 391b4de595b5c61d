"""Encounters as visit_occurrence, and those that are part of another as visit_detail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.omop import concepts
from medtwin.omop.actors import Actors
from medtwin.omop.routes import Case, resource_of
from medtwin.omop.shard import COLUMN, NO_ROW, WRITTEN, Rows, Shard
from medtwin.omop.tables import TABLES
from medtwin.omop.vocabulary import Vocabulary


@dataclass(frozen=True)
class Visits:
    """The visits of a shard, and which of them each row belongs to.

    Attributes:
        occurrence, detail: Rows of visit_occurrence and visit_detail.
        occurrence_id, detail_id: Of every row of the shard, NO_ROW for none, (rows,).
        num_unknown: Rows whose encounter_id names no visit.
        num_merged: Encounters whose class has no visit concept of its own.
    """

    occurrence: pa.Table
    detail: pa.Table
    occurrence_id: Rows
    detail_id: Rows
    num_unknown: int
    num_merged: int


@dataclass
class _Stay:
    """An encounter on its way into a row."""

    row: int
    source_value: str
    start: Any
    end: Any
    kind: str | None
    is_end_instant: bool = True
    admitted_from: str | None = None
    discharged_to: str | None = None
    parent: _Stay | None = None
    care_site: int | None = None
    provider: int | None = None
    occurrence_id: int = NO_ROW
    detail_id: int = NO_ROW
    preceding: int | None = None
    is_open: bool = False

    @property
    def top(self) -> _Stay:
        """The encounter that it is part of in the end."""
        stay, seen = self, {self.row}
        while stay.parent is not None and stay.parent.row not in seen:
            stay = stay.parent
            seen.add(stay.row)
        return stay


def read_visits(
    shard: Shard, person_of_row: Rows, vocabulary: Vocabulary, actors: Actors, first: Mapping[str, int]
) -> Visits:
    """The visits of a shard; their rows, and the child rows that become columns, get their fate here.

    An encounter that is still open ends, as NOT NULL demands, on the day of the last event that belongs to it, and
    has no visit_end_datetime.

    Args:
        shard: The shard.
        person_of_row: person_id of every row.
        vocabulary: For admission sources, discharge dispositions and types.
        actors: For care sites and providers.
        first: The first id of each table.
    """
    rows = _encounter_rows(shard)
    stays = _read_stays(shard, rows, actors)
    stays += _bare_stays(shard)
    stays.sort(key=lambda stay: stay.row)
    by_event: dict[str, _Stay] = {}
    for stay, event_id in zip(stays, shard.text("event_id", _rows_of(stays)), strict=True):
        if event_id is not None:
            by_event[event_id] = stay
    _join_parents(shard, rows, by_event)
    _number(shard, stays, first)
    occurrence_id, detail_id, num_unknown = _visit_of_rows(shard, by_event)
    _close(shard, stays, occurrence_id, detail_id)
    tables = {
        name: pa.Table.from_pylist(
            [
                _row(shard, stay, name, int(person_of_row[stay.row]), vocabulary)
                for stay in stays
                if _table(stay) == name
            ],
            TABLES[name].schema,
        )
        for name in ("visit_occurrence", "visit_detail")
    }
    for name in tables:
        shard.fates.assign(_rows_of([stay for stay in stays if _table(stay) == name]), WRITTEN, name)
    merged = [stay for stay in stays if stay.kind and _class_read_back(stay.kind) != stay.kind]
    return Visits(
        tables["visit_occurrence"], tables["visit_detail"], occurrence_id, detail_id, num_unknown, len(merged)
    )


def _class_read_back(kind: str) -> str | None:
    return "ICU" if kind == "ICU" else concepts.CLASS_OF_VISIT.get(concepts.VISITS.get(kind, 0))


def _rows_of(stays: list[_Stay]) -> Rows:
    return np.array([stay.row for stay in stays], np.int64)


def _table(stay: _Stay) -> str:
    return "visit_occurrence" if stay.top is stay else "visit_detail"


def _encounter_rows(shard: Shard) -> Rows:
    is_encounter = pc.equal(shard.column("resource"), "Encounter").fill_null(False).to_numpy(zero_copy_only=False)
    is_event = ~shard.is_child & ~shard.is_detail & ~shard.is_negated
    return np.flatnonzero(is_encounter & is_event & ~np.isnat(shard.time) & shard.fates.open)


def _read_stays(shard: Shard, rows: Rows, actors: Actors) -> list[_Stay]:
    claim = shard.details.claim
    classes = shard.details.coded(claim(["Encounter.class"], rows, "visit_occurrence.visit_concept_id"))
    admitted = shard.details.coded(
        claim(["Encounter.hospitalization.admitSource"], rows, "visit_occurrence.admitted_from_source_value")
    )
    discharged = shard.details.coded(
        claim(["Encounter.hospitalization.dischargeDisposition"], rows, "visit_occurrence.discharged_to_source_value")
    )
    end_precision = shard.text(
        "text_value", claim(["Encounter.endPrecision"], rows, "visit_occurrence.visit_end_datetime")
    )
    care_sites = actors.claim(shard, "care_site", rows, "visit_occurrence")
    providers = actors.claim(shard, "provider", rows, "visit_occurrence")
    stays = []
    for at, (row, code) in enumerate(zip(rows.tolist(), shard.code_text(rows), strict=True)):
        kind = (classes[at] or "").removeprefix("ACTCODE//") or _class_of_code(code)
        precision = end_precision[at]
        stays.append(
            _Stay(
                row,
                code,
                shard.time[row].item(),
                shard.end_time[row].item(),
                kind,
                precision.startswith("second") if precision else bool(shard.is_instant[row]),
                admitted[at],
                discharged[at],
                care_site=care_sites[at],
                provider=providers[at],
            )
        )
    return stays


def _class_of_code(code: str) -> str | None:
    """The class that a code of ours or of a foreign MEDS dataset says.

    >>> _class_of_code("ENCOUNTER//IMP//ADMISSION//MEDICAL_ICU"), _class_of_code("ICU_ADMISSION//MICU")
    ('IMP', 'ICU')
    """
    word, _, rest = code.partition("//")
    if word == "ENCOUNTER":
        return rest.partition("//")[0] or None
    return {"HOSPITAL": "IMP", "ICU": "ICU"}.get(word.partition("_")[0])


def _bare_stays(shard: Shard) -> list[_Stay]:
    """Admissions and discharges of a foreign MEDS dataset: a discharge ends the stay that is open at its place."""
    no_resource = pc.is_null(shard.column("resource")).to_numpy(zero_copy_only=False)
    no_value = pc.and_(pc.is_null(shard.column("numeric_value")), pc.is_null(shard.column("text_value")))
    bare = no_resource & no_value.to_numpy(zero_copy_only=False) & ~shard.is_negated & ~shard.is_child
    of_code = np.array(
        [resource_of(Case(code, None, False, True, False)) == "Encounter" for code in shard.codes] or [False]
    )
    rows = np.flatnonzero(bare & of_code[shard.code] & ~np.isnat(shard.time) & shard.fates.open)
    stays: list[_Stay] = []
    open_at: dict[tuple[int, str], _Stay] = {}
    ends = []
    for row, code in zip(rows.tolist(), shard.code_text(rows), strict=True):
        kind = _class_of_code(code)
        place = (int(shard.subject[row]), kind or code.partition("_")[0])
        if "DISCHARGE" in code and (stay := open_at.pop(place, None)) is not None:
            stay.end, stay.discharged_to, stay.is_end_instant = (
                shard.time[row].item(),
                code,
                bool(shard.is_instant[row]),
            )
            ends.append(row)
            continue
        stay = _Stay(row, code, shard.time[row].item(), shard.end_time[row].item(), kind, bool(shard.is_instant[row]))
        stays.append(stay)
        if "DISCHARGE" not in code and stay.end is None:
            open_at[place] = stay
    shard.fates.assign(np.array(ends, np.int64), COLUMN, "visit_occurrence.discharged_to_source_value")
    return stays


def _join_parents(shard: Shard, rows: Rows, by_event: Mapping[str, _Stay]) -> None:
    """Joins each encounter to the one that it is part of, where that is one of the same person."""
    is_known = pc.is_in(shard.column("text_value"), value_set=pa.array(list(by_event), pa.large_string()))
    known = np.flatnonzero(is_known.to_numpy(zero_copy_only=False))
    claimed = shard.details.claim(["Encounter.partOf"], rows, "visit_detail.visit_occurrence_id", among=known)
    stays = {stay.row: stay for stay in by_event.values()}
    for row, parent in zip(rows.tolist(), shard.text("text_value", claimed), strict=True):
        whole = by_event.get(parent or "")
        if whole is not None and row in stays and shard.subject[whole.row] == shard.subject[row]:
            stays[row].parent = whole
    for stay in stays.values():
        if stay.top.parent is not None:
            stay.parent = None  # encounters that are part of one another, round in a circle


def _number(shard: Shard, stays: list[_Stay], first: Mapping[str, int]) -> None:
    next_id = dict(first)
    for stay in stays:
        if stay.top is stay:
            stay.occurrence_id = next_id["visit_occurrence"]
            next_id["visit_occurrence"] += 1
        else:
            stay.detail_id = next_id["visit_detail"]
            next_id["visit_detail"] += 1
    before: dict[tuple[int, bool], int] = {}
    for stay in sorted(stays, key=lambda each: (each.start, each.row)):
        place = (int(shard.subject[stay.row]), stay.top is stay)
        stay.preceding = before.get(place)
        before[place] = stay.occurrence_id if stay.top is stay else stay.detail_id


def _visit_of_rows(shard: Shard, by_event: Mapping[str, _Stay]) -> tuple[Rows, Rows, int]:
    encoded = shard.column("encounter_id").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    indices = encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    found = [by_event.get(name) for name in names]
    occurrence = np.array([each.top.occurrence_id if each else NO_ROW for each in found] + [NO_ROW], np.int64)
    detail = np.array([each.detail_id if each else NO_ROW for each in found] + [NO_ROW], np.int64)
    unknown = (indices < len(names)) & (occurrence[indices] == NO_ROW) & ~shard.is_child
    return occurrence[indices], detail[indices], int(unknown.sum())


def _close(shard: Shard, stays: list[_Stay], occurrence_id: Rows, detail_id: Rows) -> None:
    """Gives open encounters the day of their last event as their end."""
    still_open = [stay for stay in stays if stay.end is None]
    if not still_open:
        return
    for stay in still_open:
        mine = detail_id == stay.detail_id if stay.detail_id != NO_ROW else occurrence_id == stay.occurrence_id
        mine &= shard.subject == shard.subject[stay.row]
        times = shard.time[mine]
        last = times[~np.isnat(times)].max(initial=np.datetime64(stay.start, "us"))
        stay.end, stay.is_end_instant, stay.is_open = last.item(), False, True


def _end_datetime(stay: _Stay, *, is_instant: bool) -> Any:
    """The end; a day that ends an encounter with a known start is its last microsecond. None while it is open."""
    if stay.is_open or (not stay.is_end_instant and not is_instant):
        return None
    return stay.end if stay.is_end_instant else datetime.combine(stay.end.date(), time.max)


def _row(shard: Shard, stay: _Stay, table: str, person_id: int, vocabulary: Vocabulary) -> dict[str, Any]:
    is_detail = table == "visit_detail"
    stem = "visit_detail" if is_detail else "visit"
    codes = vocabulary.find(stay.source_value)
    kind = stay.kind or ""
    row = {
        f"{table}_id": stay.detail_id if is_detail else stay.occurrence_id,
        "person_id": person_id,
        f"{stem}_concept_id": concepts.INTENSIVE_CARE if kind == "ICU" else concepts.VISITS.get(kind, 0),
        f"{stem}_start_date": stay.start.date(),
        f"{stem}_start_datetime": stay.start if shard.is_instant[stay.row] else None,
        f"{stem}_end_date": max(stay.start, stay.end).date(),
        f"{stem}_end_datetime": _end_datetime(stay, is_instant=bool(shard.is_instant[stay.row])),
        f"{stem}_type_concept_id": concepts.EHR_ENCOUNTER,
        "provider_id": stay.provider,
        "care_site_id": stay.care_site,
        f"{stem}_source_value": stay.source_value,
        f"{stem}_source_concept_id": codes.source_concept_id,
        "admitted_from_concept_id": vocabulary.concept(stay.admitted_from),
        "admitted_from_source_value": stay.admitted_from,
        "discharged_to_concept_id": vocabulary.concept(stay.discharged_to),
        "discharged_to_source_value": stay.discharged_to,
        f"preceding_{table}_id": stay.preceding,
    }
    if is_detail:
        parent = stay.parent
        row["parent_visit_detail_id"] = parent.detail_id if parent and parent.detail_id != NO_ROW else None
        row["visit_occurrence_id"] = stay.top.occurrence_id
    return row
