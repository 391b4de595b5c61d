"""FHIR R4 in: every resource that happened to a subject becomes an event with child rows. See docs/conventions.md.

Two passes: `index_source` finds patients, encounters, medications and actors; `read_tables` then streams the events, so
that memory grows with the number of patients and encounters and not with that of events. What an element gives depends
on its text alone (and on its subject, where it holds a date): it is worked out once and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from operator import itemgetter

import orjson
import pyarrow as pa
from msgspec import Raw

from medtwin.core.encoded import decode_events
from medtwin.core.events import Event, table_to_events
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger, Reject
from medtwin.fhir.codings import ShapeError
from medtwin.fhir.elements import ACTORS
from medtwin.fhir.reading.batch import NO_TIME, Batch, Row
from medtwin.fhir.reading.blocks import FAILURES, Block, BlockReader, Failure, Place
from medtwin.fhir.reading.details import Draft, RejectedError
from medtwin.fhir.reading.index import INDEXED, FhirIndex, IncompleteIndexError, actor_elements, item_id, name_of
from medtwin.fhir.reading.memory import Memory
from medtwin.fhir.reading.patient import patient_facts
from medtwin.fhir.reading.plans import Given, Plan, Route, Shape, plans
from medtwin.fhir.reading.source import FhirSource, Item
from medtwin.fhir.reading.subjects import Subjects
from medtwin.fhir.times import micros_of

# Events of a batch, and templates after which what was remembered is forgotten: some 100 MB together.
_BATCH_EVENTS = 1 << 16
_MAX_TEMPLATES = 1 << 18
_CHECK_EVERY = 64
# Resources that are read together, and resources that wait for others of their shape.
_MAX_BLOCK, _MAX_OPEN = 1 << 9, 1 << 12
# An id that JSON writes as it is.
_PLAIN_ID = re.compile(rb'"[A-Za-z0-9\-.]{1,64}"')


@dataclass
class Claims:
    """What has been read: what comes again is a duplicate.

    Attributes:
        ids: The digest of every type and id.
        persons: Subjects of whom a Patient told.
    """

    ids: set[bytes] = field(default_factory=set)
    persons: set[int] = field(default_factory=set)


def read_tables(source: FhirSource, reader: Reader, *, batch_events: int = _BATCH_EVENTS) -> Iterator[pa.Table]:
    """The events of a source in batches, each event before its child rows; in the order of the files.

    Args:
        source: The files.
        reader: Reads them; its ledger is complete when all is read.
        batch_events: Events after which a batch is given out.

    Returns:
        Tables of `ENCODED_SCHEMA`.

    Raises:
        IncompleteIndexError: If the index did not look into every file, and should have.
    """
    for number, item in enumerate(source.items()):
        reader.read(item)
        if not number % _CHECK_EVERY and reader.num_events >= batch_events and (table := reader.take()) is not None:
            yield table
    if (table := reader.take()) is not None:
        yield table


def read_events(source: FhirSource, index: FhirIndex, pseudonyms: Pseudonyms, ledger: Ledger) -> Iterator[list[Event]]:
    """The events of a source in batches of rows: what `read_tables` reads, for scripts.

    Args:
        source: The files.
        index: What `index_source` found in them.
        pseudonyms: Gives subjects, ids, UIDs and the shift of dates.
        ledger: Takes the books: what was read, carried, not carried and rejected.
    """
    ledger.flags.update(source.flags)
    for table in read_tables(source, Reader(index, pseudonyms, ledger)):
        yield table_to_events(decode_events(table))


class Reader:
    """Turns items into rows; knows the subjects and what was read before.

    Attributes:
        index: What the source refers to.
        pseudonyms: Gives subjects, ids, UIDs and the shift of dates.
        ledger: Takes the books: what was read, carried, not carried and rejected.
        claims: What was read before.
    """

    def __init__(
        self,
        index: FhirIndex,
        pseudonyms: Pseudonyms,
        ledger: Ledger,
        *,
        claims: Claims | None = None,
        remembers: bool = True,
    ) -> None:
        self.index, self.pseudonyms, self.ledger = index, pseudonyms, ledger
        self.claims = Claims(set(claims.ids), set(claims.persons)) if claims is not None else Claims()
        self._plans = plans()
        self._memory = Memory(index, pseudonyms, remembers=remembers)
        self._subjects = Subjects(index, pseudonyms)
        self._blocks = BlockReader(self._memory, self._subjects)
        self._open: dict[Shape, Block] = {}
        self._num_open = 0
        self._num_read = 0
        self._digests: dict[str, Callable[[bytes], bytes]] = {}
        self._rejects: list[tuple[int, Reject]] = []

    @property
    def num_events(self) -> int:
        """How many events wait to be taken, at least."""
        return len(self._blocks.batch)

    def take(self) -> pa.Table | None:
        """The rows so far, of `ENCODED_SCHEMA`; None if there are none."""
        self.settle()
        batch = self._blocks.batch
        table = batch.table() if len(batch) else None
        if len(self._memory.templates) > _MAX_TEMPLATES:
            self._memory.forget(self._plans)
        self._blocks.batch = Batch(self._memory.templates)
        return table

    def settle(self) -> None:
        """Reads what waits in blocks, and writes the books of all that was read since the last time."""
        self._read_blocks()
        self.ledger.carried.update(self._blocks.carried)
        self._blocks.carried.clear()
        for place, kind, failure in self._blocks.failures:
            self._note_failure(place, kind, failure)
        self._blocks.failures.clear()
        for _, reject in sorted(self._rejects, key=itemgetter(0)):
            self.ledger.reject(reject)
        self._rejects.clear()
        for given in self._blocks.hit:
            for path in given.left:
                self.ledger.elements_not_carried[path] += given.hits
            for flag in () if isinstance(given, Route) else given.flags:
                self.ledger.flags[flag] += given.hits
            given.hits = 0
        self._blocks.hit.clear()

    def read(self, item: Item) -> None:
        """Takes one item; the ledger says whether it was carried, not carried or rejected.

        Raises:
            IncompleteIndexError: If it should have been indexed.
        """
        kind = item.kind
        place = self._num_read, item.file, item.line
        self._num_read += 1
        self.ledger.read[kind or "unreadable"] += 1
        plan = self._plans.get(kind)
        try:
            if plan is None:
                self._read_other(item, place)
                return
            if kind == "Encounter":
                self._require_indexed(item)
            fields = item.fields or {}
            names = tuple(fields)
            shape = plan.shapes.get(names) or plan.shape(names)
            digest = self._claim(item, fields.get("id"))
            block = self._open.get(shape)
            if block is None or block.scope is not item.scope or len(block.places) >= _MAX_BLOCK:
                block = self._new_block(item, plan, shape)
            block.add(fields, place, digest)
        except FAILURES as failure:
            self._note_failure(place, kind, failure)
            return
        self._num_open += 1
        if self._num_open >= _MAX_OPEN:
            self._read_blocks()

    def _new_block(self, item: Item, plan: Plan, shape: Shape) -> Block:
        """A block for an item's shape in the place of the one that is full or of another bundle, which is read."""
        if (block := self._open.get(shape)) is not None:
            self._blocks.read(block)
        block = self._open[shape] = Block(plan, shape, item.scope)
        return block

    def _read_blocks(self) -> None:
        for block in self._open.values():
            self._blocks.read(block)
        self._open.clear()
        self._num_open = 0

    def _note_failure(self, place: Place, kind: str, failure: Failure) -> None:
        rule, reason = "malformed-resource", str(failure)
        if isinstance(failure, RejectedError):
            rule, reason = failure.rule, failure.reason
        elif isinstance(failure, orjson.JSONDecodeError):
            rule, reason = "malformed-json", "a number must be one that a computer can hold"
        number, file, line = place
        self._rejects.append((number, Reject(file, line, kind, rule, reason)))

    def _read_other(self, item: Item, place: Place) -> None:
        """Takes what is no event: a patient, an actor, or what is not carried."""
        kind = item.kind
        if item.fault is not None:
            raise RejectedError(item.fault.rule, item.fault.reason)
        if kind == "":
            raise RejectedError("unknown-type", "resourceType must name a FHIR R4 resource type")
        if kind in INDEXED:
            self._require_indexed(item)
        # A Patient of whom nothing but a name is known gives no row, nor does one that another replaced.
        is_carried = self._patient(item, place[0]) if kind == "Patient" else kind in ACTORS and self._actor(item)
        (self.ledger.carried if is_carried else self.ledger.not_carried)[kind] += 1

    def _require_indexed(self, item: Item) -> None:
        if self.index.files is not None and item.file not in self.index.files:
            raise IncompleteIndexError(item.file)

    def _claim(self, item: Item, raw: Raw | None) -> bytes:
        """The digest of an item's type and id, which nothing before it may have had; `raw` is its element id."""
        digests = self._digests.get(item.kind)
        if digests is None:
            digests = self._digests[item.kind] = self.pseudonyms.event_digests(item.kind)
        digest = digests(_id_of(item, raw))
        if digest in self.claims.ids:
            raise RejectedError("duplicate-id", "type and id must be unique: the first of them was taken")
        self.claims.ids.add(digest)
        return digest

    def _patient(self, item: Item, number: int) -> bool:
        """Takes the facts of a Patient; False if there are none, or another Patient stands for it."""
        resource = item.parsed()
        self._claim(item, (item.fields or {}).get("id"))
        name = item_id(item) or ""
        subject = self._subjects.of_patient(name)
        if name in self.index.replaced:
            self.ledger.flags["replaced-patient"] += 1
            return False
        if subject.id in self.claims.persons:
            reason = "another Patient has the same medical record number: its events were joined, its person facts not"
            raise RejectedError("duplicate-person", reason)
        draft = Draft("Patient", self.index, item.scope, self.pseudonyms, subject.shift)
        facts = patient_facts(resource, draft)
        if facts:
            self.claims.persons.add(subject.id)
        self._blocks.hit.append(Given(left=tuple(draft.left), flags=tuple(draft.flags), hits=1))
        batch = self._blocks.batch
        for code, moment in facts:
            batch.rows.append(self._memory.templates.add(Row(code)))
            time = micros_of(moment.time) if moment is not None else NO_TIME
            precision = moment.precision if moment is not None else None
            row = (number, subject.id, time, NO_TIME, precision, None, "Patient", None, None, 0, 1)
            batch.add(*([each] for each in row))
        return bool(facts)

    def _actor(self, item: Item) -> bool:
        """Counts what of an actor is left behind; its codes are in the index."""
        draft = Draft(item.kind, self.index, item.scope, self.pseudonyms, timedelta(0))
        draft.leave_all(item.fields or {}, actor_elements(item.kind), item.kind)
        self._blocks.hit.append(Given(left=tuple(draft.left), hits=1))
        return (item.kind, item_id(item)) in self.index.actors


def _id_of(item: Item, raw: Raw | None) -> bytes:
    """What a resource goes by whose element id is `raw`, in UTF-8."""
    text = bytes(raw) if raw is not None else b"null"
    if _PLAIN_ID.fullmatch(text):
        return text[1:-1]
    name = name_of(item, orjson.loads(text))
    if name is None:
        raise ShapeError(f"{item.kind}.id must be a short text")
    return name.encode()
