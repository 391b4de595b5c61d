"""The columns of each clinical table: what of an event, and of the child rows that detail it, stands where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.units import to_ucum
from medtwin.omop import concepts
from medtwin.omop.shard import COLUMN, NO_ROW, Mask, Rows, Shard, by_distinct, row_indices
from medtwin.omop.sig import SigItem, write_sig
from medtwin.omop.tables import EventTable
from medtwin.omop.vocabulary import Vocabulary

Columns = dict[str, pa.Array]
# Who or what a date stands for when an undated fact needs one: qualifier_source_value says that it is none.
UNDATED = "undated"
_DRUGS = ("MedicationRequest", "MedicationDispense", "MedicationAdministration", "MedicationStatement", "Immunization")
_DOSES = ("dosageInstruction", "dosage")
_DAYS = {"d": 1, "wk": 7}


@dataclass(frozen=True)
class Batch:
    """The rows of one table that a shard gives.

    Attributes:
        events: Row of the shard that each comes from, (rows,).
        own: Rows of the shard whose own row this is, each once: their details become columns.
        ids: Primary keys, (rows,).
        concept, source_concept, value_concept: (rows,).
    """

    shard: Shard
    table: EventTable
    vocabulary: Vocabulary
    events: Rows
    own: Rows
    ids: Rows
    concept: Rows
    source_concept: Rows
    value_concept: Rows

    def claim(self, paths: Iterable[str], column: str, among: Rows | None = None, own: Rows | None = None) -> Rows:
        """The child row that states one of some paths, for each row; NO_ROW where none does, (rows,)."""
        events = self.own if own is None else own
        claimed = self.shard.details.claim(paths, events, f"{self.table.name}.{column}", among)
        place = np.full(self.shard.num_rows, NO_ROW)
        place[events] = np.arange(len(events))
        at = place[self.events]
        return np.where(at == NO_ROW, NO_ROW, np.append(claimed, NO_ROW)[at])

    def coded(self, rows: Rows) -> pa.Array:
        """The codes that child rows state, as strings."""
        return pa.array(self.shard.details.coded(rows), pa.string())


def int32(values: Rows | list[Any]) -> pa.Array:
    """Concept ids and other integers."""
    return pa.array(values, pa.int32())


def keys(values: Rows) -> pa.Array:
    """Foreign keys: null for NO_ROW."""
    return pa.array(values, pa.int64(), mask=values == NO_ROW)


def concept_of(codes: pa.Array, vocabulary: Vocabulary) -> pa.Array:
    """The standard concept of every code; 0 for one that has none, null for null."""
    return by_distinct(codes, lambda code: None if code is None else vocabulary.concept(code), pa.int32())


def common_columns(batch: Batch, first_date: Callable[[Rows], Rows]) -> Columns:
    """What every clinical table has: key, code, date and time.

    Args:
        batch: The rows.
        first_date: The day on which the record of each row's subject begins: where undated facts stand.
    """
    shard, table = batch.shard, batch.table
    time = shard.time[batch.events]
    undated = np.isnat(time)
    day = time.astype("datetime64[D]")
    if undated.any():
        day = day.copy()
        day[undated] = first_date(batch.events[undated])
    columns = {
        table.key: pa.array(batch.ids, pa.int64()),
        table.concept: int32(batch.concept),
        table.date: pa.array(day, pa.date32()),
        table.time: _instants(time, shard.is_instant[batch.events] & ~undated),
        table.source_value: pc.take(shard.column("code"), pa.array(batch.events)),
        table.kind: int32(_types(batch)),
    }
    if table.source_concept is not None:
        columns[table.source_concept] = int32(batch.source_concept)
    return columns


def _instants(time: Any, is_instant: Mask) -> pa.Array:
    return pa.array(time, pa.timestamp("us"), mask=~is_instant | np.isnat(time))


def _types(batch: Batch) -> Rows:
    """Where each record comes from: by its category, else by its resource type."""
    resource = pc.take(batch.shard.column("resource"), pa.array(batch.events))
    known = {**concepts.DRUG_TYPES, "ServiceRequest": concepts.EHR_ORDER, "CarePlan": concepts.EHR_ORDER}
    kinds = by_distinct(resource, lambda name: known.get(name, concepts.EHR), pa.int64()).fill_null(concepts.EHR)
    types: Rows = kinds.to_numpy(zero_copy_only=False).copy()
    details = batch.shard.details
    paths = ("Condition.category", "Observation.category")
    rows = np.concatenate([details.rows(path) for path in paths])
    codes = details.coded(rows)
    told = rows[np.array([code in concepts.CATEGORY_TYPES for code in codes], dtype=bool)] if len(rows) else rows
    claimed = batch.claim(paths, batch.table.kind, among=told)
    for at, code in zip(np.flatnonzero(claimed != NO_ROW), details.coded(claimed[claimed != NO_ROW]), strict=True):
        types[at] = concepts.CATEGORY_TYPES[code or ""]
    return types


def end_columns(batch: Batch) -> Columns:
    """The end, where a table has one; its precision may be another than that of the start."""
    table, shard = batch.table, batch.shard
    if table.end_date is None or table.end_time is None:
        return {}
    end = shard.end_time[batch.events]
    resources = ("Condition", "Procedure", *_DRUGS, "Observation", "Specimen")
    claimed = batch.claim([f"{name}.endPrecision" for name in resources], table.end_time)
    told = pc.starts_with(pc.take(shard.column("text_value"), row_indices(claimed)), "second")
    is_instant = np.where(
        claimed == NO_ROW,
        shard.is_instant[batch.events],
        told.fill_null(True).to_numpy(zero_copy_only=False),
    )
    return {
        table.end_date: pa.array(end.astype("datetime64[D]"), pa.date32()),
        table.end_time: _instants(end, is_instant),
    }


def unit_texts(shard: Shard, rows: Rows) -> pa.Array:
    """The unit of some rows as unit_source_value: as the source wrote it where that can be read back, else UCUM."""
    unit = pc.take(shard.column("unit"), row_indices(rows))
    source = pc.take(shard.column("source_unit"), row_indices(rows))
    pairs = pc.binary_join_element_wise(unit.fill_null(""), source.fill_null(""), "\t")
    return by_distinct(pairs, _unit_text, pa.string())


def _unit_text(pair: str | None) -> str | None:
    unit, _, source = (pair or "").partition("\t")
    return (source if source and (not unit or to_ucum(source) == unit) else unit) or None


def _value_columns(batch: Batch) -> Columns:
    """Number, text, unit and comparator of measurements and observations."""
    shard, table, vocabulary = batch.shard, batch.table, batch.vocabulary
    text = pc.take(shard.column("text_value"), pa.array(batch.events)).cast(pa.string())
    unit = pc.take(shard.column("unit"), pa.array(batch.events))
    coded = batch.claim(["DiagnosticReport.conclusionCode"], "value_source_value")
    text = pc.coalesce(text, batch.coded(coded))
    by_text = concept_of(text, vocabulary)
    by_code = pa.array(batch.value_concept, pa.int32(), mask=batch.value_concept == 0)
    columns = {
        "value_as_number": shard.numbers(batch.events),
        "value_as_concept_id": pc.coalesce(by_text, by_code),
        "unit_concept_id": by_distinct(unit, lambda name: None if name is None else vocabulary.unit(name), pa.int32()),
        "unit_source_value": unit_texts(shard, batch.events),
        "value_source_value": text,
    }
    if table.name == "observation":
        columns["value_as_string"] = pc.if_else(pc.match_substring(text, "//"), None, text)
        columns["qualifier_source_value"] = _qualifiers(batch)
        return columns
    columns["unit_source_concept_id"] = columns["unit_concept_id"]
    operator = batch.claim(["Observation.comparator"], "operator_concept_id")
    words = pc.take(shard.column("text_value"), row_indices(operator))
    columns["operator_concept_id"] = by_distinct(words, lambda word: concepts.OPERATORS.get(word), pa.int32())
    for bound in ("low", "high"):
        path = f"Observation.referenceRange.{bound}"
        rows = batch.claim([path], f"range_{bound}", among=_same_unit(shard, shard.details.rows(path)))
        columns[f"range_{bound}"] = shard.numbers(rows)
    return columns


def _same_unit(shard: Shard, rows: Rows) -> Rows:
    """The child rows whose unit is that of their event, or not stated: a range has no unit of its own in the CDM."""
    unit = pc.take(shard.column("unit"), row_indices(rows)).fill_null("")
    whole = pc.take(shard.column("unit"), row_indices(shard.parent[rows])).fill_null("")
    same = pc.or_(pc.equal(unit, whole), pc.equal(unit, ""))
    return np.asarray(rows[same.to_numpy(zero_copy_only=False)])


def _qualifiers(batch: Batch) -> pa.Array:
    """What an observation row was: its resource type where that is another, and whether it has no date."""
    shard = batch.shard
    resource = pc.take(shard.column("resource"), pa.array(batch.events))
    is_plain = pc.or_(pc.is_in(resource, value_set=_PLAIN), pa.array(shard.is_detail[batch.events]))
    named = pc.if_else(is_plain, None, resource)
    undated = pa.array(np.isnat(shard.time[batch.events]))
    both = pc.binary_join_element_wise(named, UNDATED, " ")
    return pc.if_else(undated, pc.coalesce(both, UNDATED), named)


_PLAIN = pa.array(["Observation", "Patient"])


def _condition_columns(batch: Batch) -> Columns:
    status = pc.take(batch.shard.column("status"), pa.array(batch.events))
    known = concepts.CONDITION_STATUSES
    return {
        "condition_status_source_value": status,
        "condition_status_concept_id": by_distinct(
            status, lambda word: None if word is None else known.get(word, 0), pa.int32()
        ),
    }


def _procedure_columns(batch: Batch) -> Columns:
    site = batch.coded(batch.claim(["Procedure.bodySite"], "modifier_source_value"))
    return {"modifier_source_value": site, "modifier_concept_id": concept_of(site, batch.vocabulary)}


def _specimen_columns(batch: Batch) -> Columns:
    site = batch.coded(batch.claim(["Specimen.collection.bodySite"], "anatomic_site_source_value"))
    return {"anatomic_site_source_value": site, "anatomic_site_concept_id": concept_of(site, batch.vocabulary)}


def _drug_columns(batch: Batch) -> Columns:
    """Dose, supply and route. What of a dose has no column of its own stands in sig."""
    shard = batch.shard
    days = np.concatenate([shard.details.rows(path) for path in (_SUPPLY_REQUEST, _SUPPLY_DISPENSE)])
    whole = _whole_days(shard, days)
    supply = batch.claim([_SUPPLY_REQUEST, _SUPPLY_DISPENSE], "days_supply", among=days[whole > 0])
    days_supply = np.where(supply == NO_ROW, 0, _whole_days(shard, supply))
    quantity = batch.claim(
        [
            "MedicationAdministration.dosage.dose",
            "MedicationDispense.quantity",
            "MedicationRequest.dispenseRequest.quantity",
            "Immunization.doseQuantity",
        ],
        "quantity",
    )
    refills = batch.claim(["MedicationRequest.dispenseRequest.numberOfRepeatsAllowed"], "refills")
    stopped = batch.claim([f"{name}.statusReason" for name in _DRUGS], "stop_reason")
    route = batch.coded(
        batch.claim([*(f"{n}.{d}.route" for n in _DRUGS for d in _DOSES), "Immunization.route"], _ROUTE)
    )
    start = shard.time[batch.events].astype("datetime64[D]")
    stated = shard.end_time[batch.events].astype("datetime64[D]")
    # CDM 5.4, drug_exposure_end_date: the stated end, else the days of supply, else the day of the start.
    end = np.where(np.isnat(stated), start + np.maximum(days_supply - 1, 0), stated)
    return {
        "drug_exposure_end_date": pa.array(end, pa.date32()),
        "verbatim_end_date": pa.array(stated, pa.date32()),
        "stop_reason": batch.coded(stopped),
        "refills": shard.numbers(refills).cast(pa.int32(), safe=False),
        "quantity": shard.numbers(quantity),
        "days_supply": pa.array(days_supply, pa.int32(), mask=days_supply == 0),
        "sig": _sig_column(batch),
        "route_concept_id": concept_of(route, batch.vocabulary),
        "route_source_value": route,
        "dose_unit_source_value": unit_texts(shard, quantity),
    }


_ROUTE = "route_source_value"
_SUPPLY_REQUEST = "MedicationRequest.dispenseRequest.expectedSupplyDuration"
_SUPPLY_DISPENSE = "MedicationDispense.daysSupply"


def _whole_days(shard: Shard, rows: Rows) -> Rows:
    """The days that a duration is, 0 where it is no whole number of them."""
    numbers = shard.numbers(rows).to_pylist()
    factors = [_DAYS.get(unit or "", 0) for unit in shard.text("unit", rows)]
    days = [(number or 0) * factor for number, factor in zip(numbers, factors, strict=True)]
    return np.array([int(day) if day == int(day) and 0 < day < 2**31 else 0 for day in days], np.int64)


def _sig_column(batch: Batch) -> pa.Array:
    shard, details = batch.shard, batch.shard.details
    is_own = np.zeros(shard.num_rows + 1, dtype=bool)
    is_own[batch.own] = True
    items: dict[int, list[tuple[int, SigItem]]] = {}
    for name in details.names():
        resource, _, path = name.partition(".")
        if resource not in _DRUGS or path.split(".")[0].partition("[")[0] not in (*_DOSES, "dispenseRequest"):
            continue
        rows = details.rows(name)
        rows = rows[is_own[shard.parent[rows]]]
        shard.fates.assign(rows, COLUMN, "drug_exposure.sig")
        for row, parent, item in zip(
            rows.tolist(), shard.parent[rows].tolist(), _items(shard, path, rows), strict=True
        ):
            items.setdefault(parent, []).append((row, item))
    texts = {event: write_sig([item for _, item in sorted(each, key=lambda p: p[0])]) for event, each in items.items()}
    return pa.array([texts.get(event) for event in batch.events.tolist()], pa.string())


def _items(shard: Shard, path: str, rows: Rows) -> list[SigItem]:
    columns = (
        shard.details.coded(rows),
        shard.numbers(rows).to_pylist(),
        shard.text("unit", rows),
        shard.text("source_unit", rows),
        shard.text("text_value", rows),
    )
    return [
        SigItem(path, code=code)
        if code is not None
        else SigItem(path, number=number, unit=unit, source_unit=source, word=word if number is None else None)
        for code, number, unit, source, word in zip(*columns, strict=True)
    ]


OWN_COLUMNS: dict[str, Callable[[Batch], Columns]] = {
    "condition_occurrence": _condition_columns,
    "drug_exposure": _drug_columns,
    "procedure_occurrence": _procedure_columns,
    "specimen": _specimen_columns,
    "measurement": _value_columns,
    "observation": _value_columns,
}
