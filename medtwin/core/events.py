"""The event table: its schema, the builder that fills it, its order, and its rules. See docs/conventions.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH
from medtwin.core.findings import Finding
from medtwin.core.text_columns import rows_with_text, text_codes, text_ranks

EVENT_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        pa.field("unit", pa.string()),
        pa.field("encounter_id", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("parent_id", pa.string()),
        pa.field("end_time", pa.timestamp("us")),
        pa.field("status", pa.string()),
        pa.field("time_precision", pa.string()),
        pa.field("source_code", pa.string()),
        pa.field("source_unit", pa.string()),
        pa.field("resource", pa.string()),
    ]
)
MEDS_COLUMNS = ("subject_id", "time", "code", "numeric_value", "text_value")

# Within one instant a record reads in this order: who, where, what is known, what was asked, what was done, and what
# was found.
RESOURCE_ORDER = (
    "Patient",
    "Encounter",
    "Condition",
    "AllergyIntolerance",
    "CarePlan",
    "ServiceRequest",
    "Procedure",
    "Specimen",
    "Observation",
    "DiagnosticReport",
    "ImagingStudy",
    "DocumentReference",
    "MedicationRequest",
    "MedicationDispense",
    "MedicationAdministration",
    "MedicationStatement",
    "Immunization",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the event table; the fields are its columns (docs/conventions.md)."""

    subject_id: int
    time: datetime | None
    code: str
    numeric_value: float | None = None
    text_value: str | None = None
    unit: str | None = None
    encounter_id: str | None = None
    event_id: str | None = None
    parent_id: str | None = None
    end_time: datetime | None = None
    status: str | None = None
    time_precision: str | None = None
    source_code: str | None = None
    source_unit: str | None = None
    resource: str | None = None

    def child(self, path: str, code: str | None = None, **values: Any) -> Event:
        """A child row that details this event: `FHIR//<resource>.<path>[//SYSTEM//code]`.

        Args:
            path: Element path below the resource, such as `referenceRange.low`.
            code: `SYSTEM//code` of a coded detail.
            values: Further columns: `numeric_value`, `text_value`, `unit`, `source_unit`.
        """
        return Event(
            self.subject_id,
            self.time,
            child_code(self.resource, path, code),
            parent_id=self.event_id,
            encounter_id=self.encounter_id,
            status=self.status,
            time_precision=self.time_precision,
            resource=self.resource,
            **values,
        )


def child_code(resource: str | None, path: str, code: str | None = None) -> str:
    """The code of a child row: `FHIR//<resource>.<path>[//SYSTEM//code]`."""
    tail = f"//{code}" if code is not None else ""
    return f"{CHILD_PREFIX}{resource}.{path}{tail}"


def split_child_code(code: str) -> tuple[str, str, str | None]:
    """Resource type, element path and `SYSTEM//code` of a child row's code.

    >>> split_child_code("FHIR//Observation.category//OBSCATEGORY//laboratory")
    ('Observation', 'category', 'OBSCATEGORY//laboratory')
    >>> split_child_code("FHIR//Observation.referenceRange.low")
    ('Observation', 'referenceRange.low', None)
    """
    element, separator, coded = code.removeprefix(CHILD_PREFIX).partition("//")
    resource, _, path = element.partition(".")
    return resource, path, coded if separator else None


def events_to_table(events: Iterable[Event]) -> pa.Table:
    """The table of some events, in the order given."""
    columns: dict[str, list[Any]] = {field.name: [] for field in fields(Event)}
    appends = [(name, column.append) for name, column in columns.items()]
    for event in events:
        for name, append in appends:
            append(getattr(event, name))
    return pa.table(columns, schema=EVENT_SCHEMA)


def table_to_events(table: pa.Table) -> list[Event]:
    """The rows of a table as events; columns that the table lacks are None.

    A float32 comes back as the float of its shortest decimal (`shortest_decimal`).
    """
    full = with_all_columns(table)
    columns = []
    for name in EVENT_SCHEMA.names:
        values = full.column(name).to_pylist()
        if name == "numeric_value":
            values = [None if value is None else shortest_decimal(value) for value in values]
        columns.append(values)
    return [Event(*row) for row in zip(*columns, strict=True)]


def with_all_columns(table: pa.Table) -> pa.Table:
    """The table with every column of `EVENT_SCHEMA`, absent ones null, foreign ones dropped, types made exact."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in EVENT_SCHEMA
    ]
    return pa.table(columns, schema=EVENT_SCHEMA)


def shortest_decimal(value: float) -> float:
    """The float whose repr is the shortest decimal that reads back as the same float32.

    >>> shortest_decimal(float(np.float32(7.1)))
    7.1
    """
    return float(str(np.float32(value)))


def sort_events(table: pa.Table) -> pa.Table:
    """The table in canonical order, whatever order the source had; children follow their event in the order given.

    Order: subject, time with static facts first, resource rank, event, then children as they stand. Rows of a foreign
    dataset, which have no event_id, keep their order within an instant.
    """
    subject = table["subject_id"].to_numpy()
    order = np.lexsort((_places_in_instant(table), _sortable(table["time"]), subject))
    return table if (order[1:] > order[:-1]).all() else table.take(pa.array(order))


def _places_in_instant(table: pa.Table) -> NDArray[np.int64]:
    """A number by which rows of one instant are ordered: resource rank, event, then the event before its children."""
    rank_of = {name: rank for rank, name in enumerate(RESOURCE_ORDER, start=1)}
    last = len(rank_of) + 1
    resource, names = text_codes(table["resource"])
    ranks = np.array([rank_of.get(name, last) for name in names.to_pylist()] + [last])
    first = ranks[resource]  # -1, null, is the last of them
    first = np.where(rows_with_text(table["code"], BIRTH), 0, first)
    first = np.where(rows_with_text(table["code"], DEATH), last + 1, first)
    event, events = text_codes(table["event_id"])
    parent, parents = text_codes(table["parent_id"])
    # `<event>.<n>` to `<event>`: a component's own children belong to the component's event.
    roots = pc.replace_substring_regex(parents.cast(pa.string()), r"\.\d+$", "")
    rank = text_ranks(pa.concat_arrays([events.cast(pa.string()), roots])) + 1
    is_child = parent >= 0
    place = np.where(is_child, parent + len(events), event)
    root = np.where(place >= 0, rank[place] if len(rank) else 0, 0)
    return (first.astype(np.int64) << 48) | (root << 1) | is_child


def _sortable(time: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times as int64 with nulls before everything else."""
    return np.asarray(time.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy())


def is_event(table: pa.Table) -> pa.ChunkedArray:
    """Which rows are events of their own rather than details of one, (rows,) bool."""
    return pc.and_(pc.is_null(table["parent_id"]), pc.invert(pc.starts_with(table["code"], CHILD_PREFIX)))


def validate_events(table: pa.Table, where: str = "events") -> list[Finding]:
    """Every rule of the event table that the table breaks; empty for a valid one.

    Checked: the MEDS 0.4 schema (with the `meds` package), our column types, order, one birth and one death, nothing
    before birth or after death that is dated, ends before starts, children without their event, duplicate ids.
    """
    findings = _schema_findings(table, where)
    if findings:
        return findings
    return [*findings, *row_findings(with_all_columns(table), where)]


def row_findings(full: pa.Table, where: str = "events") -> list[Finding]:
    """The rules of `validate_events` beyond the schema.

    Args:
        full: All columns of `EVENT_SCHEMA`; texts may be dictionaries.
        where: Named in the findings.
    """
    checks = (
        ("unsorted", _num_unsorted(full), "rows must be sorted by subject_id, then time with nulls first"),
        ("several-births", _num_repeated(full, BIRTH), "a subject must have at most one MEDS_BIRTH"),
        ("several-deaths", _num_repeated(full, DEATH), "a subject must have at most one MEDS_DEATH"),
        ("ends-before-start", _num_true(pc.less(full["end_time"], full["time"])), "end_time must not precede time"),
        ("orphan-child", _num_orphans(full), "parent_id must be the event_id of an event of the same shard"),
        ("duplicate-event", _num_duplicates(full), "event_id must be unique"),
        ("infinite-value", _num_true(pc.invert(pc.is_finite(full["numeric_value"]))), "numeric_value must be finite"),
        ("empty-code", int(rows_with_text(full["code"], "").sum()), "code must not be empty"),
    )
    return [Finding(rule, message, where=where, count=count) for rule, count, message in checks if count]


def _schema_findings(table: pa.Table, where: str) -> list[Finding]:
    from flexible_schema import SchemaValidationError
    from meds import DataSchema

    findings = []
    meds_columns = [name for name in MEDS_COLUMNS if name in table.column_names]
    try:
        DataSchema.validate(table.select(meds_columns))
    except (SchemaValidationError, ValueError, TypeError) as error:
        findings.append(Finding("meds-schema", f"not a MEDS 0.4 table: {error}", where=where))
    for field in EVENT_SCHEMA:
        if field.name not in MEDS_COLUMNS and field.name in table.column_names:
            found = table.schema.field(field.name).type
            if found != field.type and not pa.types.is_null(found) and not _is_string_like(found, field.type):
                message = f"column {field.name} must be {field.type}, got {found}"
                findings.append(Finding("column-type", message, where=where))
    return findings


def _is_string_like(found: pa.DataType, wanted: pa.DataType) -> bool:
    return bool(pa.types.is_string(wanted) and pa.types.is_large_string(found))


def _num_true(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.fill_null(mask, False)).as_py() or 0)


def _num_unsorted(table: pa.Table) -> int:
    subject = table["subject_id"].to_numpy()
    time = _sortable(table["time"])
    same = subject[1:] == subject[:-1]
    num_blocks = 1 + int((~same).sum()) if len(subject) else 0
    split_subjects = num_blocks - len(np.unique(subject))
    return int((same & (time[1:] < time[:-1])).sum()) + split_subjects


def _num_repeated(table: pa.Table, code: str) -> int:
    subjects = table["subject_id"].to_numpy()[rows_with_text(table["code"], code)]
    return len(subjects) - len(np.unique(subjects))


def _num_orphans(table: pa.Table) -> int:
    codes, parents = text_codes(table["parent_id"])
    _, events = _used(table["event_id"])
    lost = pc.invert(pc.is_in(parents.cast(pa.string()), value_set=events.cast(pa.string()))).to_numpy(False)
    return int(np.append(lost, False)[codes].sum())


def _num_duplicates(table: pa.Table) -> int:
    count, used = _used(table["event_id"])
    return count - len(used)


def _used(column: pa.ChunkedArray) -> tuple[int, pa.Array]:
    """How many rows have a text, and which texts they have."""
    codes, texts = text_codes(column)
    times = np.bincount(codes + 1, minlength=len(texts) + 1)[1:]
    return int(times.sum()), texts.filter(pa.array(times > 0))
