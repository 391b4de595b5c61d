"""An OMOP CDM as events: the inverse of `medtwin.omop.write`, and a reader of any CDM 5.3 or 5.4."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.core.units import to_ucum
from medtwin.omop import concepts
from medtwin.omop.accept import Accepted, Gate
from medtwin.omop.children import ADDERS, Tools
from medtwin.omop.codes import ConceptCodes, read_concept_codes
from medtwin.omop.details import DetailReader
from medtwin.omop.persons import Persons, read_deaths, read_persons
from medtwin.omop.rows import EventRows, event_table
from medtwin.omop.source import OmopSource, Rows
from medtwin.omop.tables import CLINICAL_TABLES, EVENT_TABLES, VISIT_TABLES

_READ = frozenset({"person", "death", *EVENT_TABLES})
# Columns that hold what another column or the id of an event says, or that the CDM derives.
_KNOWN = frozenset({"preceding_visit_occurrence_id", "preceding_visit_detail_id", "measurement_time"})
_UNIT_CODE = re.compile(r"(?=.{1,64}$)\S+(?: \S+)*")
_CONDITION_STATUSES = frozenset({"unconfirmed", "provisional", "differential", "confirmed"})


@dataclass(frozen=True)
class Words:
    """Which texts may become part of an event.

    Attributes:
        is_result: Whether a text is a short number or a word of the closed vocabulary of results.
        is_unit: Whether a text is a unit and nothing else.
    """

    is_result: Callable[[str], bool]
    is_unit: Callable[[str], bool]


@dataclass
class OmopReader:
    """Reads a CDM once.

    Attributes:
        persons: The subjects; filled by `tables`.
    """

    source: OmopSource
    pseudonyms: Pseudonyms
    ledger: Ledger
    words: Words
    vocab: Path | None = None
    persons: Persons = field(default_factory=Persons)

    def __post_init__(self) -> None:
        self.is_ours = self.source.is_ours()
        self.codes: ConceptCodes = ConceptCodes({}, is_ours=self.is_ours)
        self.visits: dict[str, dict[int, int]] = {name: {} for name in VISIT_TABLES}
        self.further: dict[str, set[int]] = {}
        self.details = DetailReader(
            self.source,
            self.pseudonyms,
            self.ledger,
            is_result=self.words.is_result,
            encounters=self._encounters,
            units=self._units,
        )

    @property
    def tools(self) -> Tools:
        """What the child rows are made with."""
        return Tools(
            self.codes,
            self.persons,
            self.pseudonyms,
            self.ledger,
            self.is_ours,
            self._units,
            self.details.text,
            self.visits,
        )

    def tables(self) -> Iterator[pa.Table]:
        """The events, (rows,) of EVENT_SCHEMA, in the order of the tables.

        Raises:
            SourceError: If a table cannot be read.
        """
        self.codes = read_concept_codes(self.source, self.vocab, is_ours=self.is_ours)
        if self.is_ours:
            self.details.survey()
            self._read_further()
        self.persons, facts = read_persons(self.source, self.pseudonyms, self.ledger, is_ours=self.is_ours)
        yield from facts
        yield from read_deaths(self.source, self.persons, self.ledger, is_ours=self.is_ours)
        gate = Gate(self.source, self.persons, self.ledger, self.is_ours)
        for name in (*VISIT_TABLES, *CLINICAL_TABLES):
            for rows in self.source.rows(name):
                yield from self._batch(gate, name, rows)
        self._count_others()

    def _batch(self, gate: Gate, name: str, rows: Rows) -> Iterator[pa.Table]:
        """The events of a batch; then, of a CDM of ours, the child rows among its observations."""
        rows = self._without_further(name, rows)
        codes = self._codes(name, rows)
        is_detail = np.array([bool(code) and str(code).startswith(CHILD_PREFIX) for code in codes], dtype=bool)
        if not self.is_ours or not is_detail.any():
            yield self._events(gate, name, rows, codes)
            return
        events = [code for code, detail in zip(codes, is_detail, strict=True) if not detail]
        yield self._events(gate, name, rows.only(~is_detail), events)
        details = [code for code, detail in zip(codes, is_detail, strict=True) if detail]
        yield self.details.children(gate, rows.only(is_detail), details)

    def _read_further(self) -> None:
        """Which rows stand beside the first of their event, because its code says several things."""
        for rows in self.source.rows("fact_relationship"):
            for row in rows.table.filter(pc.equal(rows.table["relationship_concept_id"], 0)).to_pylist():
                table = concepts.DOMAIN_NAMES.get(row["domain_concept_id_2"])
                if table is not None:
                    self.further.setdefault(table, set()).add(row["fact_id_2"])

    def _without_further(self, name: str, rows: Rows) -> Rows:
        if name not in self.further:
            return rows
        known = pa.array(sorted(self.further[name]), pa.int64())
        again = pc.is_in(rows.table[EVENT_TABLES[name].key], value_set=known).to_numpy()
        self.ledger.read[name] += int(again.sum())
        self.ledger.not_carried[name] += int(again.sum())
        return rows.only(~again)

    def _events(self, gate: Gate, name: str, rows: Rows, codes: list[str | None]) -> pa.Table:
        spec = EVENT_TABLES[name]
        accepted = gate.accept(name, rows, codes)
        kept = pc.take(pa.array(codes, pa.string()), pc.index_in(accepted.table[spec.key], rows.table[spec.key]))
        events = EventRows(self._base(accepted, kept))
        if name in VISIT_TABLES:
            self.visits[name] |= dict(zip(accepted.ids.tolist(), accepted.person.tolist(), strict=True))
        if name in ADDERS:
            ADDERS[name](self.tools, accepted, events)
        self._add_ends(accepted, events)
        self._count_unread(accepted)
        self.details.remember(name, accepted, events.events["event_id"])
        return events.table()

    def _codes(self, name: str, rows: Rows) -> list[str | None]:
        spec = EVENT_TABLES[name]
        find = self.codes.of_visit if name in VISIT_TABLES else self.codes.of_event
        source_concept = (
            rows.table[spec.source_concept] if spec.source_concept else pa.nulls(len(rows.table), pa.int32())
        )
        columns = (rows.table[spec.source_value], source_concept, rows.table[spec.concept])
        known: dict[tuple[Any, ...], str | None] = {}
        codes = []
        for key in zip(*(column.to_pylist() for column in columns), strict=True):
            if key not in known:
                known[key] = find(*key)
            codes.append(known[key])
        return codes

    def _base(self, accepted: Accepted, codes: pa.Array) -> pa.Table:
        name, table = accepted.name, accepted.table
        is_undated = np.isnat(accepted.time)
        event_ids, parents = self.details.ids(name, accepted)
        resources = self._resources(accepted, codes)
        pairs = zip(event_ids, resources, strict=True)
        own_ids = [None if resource == "Patient" else event for event, resource in pairs]  # a fact, no event
        columns: dict[str, Any] = {
            "subject_id": self.persons.subject_id[accepted.person],
            "time": pa.array(accepted.time, pa.timestamp("us")),
            "code": codes,
            "encounter_id": event_ids if name in VISIT_TABLES else self._encounters(table, accepted.person),
            "event_id": own_ids,
            "parent_id": parents,
            "end_time": pa.array(accepted.end, pa.timestamp("us")),
            "time_precision": pa.array(accepted.precision, mask=is_undated),
            "resource": resources,
        }
        if name == "condition_occurrence":
            stated = table["condition_status_source_value"].to_pylist()
            columns["status"] = [word if word in _CONDITION_STATUSES else None for word in stated]
        if name in ("measurement", "observation"):
            columns |= self._values(accepted)
        return event_table(len(table), columns)

    def _encounters(self, table: pa.Table, person: NDArray[np.int64]) -> pa.Array:
        """The encounter of every row: the part of a stay where that is known, else the stay."""
        names: list[str | None] = []
        if not set(VISIT_TABLES) <= {name.removesuffix("_id") for name in table.column_names}:
            return pa.nulls(len(table), pa.string())
        columns = [table[f"{name}_id"].to_pylist() for name in ("visit_detail", "visit_occurrence")]
        known: dict[tuple[str, int], str] = {}
        for detail, occurrence, place in zip(*columns, person.tolist(), strict=True):
            found = None
            for name, number in (("visit_detail", detail), ("visit_occurrence", occurrence)):
                if found is None and number is not None and self.visits[name].get(number) == place:
                    found = known.get((name, number))
                    if found is None:
                        found = known[name, number] = self.pseudonyms.event_id(name, str(number))
            if found is None and (detail is not None or occurrence is not None):
                self.ledger.flags["unknown-visit"] += 1
            names.append(found)
        return pa.array(names, pa.string())

    def _resources(self, accepted: Accepted, codes: pa.Array) -> list[str]:
        name = accepted.name
        systems = [(code or "").removeprefix("NEGATED//").partition("//")[0] for code in codes.to_pylist()]
        fixed = {"condition_occurrence": "Condition", "measurement": "Observation", "specimen": "Specimen"}
        if name in fixed or name in VISIT_TABLES:
            return [fixed.get(name, "Encounter")] * len(systems)
        if name == "procedure_occurrence":
            return ["ImagingStudy" if system == "DCM" else "Procedure" for system in systems]
        if name == "device_exposure":
            return ["MedicationDispense" if system in ("NDC", "RXNORM") else "Procedure" for system in systems]
        if name == "drug_exposure":
            kinds = accepted.table["drug_type_concept_id"].to_pylist()
            other = "Immunization" if self.is_ours else "MedicationStatement"
            return [
                "Immunization" if system == "CVX" else concepts.TYPE_DRUGS.get(kind, other)
                for system, kind in zip(systems, kinds, strict=True)
            ]
        return self.details.resources(accepted, systems)

    def _values(self, accepted: Accepted) -> dict[str, Any]:
        """Number, text and unit of measurements and observations."""
        table, ledger = accepted.table, self.ledger
        texts = table["value_source_value"].to_pylist()
        if accepted.name == "observation":
            strings = table["value_as_string"].to_pylist()
            texts = [text if text is not None else string for text, string in zip(texts, strings, strict=True)]
        value_concepts = table["value_as_concept_id"].to_pylist()
        numbers = table["value_as_number"]
        has_number = pc.is_valid(numbers).to_pylist()
        shown: list[str | None] = []
        for text, concept, numbered in zip(texts, value_concepts, has_number, strict=True):
            # Ours has a concept without a text only where the code itself says a value.
            value = self.codes.of_value(text, None if self.is_ours else concept)
            if value is None and text is not None and self.words.is_result(text):
                value = None if numbered and not self.is_ours else text
            elif value is None and text is not None and not numbered:
                ledger.elements_not_carried[f"{accepted.name}.value_source_value"] += 1
            shown.append(value)
        units, sources = self._units(table)
        return {
            "numeric_value": numbers.cast(pa.float32(), safe=False),
            "text_value": shown,
            "unit": units,
            "source_unit": sources,
        }

    def _units(self, table: pa.Table, column: str = "unit_source_value") -> tuple[list[str | None], list[str | None]]:
        """UCUM and the unit as the source wrote it, where that is not UCUM; no text that is no unit."""
        stated = table[column].to_pylist()
        numbers = (
            table["unit_concept_id"].to_pylist() if "unit_concept_id" in table.column_names else [None] * len(stated)
        )
        known: dict[tuple[Any, Any], tuple[str | None, str | None]] = {}
        pairs = []
        for key in zip(stated, numbers, strict=True):
            if key not in known:
                known[key] = self._unit(*key)
            pairs.append(known[key])
        left = sum(text is not None and not self._is_unit(text) for text in stated)
        self.ledger.elements_not_carried.update({column: left} if left else {})
        return [unit for unit, _ in pairs], [source for _, source in pairs]

    def _unit(self, text: str | None, concept: int | None) -> tuple[str | None, str | None]:
        code = self.codes.of_concept(concept) or ""
        by_concept = code.removeprefix("UCUM//") if code.startswith("UCUM//") else None
        word = text if text is not None and self._is_unit(text) else None
        unit = (to_ucum(word) if word is not None else None) or by_concept
        return unit, word if word != unit else None

    @cached_property
    def _is_unit(self) -> Callable[[str], bool]:
        """Whether a text may be a unit: of ours, any that FHIR's grammar of codes allows."""

        @lru_cache(maxsize=4096)
        def is_unit(text: str) -> bool:
            is_coded = self.is_ours and _UNIT_CODE.fullmatch(text) is not None
            return is_coded or text == "1" or self.words.is_unit(text)

        return is_unit

    def _add_ends(self, accepted: Accepted, events: EventRows) -> None:
        differs = ~np.isnat(accepted.end) & (accepted.end_precision != accepted.precision)
        texts = [
            word if is_other else None for word, is_other in zip(accepted.end_precision.tolist(), differs, strict=True)
        ]
        events.add_texts(texts, "endPrecision")

    def _count_unread(self, accepted: Accepted) -> None:
        """Counts values of columns that nothing reads."""
        for name in accepted.table.column_names:
            if name in _KNOWN or name in _USED.get(accepted.name, ()) or name.endswith("_source_concept_id"):
                continue
            values = accepted.table[name]
            if name.endswith("_concept_id"):
                values = values.filter(pc.not_equal(values, 0))
            count = len(values) - values.null_count
            if count:
                self.ledger.elements_not_carried[f"{accepted.name}.{name}"] += count

    def _count_others(self) -> None:
        for name in sorted(set(self.source.files) - _READ):
            count = self.source.count(name)
            self.ledger.read[name] += count
            self.ledger.not_carried[name] += count
        for table, names in self.source.unknown_columns.items():
            for column in names:
                self.ledger.elements_not_carried[f"{table}.{column} (no column of the CDM)"] += 1


def _used_columns() -> dict[str, frozenset[str]]:
    more = {
        "condition_occurrence": "condition_status_source_value condition_status_concept_id",
        "drug_exposure": "verbatim_end_date stop_reason refills quantity days_supply sig route_concept_id "
        "route_source_value dose_unit_source_value",
        "procedure_occurrence": "modifier_concept_id modifier_source_value",
        "measurement": "operator_concept_id value_as_number value_as_concept_id unit_concept_id range_low range_high "
        "unit_source_value value_source_value measurement_event_id meas_event_field_concept_id",
        "observation": "value_as_number value_as_string value_as_concept_id unit_concept_id unit_source_value "
        "value_source_value qualifier_source_value observation_event_id obs_event_field_concept_id",
        "specimen": "anatomic_site_concept_id anatomic_site_source_value",
        "visit_occurrence": "admitted_from_concept_id admitted_from_source_value discharged_to_concept_id "
        "discharged_to_source_value",
    }
    more["visit_detail"] = more["visit_occurrence"] + " parent_visit_detail_id"
    used = {}
    for name, table in EVENT_TABLES.items():
        common = {table.key, table.concept, table.source_value, table.date, table.time, table.kind, table.end_date}
        common |= {table.end_time, "person_id", "visit_occurrence_id", "visit_detail_id"}
        used[name] = frozenset(each for each in common if each) | frozenset(more.get(name, "").split())
    return used


_USED = _used_columns()
