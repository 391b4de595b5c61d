"""The events of a shard as rows of the clinical tables: routed, numbered, linked, and filled with their details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.omop import concepts
from medtwin.omop.actors import Actors
from medtwin.omop.columns import OWN_COLUMNS, Batch, Columns, common_columns, end_columns, int32, keys, unit_texts
from medtwin.omop.routes import Case, Target, route
from medtwin.omop.shard import NO_ROW, NOT_CARRIED, WRITTEN, Mask, Rows, Shard
from medtwin.omop.tables import CLINICAL_TABLES, EVENT_TABLES, TABLES
from medtwin.omop.visits import Visits
from medtwin.omop.vocabulary import Vocabulary

DetailsSetting = Literal["columns", "observations"]
_SURVEYS = frozenset({"OBSCATEGORY//social-history", "OBSCATEGORY//survey", "OBSCATEGORY//activity"})
_FIELD_OF_TABLE = np.array([*(concepts.FIELDS.get(name, 0) for name in CLINICAL_TABLES), 0])
_IS_LINKED = np.array(
    [*(name in concepts.FIELDS and EVENT_TABLES[name].event is None for name in CLINICAL_TABLES), False]
)
_LINKS = ("Observation.partOf", "Observation.specimen")


@dataclass
class Context:
    """What every shard of an export shares.

    Attributes:
        details: `columns`: what has no column of its own is not carried; `observations`: it becomes rows of
            observation with concept 0, linked to their event.
        routes: What was decided before, by case.
    """

    vocabulary: Vocabulary
    actors: Actors
    details: DetailsSetting = "columns"
    routes: dict[Case, tuple[Target, ...]] = field(default_factory=dict)

    def route(self, case: Case) -> tuple[Target, ...]:
        """The rows that an event becomes."""
        if case not in self.routes:
            self.routes[case] = route(case, self.vocabulary)
        return self.routes[case]


@dataclass(frozen=True)
class Clinical:
    """The clinical rows of a shard.

    Attributes:
        tables: Rows by table.
        further: Rows by table beyond the first of an event: what its code says besides.
        lost: What of the written events no column holds, by column.
        mapping: Events with and without a standard concept, by code system.
    """

    tables: dict[str, pa.Table]
    further: Counter[str]
    lost: Counter[str]
    mapping: Counter[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class _Expanded:
    """Rows to write: one or more per event, (rows,) each."""

    event: Rows
    table: Rows
    concept: Rows
    source_concept: Rows
    value_concept: Rows
    is_first: Mask

    def of(self, number: int) -> _Expanded:
        """Those of one table."""
        mine = self.table == number
        return _Expanded(*(getattr(self, each.name)[mine] for each in fields(self)))


def clinical_tables(
    shard: Shard,
    context: Context,
    person_of_row: Rows,
    visits: Visits,
    first_date: Mapping[int, Any],
    first: Mapping[str, int],
) -> Clinical:
    """The clinical rows of a shard. Every row of it that is still open gets its fate here.

    Args:
        shard: The shard; its persons and visits have been read.
        context: What all shards share.
        person_of_row: person_id of every row.
        visits: Its visits.
        first_date: Subject to the day on which its record begins.
        first: The first id of each table.
    """
    return _Writer(shard, context, person_of_row, visits, first_date, first).run()


class _Writer:
    """One shard on its way into the clinical tables."""

    def __init__(
        self,
        shard: Shard,
        context: Context,
        person_of_row: Rows,
        visits: Visits,
        first_date: Mapping[int, Any],
        first: Mapping[str, int],
    ) -> None:
        self.shard, self.context, self.visits = shard, context, visits
        self.person_of_row, self.first_date, self.first = person_of_row, first_date, first
        self.own_table = np.full(shard.num_rows + 1, NO_ROW)
        self.own_id = np.full(shard.num_rows + 1, NO_ROW)
        self.further: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.mapping: Counter[tuple[str, bool]] = Counter()

    def run(self) -> Clinical:
        expanded = self._expand(self._happened())
        parts = {name: expanded.of(number) for number, name in enumerate(CLINICAL_TABLES)}
        for name, part in parts.items():
            self._number(name, part)
        tables = {name: self._table(name, parts[name]) for name in CLINICAL_TABLES if name != "observation"}
        observation = [self._table("observation", parts["observation"])]
        if self.context.details == "observations":
            observation.append(self._leftovers(self.first["observation"] + len(observation[0])))
        tables["observation"] = pa.concat_tables(observation)
        tables["fact_relationship"] = self._relations(expanded, parts)
        self._close_books()
        return Clinical(tables, self.further, self.lost, self.mapping)

    def _happened(self) -> Rows:
        """Rows that are events or components; a component of what did not happen did not happen."""
        shard = self.shard
        negated = np.append(shard.is_negated, False)
        is_negated = shard.is_negated | negated[shard.root]
        return np.flatnonzero(shard.fates.open & ~shard.is_detail & ~is_negated)

    def _cases(self, rows: Rows) -> tuple[list[Case], Rows]:
        """The distinct cases among some rows, and which one each row is."""
        shard = self.shard
        if not len(rows):
            return [], rows
        resource = shard.column("resource").dictionary_encode()
        names = [*resource.dictionary.to_pylist(), None]
        of_resource = resource.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
        has_number = pc.is_valid(shard.column("numeric_value")).to_numpy(zero_copy_only=False)
        has_text = pc.is_valid(shard.column("text_value")).to_numpy(zero_copy_only=False)
        key = shard.code[rows] * len(names) + of_resource[rows]
        for flag in (has_number | has_text, ~np.isnat(shard.time), self._is_survey()):
            key = key * 2 + flag[rows]
        distinct, place = np.unique(key, return_inverse=True)
        cases = []
        for number in distinct.tolist():
            rest, is_survey = divmod(number, 2)
            rest, is_dated = divmod(rest, 2)
            rest, is_valued = divmod(rest, 2)
            code, kind = divmod(rest, len(names))
            cases.append(Case(shard.codes[code], names[kind], bool(is_valued), bool(is_dated), bool(is_survey)))
        return cases, place

    def _is_survey(self) -> Mask:
        shard = self.shard
        flags = np.zeros(shard.num_rows + 1, dtype=bool)
        rows = shard.details.rows("Observation.category")
        surveys = [code in _SURVEYS for code in shard.details.coded(rows)]
        flags[shard.parent[rows[np.array(surveys, dtype=bool)]] if len(rows) else rows] = True
        return np.asarray(flags[shard.root])

    def _expand(self, rows: Rows) -> _Expanded:
        cases, place = self._cases(rows)
        routes = [self.context.route(case) for case in cases]
        self._count_mapping(cases, routes, place)
        counts = np.array([len(each) for each in routes] or [0])
        start = np.concatenate([[0], np.cumsum(counts)])
        targets = list(chain.from_iterable(routes))
        per_row = counts[place] if len(rows) else np.zeros(0, np.int64)
        event = np.repeat(rows, per_row)
        within = np.arange(len(event)) - np.repeat(np.cumsum(per_row) - per_row, per_row)
        index = np.repeat(start[place] if len(rows) else rows, per_row) + within
        number = {name: at for at, name in enumerate(CLINICAL_TABLES)}

        def column(values: list[int]) -> Rows:
            return np.asarray(np.array(values or [0], np.int64)[index])

        return _Expanded(
            event=event,
            table=column([number[target.table] for target in targets]),
            concept=column([target.concept_id for target in targets]),
            source_concept=column([target.source_concept_id for target in targets]),
            value_concept=column([target.value_concept_id for target in targets]),
            is_first=within == 0,
        )

    def _count_mapping(self, cases: list[Case], routes: list[tuple[Target, ...]], place: Rows) -> None:
        for case, targets, count in zip(cases, routes, np.bincount(place, minlength=len(cases)).tolist(), strict=True):
            self.mapping[case.code.partition("//")[0], targets[0].concept_id != 0] += count

    def _number(self, name: str, part: _Expanded) -> None:
        """Gives the rows their ids, and the events theirs."""
        ids = self.first[name] + np.arange(len(part.event))
        own = part.event[part.is_first]
        self.own_table[own] = CLINICAL_TABLES.index(name)
        self.own_id[own] = ids[part.is_first]
        self.further[name] += int((~part.is_first).sum())

    def _relations(self, expanded: _Expanded, parts: Mapping[str, _Expanded]) -> pa.Table:
        """Joins the further rows of a code to the first, so that the two can be read as one event again."""
        ids = np.zeros(len(expanded.event), np.int64)
        for number, name in enumerate(parts):
            ids[expanded.table == number] = self.first[name] + np.arange(len(parts[name].event))
        further = np.flatnonzero(~expanded.is_first)
        domains = np.array([concepts.DOMAINS[name] for name in CLINICAL_TABLES])
        event = expanded.event[further]
        columns = {
            "domain_concept_id_1": int32(domains[self.own_table[event]]),
            "fact_id_1": pa.array(self.own_id[event], pa.int64()),
            "domain_concept_id_2": int32(domains[expanded.table[further]]),
            "fact_id_2": pa.array(ids[further], pa.int64()),
            "relationship_concept_id": int32(np.zeros(len(further), np.int64)),
        }
        return _assemble("fact_relationship", columns)

    def _batch(self, name: str, part: _Expanded, first: int) -> Batch:
        return Batch(
            self.shard,
            EVENT_TABLES[name],
            self.context.vocabulary,
            part.event,
            part.event[part.is_first],
            first + np.arange(len(part.event)),
            part.concept,
            part.source_concept,
            part.value_concept,
        )

    def _table(self, name: str, part: _Expanded) -> pa.Table:
        batch = self._batch(name, part, self.first[name])
        self.shard.fates.assign(batch.own, WRITTEN, name)
        columns = common_columns(batch, self._first_days) | end_columns(batch)
        if name in OWN_COLUMNS:
            columns |= OWN_COLUMNS[name](batch)
        if batch.table.event is not None:
            columns |= self._links(batch)
        columns |= self._holders(batch)
        self._count_lost(batch)
        return _assemble(name, columns)

    def _first_days(self, rows: Rows) -> Rows:
        days = [self.first_date[subject] for subject in self.shard.subject[rows].tolist()]
        return np.array(days, "datetime64[D]")

    def _holders(self, batch: Batch) -> Columns:
        """Person, visit and provider."""
        columns = {
            "person_id": pa.array(self.person_of_row[batch.events], pa.int64()),
            "visit_occurrence_id": keys(self.visits.occurrence_id[batch.events]),
            "visit_detail_id": keys(self.visits.detail_id[batch.events]),
        }
        providers = self.context.actors.claim(self.shard, "provider", batch.own, batch.table.name)
        of_row = dict(zip(batch.own.tolist(), providers, strict=True))
        if any(each is not None for each in providers):
            columns["provider_id"] = pa.array([of_row.get(row) for row in batch.events.tolist()], pa.int64())
        return columns

    def _links(self, batch: Batch) -> Columns:
        """The record that a measurement or observation belongs to: that of its panel, else one that it names."""
        parent = np.append(self.shard.parent, NO_ROW)[batch.events]
        single = batch.own[self.shard.parent[batch.own] == NO_ROW]
        claimed = batch.claim(_LINKS, batch.table.event or "", among=self._linkable(), own=single)
        named = self._named(claimed)
        target = np.where(parent != NO_ROW, parent, named)
        return self._link_columns(batch, target)

    def _link_columns(self, batch: Batch, target: Rows) -> Columns:
        field_concept = _FIELD_OF_TABLE[self.own_table[target]]
        linked = np.where(field_concept == 0, NO_ROW, self.own_id[target])
        return {
            batch.table.event or "": keys(linked),
            batch.table.event_field or "": pa.array(field_concept, pa.int32(), mask=linked == NO_ROW),
        }

    def _named(self, rows: Rows) -> Rows:
        """The event that each child row names by its id; NO_ROW for none."""
        shard = self.shard
        ids = shard.column("event_id")
        holders = pc.indices_nonzero(pc.is_valid(ids))
        texts = pa.array(shard.text("text_value", rows), pa.string())
        found = pc.index_in(texts, value_set=pc.take(ids, holders)).fill_null(-1)
        return np.asarray(np.append(holders.to_numpy().astype(np.int64), NO_ROW)[found.to_numpy(zero_copy_only=False)])

    def _linkable(self) -> Rows:
        """Child rows that name an event of the same person which has a row that can be linked to."""
        rows = np.concatenate([self.shard.details.rows(path) for path in _LINKS])
        named = self._named(rows)
        subject = np.append(self.shard.subject, NO_ROW)
        # A link to a measurement or an observation says that the two are one panel.
        usable = _IS_LINKED[self.own_table[named]] & (subject[named] == self.shard.subject[rows])
        return np.asarray(rows[usable])

    def _leftovers(self, first: int) -> pa.Table:
        """What has no place of its own as rows of observation: details, and what did not happen."""
        shard = self.shard
        negated = np.append(shard.is_negated, False)
        root = np.append(shard.root, NO_ROW)
        is_told = (root[:-1] != NO_ROW) | (shard.is_detail & ~shard.is_child)
        events = np.flatnonzero(shard.fates.open & is_told)
        events = events[np.argsort(~negated[events], kind="stable")]  # what did not happen before its details
        part = _Expanded(
            event=events,
            table=np.full(len(events), CLINICAL_TABLES.index("observation")),
            concept=np.zeros(len(events), np.int64),
            source_concept=np.zeros(len(events), np.int64),
            value_concept=np.zeros(len(events), np.int64),
            is_first=np.ones(len(events), dtype=bool),
        )
        batch = self._batch("observation", part, first)
        self.own_table[events] = CLINICAL_TABLES.index("observation")
        self.own_id[events] = batch.ids
        shard.fates.assign(events, WRITTEN, "observation")
        columns = common_columns(batch, self._first_days) | OWN_COLUMNS["observation"](batch)
        parent = np.append(shard.parent, NO_ROW)[events]
        columns |= self._link_columns(batch, parent) | self._holders(batch)
        is_visit = self.own_table[parent] == NO_ROW
        visit = self.visits.occurrence_id[events]
        columns["value_source_value"] = columns["value_as_string"] = self._references(
            events, columns["value_as_string"]
        )
        of_visit = is_visit & (parent != NO_ROW) & (visit != NO_ROW) & (self.visits.detail_id[events] == NO_ROW)
        event, event_field = batch.table.event or "", batch.table.event_field or ""
        columns[event] = pc.if_else(pa.array(of_visit), keys(visit), columns[event])
        field_concept = int32([concepts.FIELDS["visit_occurrence"]] * len(events))
        columns[event_field] = pc.if_else(pa.array(of_visit), field_concept, columns[event_field])
        return _assemble("observation", columns)

    def _references(self, rows: Rows, texts: pa.Array) -> pa.Array:
        """The texts of child rows; where one is the id of an event, `<table>/<id>` of the row that the event became."""
        named = self._named(np.where(self.shard.is_detail[rows], rows, NO_ROW))
        place, number = self.own_table[named], self.own_id[named]
        shown = [
            f"{CLINICAL_TABLES[table]}/{identity}" if table != NO_ROW else None
            for table, identity in zip(place.tolist(), number.tolist(), strict=True)
        ]
        return pc.coalesce(pa.array(shown, pa.string()), texts)

    def _close_books(self) -> None:
        """Names what is not carried: details without a column, what did not happen, children without their event."""
        shard = self.shard
        open_rows = np.flatnonzero(shard.fates.open)
        negated = np.append(shard.is_negated, False)
        orphan = shard.is_child[open_rows] & (shard.parent[open_rows] == NO_ROW)
        not_done = negated[shard.root[open_rows]] & ~orphan
        shard.fates.assign(open_rows[orphan], NOT_CARRIED, "child of an event that is not there")
        shard.fates.assign(open_rows[not_done], NOT_CARRIED, "what did not happen (NEGATED), and its details")
        for name in shard.details.names():
            plain = name.partition("[")[0] + "".join(part.partition("]")[2] for part in name.split("[")[1:])
            shard.fates.assign(shard.details.rows(name), NOT_CARRIED, f"no column: {plain}")
        shard.fates.assign(np.flatnonzero(shard.fates.open & shard.is_detail), NOT_CARRIED, "detail of no event")

    def _count_lost(self, batch: Batch) -> None:
        """Counts what of the written events no column holds."""
        shard, own = batch.shard, batch.own
        if batch.table.name != "condition_occurrence":
            self.lost["status"] += _num_valid(shard, "status", own)
        if batch.table.end_time is None:
            self.lost["end_time"] += _num_valid(shard, "end_time", own)
        self.lost["source_code (further codings)"] += _num_valid(shard, "source_code", own)
        source = pc.take(shard.column("source_unit"), pa.array(own))
        self.lost["source_unit (the UCUM code stands instead)"] += _num_true(
            pc.not_equal(source, unit_texts(shard, own))
        )
        precision = pc.take(shard.column("time_precision"), pa.array(own))
        for word in ("year", "month"):
            self.lost[f"time_precision ({word})"] += _num_true(pc.equal(precision, word))
        zone = pc.utf8_slice_codeunits(precision.fill_null(""), 6)
        has_zone = pc.and_(pc.starts_with(precision.fill_null(""), "second"), pc.invert(pc.is_in(zone, _UTC)))
        self.lost["time_precision (offset from UTC)"] += _num_true(has_zone)


_UTC = pa.array(["", "+00:00", "-00:00"])


def _num_valid(shard: Shard, name: str, rows: Rows) -> int:
    return len(rows) - int(pc.take(shard.column(name), pa.array(rows)).null_count)


def _num_true(mask: pa.Array) -> int:
    return int(pc.sum(mask.fill_null(False)).as_py() or 0)


def _assemble(name: str, columns: Columns) -> pa.Table:
    """A table with every column of the CDM, in its order; columns of ours that it lacks are left out."""
    schema = TABLES[name].schema
    count = len(next(iter(columns.values())))
    arrays = [columns[each.name] if each.name in columns else pa.nulls(count, each.type) for each in schema]
    return pa.table(arrays, schema=schema)
