"""Generated timelines as events: ids, encounters, child rows and links, in the form of the dataset directory."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import EVENT_SCHEMA, Event
from medtwin.timelines.generation.generate import STATIC, Timeline
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.spec import UNKNOWN_SEX, TimelineSpec
from medtwin.timelines.reading.templates import Template
from medtwin.timelines.reading.vocabulary import Token

Row = tuple[Any, ...]
"""One row of the event table, the columns in the order of `EVENT_SCHEMA`."""

_EPOCH = datetime(1970, 1, 1)
_MIDNIGHT = datetime.min.time()
_COARSE = ("day", "month", "year")


def twin_subject_id(run: str, seed: int, index: int) -> int:
    """A positive 63-bit integer for a twin, the same for the same run, seed and number; no two runs share any.

    Args:
        run: Manifest hash of the run.
        seed: Of the generation.
        index: Number of the twin.
    """
    digest = hashlib.blake2b(f"{run}\x1f{seed}\x1f{index}".encode(), person=b"medtwin-twin", digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def twin_event_id(subject_id: int, number: int) -> str:
    """A FHIR id in the form of a UUID that begins with a letter, for an event of a twin."""
    digits = hashlib.blake2b(f"{subject_id}\x1f{number}".encode(), person=b"medtwin-event", digest_size=16).hexdigest()
    return f"a{digits[1:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True)
class Known:
    """What a record says already where it is continued.

    Attributes:
        events: Of the record so far, under the ids that they will have.
        num_ids: Ids of events that were given out.
    """

    events: Sequence[Event] = ()
    num_ids: int = 0


@dataclass(frozen=True, slots=True)
class _Link:
    """A reference of an event to another, whose row waits at a place until its step is written.

    Attributes:
        event, code, target: The row of the event, the code of the reference, and that of what it refers to.
        number: Events of the same code before it in the step.
    """

    place: int
    event: Row
    code: str
    target: str
    number: int


@dataclass(slots=True)
class _Record:
    """A twin's record while it is written."""

    subject_id: int
    death: datetime | None
    number: int
    rows: list[Row | None] = field(default_factory=list)
    encounters: list[tuple[datetime, datetime, str]] = field(default_factory=list)
    latest: dict[str, str] = field(default_factory=dict)
    now: dict[str, list[str]] = field(default_factory=dict)
    waiting: list[_Link] = field(default_factory=list)
    open_at: tuple[datetime | None, str | None] = (None, None)

    def end_step(self) -> None:
        """Links what was said: the second report to the second study of the same step, else to the latest before."""
        for link in self.waiting:
            together = self.now.get(link.target)
            target = together[min(link.number, len(together) - 1)] if together else self.latest.get(link.target)
            if target is not None:
                self.rows[link.place] = _child(link.event, link.code, target)
        self.waiting.clear()
        self.latest.update((code, ids[-1]) for code, ids in self.now.items())
        self.now.clear()

    def new_id(self) -> str:
        """The id of the next event."""
        self.number += 1
        return twin_event_id(self.subject_id, self.number)

    def begin(self, start: datetime, end: datetime | None, event_id: str) -> None:
        """Notes an encounter."""
        insort(self.encounters, (start, end or start, event_id))
        self.open_at = (None, None)

    def encounter_at(self, time: datetime) -> str | None:
        """The encounter that is open at a time: of several the one that began last."""
        if self.open_at[0] != time:
            open_ones = (name for start, end, name in reversed(self.encounters) if start <= time <= end)
            self.open_at = (time, next(open_ones, None))
        return self.open_at[1]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A token with its template, as writing needs them."""

    token: Token
    template: Template
    is_encounter: bool
    is_death: bool
    is_coarse: bool

    @classmethod
    def of(cls, token: Token, template: Template) -> _Kind:
        is_coarse = template.time_precision in _COARSE
        return cls(token, template, token.type == "Encounter", token.code == DEATH, is_coarse)


class RecordWriter:
    """Writes timelines as rows of the event table.

    Args:
        spec: Of the run.
    """

    def __init__(self, spec: TimelineSpec) -> None:
        self._spec = spec
        self._kinds = [_Kind.of(*pair) for pair in zip(spec.vocabulary.tokens, spec.templates, strict=True)]

    def rows(self, timeline: Timeline, subject_id: int, known: Known | None = None) -> list[Row]:
        """The rows of a twin's record, each event before its children; not sorted by time.

        What lasts ends at death at the latest. An event dated to the day stands at midnight; a death dated to the day
        stands at the midnight after, so that nothing of that day follows it.

        Args:
            timeline: What is to be written.
            subject_id: Of the twin.
            known: What stands before it; then neither sex nor birth is written.
        """
        record = _Record(subject_id, self._death(timeline), 0 if known is None else known.num_ids)
        rows = record.rows
        if known is None:
            rows += self._person(timeline, subject_id)
        else:
            _remember(record, known)
        start, kinds = timeline.attributes.start_minute, self._kinds
        current: Row = ()
        num_components, last_step = 0, 0
        parts = (timeline.steps, timeline.tokens, timeline.minutes, timeline.values)
        for step, index, minute, value in zip(*parts, strict=True):
            if step != last_step:
                record.end_step()
                last_step = step
            kind = kinds[index]
            token = kind.token
            if token.parent is None:
                if token.number == "ago" and value == value:
                    minute = start - round(value)
                time = None if minute == STATIC else _EPOCH + timedelta(minutes=minute)
                current = _event(record, kind, time, value)
                num_components = 0
                rows.append(current)
                if current[_EVENT_ID] is not None:
                    _add_children(record, current, kind, value)
                    record.now.setdefault(token.code, []).append(current[_EVENT_ID])
            elif current and current[_EVENT_ID] is not None:
                if token.is_component:
                    num_components += 1
                    component = _component(current, kind, value, num_components)
                    rows.append(component)
                    _add_children(record, component, kind, value)
                else:
                    rows.append(_child(current, token.code, token.text))
        record.end_step()
        return [row for row in rows if row is not None]

    def _person(self, timeline: Timeline, subject_id: int) -> Iterator[Row]:
        given = timeline.attributes
        sex = self._spec.profile.sexes[given.sex]
        if sex != UNKNOWN_SEX:
            yield _row(Event(subject_id, None, sex, resource="Patient"))
        if given.age_start_years == given.age_start_years:  # not nan
            minutes = given.start_minute - given.age_start_years * MINUTES_PER_YEAR
            birth = _EPOCH + timedelta(minutes=round(minutes))
            day = datetime(birth.year, birth.month, birth.day)
            yield _row(Event(subject_id, day, BIRTH, time_precision="day", resource="Patient"))

    def _death(self, timeline: Timeline) -> datetime | None:
        for index, minute in zip(timeline.tokens, timeline.minutes, strict=True):
            if self._kinds[index].is_death and minute != STATIC:
                precision = self._kinds[index].template.time_precision
                return _dated(_EPOCH + timedelta(minutes=minute), precision, is_death=True)
        return None


def timeline_to_events(timeline: Timeline, spec: TimelineSpec, subject_id: int) -> list[Event]:
    """The rows of one twin's record as events; see `RecordWriter.rows`, which is faster for many."""
    return [Event(*row) for row in RecordWriter(spec).rows(timeline, subject_id)]


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """The event table of some rows, in the order given."""
    columns = zip(*rows, strict=True) if rows else [()] * len(EVENT_SCHEMA)
    arrays = [pa.array(column, field.type) for field, column in zip(EVENT_SCHEMA, columns, strict=True)]
    return pa.table(arrays, schema=EVENT_SCHEMA)


# Places in a row.
_ENCOUNTER_ID, _EVENT_ID, _PARENT_ID = (
    EVENT_SCHEMA.get_field_index(f"{name}_id") for name in ("encounter", "event", "parent")
)


def _row(event: Event) -> Row:
    return tuple(getattr(event, name) for name in EVENT_SCHEMA.names)


def _remember(record: _Record, known: Known) -> None:
    for event in known.events:
        if event.event_id is None or event.parent_id is not None:
            continue
        record.latest[event.code] = event.event_id
        if event.resource == "Encounter" and event.time is not None:
            record.begin(event.time, event.end_time, event.event_id)


def _dated(time: datetime, precision: str | None, *, is_death: bool = False) -> datetime:
    """The time as its precision writes it."""
    if precision not in _COARSE:
        return time
    if is_death:
        return time if time.time() == _MIDNIGHT else _dated(time, "day") + timedelta(days=1)
    month = time.month if precision != "year" else 1
    return datetime(time.year, month, time.day if precision == "day" else 1)


def _event(record: _Record, kind: _Kind, time: datetime | None, value: float) -> Row:
    token, template = kind.token, kind.template
    end = encounter = None
    if time is not None:
        if kind.is_coarse:
            time = _dated(time, template.time_precision, is_death=kind.is_death)
        if token.number == "duration" and value == value:
            end = _dated(time + timedelta(minutes=value), template.time_precision)
            end = max(time, end if record.death is None else min(end, record.death))
    event_id = record.new_id() if template.has_id else None
    if time is not None:
        if kind.is_encounter and event_id is not None:
            record.begin(time, end, event_id)
            encounter = event_id
        elif template.in_encounter:
            encounter = record.encounter_at(time)
    return (
        record.subject_id,
        time,
        token.code,
        value if token.number == "numeric" and value == value else None,
        token.text,
        token.unit,
        encounter,
        event_id,
        None,
        end,
        template.status,
        template.time_precision if time is not None else None,
        template.source_code,
        None,
        token.resource or None,
    )


def _component(event: Row, kind: _Kind, value: float, number: int) -> Row:
    subject, time, _, _, _, _, encounter, event_id, _, _, status, precision, _, source_unit, resource = event
    token = kind.token
    numeric = value if token.number == "numeric" and value == value else None
    own, source = f"{event_id}.{number}", kind.template.source_code
    said = (token.code, numeric, token.text, token.unit)
    return (subject, time, *said, encounter, own, event_id, None, status, precision, source, source_unit, resource)


def _child(event: Row, code: str, text: str | None = None, number: float | None = None, unit: str | None = None) -> Row:
    subject, time, _, _, _, _, encounter, event_id, _, _, status, precision, _, source_unit, resource = event
    said = (code, number, text, unit)
    return (subject, time, *said, encounter, None, event_id, None, status, precision, None, source_unit, resource)


def _add_children(record: _Record, event: Row, kind: _Kind, value: float) -> None:
    """The child rows of the template, its links, and the interpretation of the value, of an event that bears an id."""
    template, rows = kind.template, record.rows
    if template.interprets and value == value and (code := template.interpretation(value)) is not None:
        rows.append(_child(event, code))
    rows += (_child(event, code, text, number, unit) for code, text, number, unit in template.children)
    for code, target in template.links:
        record.waiting.append(_Link(len(rows), event, code, target, len(record.now.get(kind.token.code, ()))))
        rows.append(None)


__all__ = [
    "Known",
    "RecordWriter",
    "rows_to_table",
    "timeline_to_events",
    "twin_event_id",
    "twin_subject_id",
]
