"""What links rows of a CDM that medtwin wrote: components to their panel, details to their event."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import EVENT_SCHEMA, split_child_code
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.omop import concepts
from medtwin.omop.columns import UNDATED
from medtwin.omop.persons import Persons
from medtwin.omop.routes import STATIC_WORDS
from medtwin.omop.rows import event_table
from medtwin.omop.source import OmopSource, Rows
from medtwin.omop.tables import EVENT_TABLES

if TYPE_CHECKING:
    from medtwin.omop.accept import Accepted, Gate

# The encounter of every row of a table, whose persons stand at some places.
Encounters = Callable[[pa.Table, NDArray[np.int64]], pa.Array]
# UCUM, and the unit as the source wrote it, of every row of a table.
Units = Callable[[pa.Table], tuple[list[str | None], list[str | None]]]
_LINKED = ("measurement", "observation")
_REFERENCE = re.compile(r"([a-z_]+)/(\d{1,18})")
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(T.*)?")
_MONTH = re.compile(r"(\d{4})(?:-(\d{2}))?")
_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")
_WORD = re.compile(r"[A-Za-z<>=][A-Za-z0-9<>=+:\-]{0,40}")
_DATED = ("date", "datetime", "start", "end")


class DetailReader:
    """Finds the event that a row belongs to.

    Attributes:
        wanted: Ids by table that other rows are linked to.
        found: Those that were read, with the event_id of each.
    """

    def __init__(
        self,
        source: OmopSource,
        pseudonyms: Pseudonyms,
        ledger: Ledger,
        *,
        is_result: Callable[[str], bool],
        encounters: Encounters,
        units: Units,
    ) -> None:
        self._source, self._pseudonyms, self._ledger, self._is_result = source, pseudonyms, ledger, is_result
        self._encounters, self._units = encounters, units
        self.wanted: dict[str, set[int]] = {}
        self.found: dict[str, dict[int, str]] = {}
        self._is_linked = False

    def survey(self) -> None:
        """Reads which rows others are linked to."""
        self._is_linked = True
        for name in _LINKED:
            spec = EVENT_TABLES[name]
            for rows in self._source.rows(name, (spec.event or "", spec.event_field or "")):
                pairs = rows.table.select([spec.event or "", spec.event_field or ""]).drop_null()
                for key in pairs.group_by(pairs.column_names).aggregate([]).to_pylist():
                    table = concepts.FIELD_TABLES.get(key[spec.event_field or ""])
                    if table is not None:
                        self.wanted.setdefault(table, set()).add(key[spec.event or ""])

    def remember(self, name: str, accepted: Accepted, event_ids: pa.ChunkedArray) -> None:
        """Keeps the event ids of rows that others are linked to."""
        wanted = self.wanted.get(name)
        if wanted:
            pairs = zip(accepted.ids.tolist(), event_ids.to_pylist(), strict=True)
            self.found.setdefault(name, {}).update((row, event) for row, event in pairs if row in wanted)

    def ids(self, name: str, accepted: Accepted) -> tuple[list[str], list[str | None]]:
        """event_id and parent_id of every row: a component is named after its panel."""
        make = self._pseudonyms.event_id
        plain = [make(name, str(number)) for number in accepted.ids.tolist()]
        parents: list[str | None] = [None] * len(plain)
        spec = EVENT_TABLES[name]
        if not self._is_linked or name not in _LINKED:
            return plain, parents
        fields = accepted.table[spec.event_field or ""].to_pylist()
        events = accepted.table[spec.event or ""].to_pylist()
        own = dict(zip(accepted.ids.tolist(), plain, strict=True))
        for row, (field, event) in enumerate(zip(fields, events, strict=True)):
            table = concepts.FIELD_TABLES.get(field or 0)
            if table not in _LINKED or event is None:
                continue
            whole = own.get(event) if table == name else None
            whole = whole or self.found.get(table, {}).get(event)
            if whole is None:
                self._ledger.flags["unknown-panel"] += 1
                continue
            parents[row] = whole
            plain[row] = f"{whole}.{accepted.ids[row]}"
        return plain, parents

    def resources(self, accepted: Accepted, systems: list[str]) -> list[str]:
        """The resource types of rows of observation: what the qualifier says, else Patient or Observation."""
        found = []
        for text, system in zip(accepted.table["qualifier_source_value"].to_pylist(), systems, strict=True):
            word = (text or "").removesuffix(UNDATED).strip() if self._is_linked else ""
            default = "Patient" if system in STATIC_WORDS and self._is_linked else "Observation"
            found.append(word if re.fullmatch(r"[A-Z][A-Za-z]+", word) else default)
        return found

    def children(self, gate: Gate, rows: Rows, codes: list[str | None]) -> pa.Table:
        """Rows of observation that detail another row, as child rows of its event.

        Those whose event was not read are counted as not carried.
        """
        accepted = gate.accept("observation", rows, codes)
        spec = EVENT_TABLES["observation"]
        kept = pc.take(pa.array(codes, pa.string()), pc.index_in(accepted.table[spec.key], rows.table[spec.key]))
        names = kept.to_pylist()
        encounter = self._encounters(accepted.table, accepted.person).to_pylist()
        units, source_units = self._units(accepted.table)
        parents = self._parents(accepted, names, encounter)
        texts = self._texts(accepted, names, gate.persons)
        is_undated = np.isnat(accepted.time)
        table = event_table(
            len(names),
            {
                "subject_id": gate.persons.subject_id[accepted.person],
                "time": pa.array(accepted.time, pa.timestamp("us")),
                "code": names,
                "numeric_value": accepted.table["value_as_number"].cast(pa.float32(), safe=False),
                "text_value": texts,
                "unit": units,
                "source_unit": source_units,
                "encounter_id": encounter,
                "parent_id": parents,
                "time_precision": pa.array(accepted.precision, mask=is_undated),
                "resource": [split_child_code(name)[0] for name in names],
            },
        )
        lost = pc.is_null(table["parent_id"])
        count = int(pc.sum(lost).as_py() or 0)
        self._ledger.carried["observation"] -= count
        self._ledger.not_carried["observation"] += count
        return table.filter(pc.invert(lost)).cast(EVENT_SCHEMA)

    def _parents(self, accepted: Accepted, names: list[str], encounters: list[str | None]) -> list[str | None]:
        spec = EVENT_TABLES["observation"]
        fields = accepted.table[spec.event_field or ""].to_pylist()
        events = accepted.table[spec.event or ""].to_pylist()
        parents: list[str | None] = []
        for field, event, name, encounter in zip(fields, events, names, encounters, strict=True):
            table = concepts.FIELD_TABLES.get(field or 0)
            if table is None and name.startswith(f"{CHILD_PREFIX}Encounter."):
                parents.append(encounter)
            else:
                parents.append(self.found.get(table or "", {}).get(event))
        return parents

    def _texts(self, accepted: Accepted, names: list[str], persons: Persons) -> list[str | None]:
        """What details say: ids as the new ones, dates moved, and only words that are codes."""
        texts = accepted.table["value_as_string"].to_pylist()
        days = persons.shift_days[accepted.person].tolist()
        shown: list[str | None] = []
        for text, name, shift in zip(texts, names, days, strict=True):
            told = None if text is None else self.text(text, split_child_code(name)[1], shift)
            if text is not None and told is None:
                self._ledger.elements_not_carried["observation.value_as_string"] += 1
            shown.append(told)
        return shown

    def text(self, text: str, path: str, shift_days: int) -> str | None:
        """What a detail says: an id as the new one, a date moved, or a word that is a code; None for anything else.

        Args:
            text: As the CDM has it.
            path: Element path below the resource.
            shift_days: How far the dates of the person move.
        """
        reference = _REFERENCE.fullmatch(text)
        if reference is not None and reference[1] in EVENT_TABLES:
            number = int(reference[2])
            return self.found.get(reference[1], {}).get(number) or self._pseudonyms.event_id(reference[1], str(number))
        if path.rpartition(".")[2].lower().endswith(_DATED):
            return _moved(text, timedelta(days=shift_days))
        if _UID.fullmatch(text):
            return self._pseudonyms.uid(text)
        is_word = "//" in text or _WORD.fullmatch(text) is not None
        return text if is_word or self._is_result(text) else None


def _moved(text: str, shift: timedelta) -> str | None:
    """A FHIR date or dateTime some whole weeks later; None for any other text.

    >>> _moved("2012-01-31T23:30:00-05:00", timedelta(weeks=1)), _moved("2012", timedelta(weeks=60))
    ('2012-02-07T23:30:00-05:00', '2013')
    """
    try:
        full = _DATE.fullmatch(text)
        if full is not None:
            return (datetime.fromisoformat(full[1]) + shift).date().isoformat() + (full[2] or "")
        month = _MONTH.fullmatch(text)
        if month is None:
            return None
        moved: Any = datetime(int(month[1]), int(month[2] or 1), 1) + shift
    except ValueError:
        return None
    return f"{moved.year:04d}-{moved.month:02d}" if month[2] else f"{moved.year:04d}"
