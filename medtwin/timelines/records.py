"""Generated timelines as events: ids, encounters, child rows and links, in the form of the dataset directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event
from medtwin.timelines.attributes import MINUTES_PER_YEAR
from medtwin.timelines.generate import STATIC, Timeline
from medtwin.timelines.spec import UNKNOWN_SEX, TimelineSpec
from medtwin.timelines.templates import Template
from medtwin.timelines.vocabulary import Token

_EPOCH = datetime(1970, 1, 1)
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


@dataclass
class _Record:
    """A twin's record while it is written."""

    subject_id: int
    events: list[Event] = field(default_factory=list)
    encounters: list[tuple[datetime, datetime | None, str]] = field(default_factory=list)
    latest: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def new_id(self) -> str:
        """The id of the next event."""
        self.number += 1
        return twin_event_id(self.subject_id, self.number)

    def encounter_at(self, time: datetime | None) -> str | None:
        """The encounter that is open at a time: of several the one that began last."""
        if time is None:
            return None
        open_ones = [e for e in self.encounters if e[0] <= time and time <= (e[1] or e[0])]
        return max(open_ones)[2] if open_ones else None


def timeline_to_events(timeline: Timeline, spec: TimelineSpec, subject_id: int) -> list[Event]:
    """The rows of a twin's record, each event before its children; not sorted by time.

    What lasts ends at death at the latest. An event dated to the day stands at midnight; a death dated to the day
    stands at the midnight after, so that nothing of that day follows it.
    """
    record = _Record(subject_id)
    record.events += _person(timeline, spec, subject_id)
    death = _death(timeline, spec)
    current: Event | None = None
    num_components = 0
    for token_index, minute, value in zip(timeline.tokens, timeline.minutes, timeline.values, strict=True):
        token, template = spec.vocabulary.tokens[token_index], spec.templates[token_index]
        if token.parent is None:
            if token.number == "ago" and value == value:
                minute = timeline.attributes.start_minute - round(value)
            time = None if minute == STATIC else _EPOCH + timedelta(minutes=minute)
            current = _event(record, token, template, time, value, death)
            num_components = 0
            record.events += [current, *_children(record, current, template, value)]
            if current.event_id is not None:
                record.latest[token.code] = current.event_id
        elif current is not None and token.is_component:
            num_components += 1
            component = replace(
                current,
                code=token.code,
                numeric_value=_number(token, value),
                text_value=token.text,
                unit=token.unit,
                event_id=f"{current.event_id}.{num_components}",
                parent_id=current.event_id,
                end_time=None,
                source_code=template.source_code,
            )
            record.events += [component, *_children(record, component, template, value)]
        elif current is not None and current.event_id is not None:
            record.events.append(_child(current, token.code, token.text))
    return record.events


def _person(timeline: Timeline, spec: TimelineSpec, subject_id: int) -> Iterator[Event]:
    given = timeline.attributes
    sex = spec.attributes.sexes[given.sex]
    if sex != UNKNOWN_SEX:
        yield Event(subject_id, None, sex, resource="Patient")
    if given.age_start_years == given.age_start_years:  # not nan
        minutes = given.start_minute - given.age_start_years * MINUTES_PER_YEAR
        birth = _EPOCH + timedelta(minutes=round(minutes))
        day = datetime(birth.year, birth.month, birth.day)
        yield Event(subject_id, day, BIRTH, time_precision="day", resource="Patient")


def _death(timeline: Timeline, spec: TimelineSpec) -> datetime | None:
    for token_index, minute in zip(timeline.tokens, timeline.minutes, strict=True):
        if spec.vocabulary.tokens[token_index].code == DEATH and minute != STATIC:
            return _dated(_EPOCH + timedelta(minutes=minute), spec.templates[token_index].time_precision, is_death=True)
    return None


def _dated(time: datetime, precision: str | None, *, is_death: bool = False) -> datetime:
    """The time as its precision writes it."""
    if precision not in _COARSE:
        return time
    if is_death:
        return time if time.time() == datetime.min.time() else _dated(time, "day") + timedelta(days=1)
    month = time.month if precision != "year" else 1
    return datetime(time.year, month, time.day if precision == "day" else 1)


def _event(
    record: _Record, token: Token, template: Template, time: datetime | None, value: float, death: datetime | None
) -> Event:
    end = None
    if time is not None:
        time = _dated(time, template.time_precision, is_death=token.code == DEATH)
        if token.number == "duration" and value == value:
            end = _dated(time + timedelta(minutes=value), template.time_precision)
            end = max(time, end if death is None else min(end, death))
    event_id = record.new_id() if template.has_id else None
    if token.type == "Encounter" and event_id is not None and time is not None:
        record.encounters.append((time, end, event_id))
        encounter: str | None = event_id
    else:
        encounter = record.encounter_at(time) if template.in_encounter else None
    return Event(
        record.subject_id,
        time,
        token.code,
        numeric_value=_number(token, value),
        text_value=token.text,
        unit=token.unit,
        encounter_id=encounter,
        event_id=event_id,
        end_time=end,
        status=template.status,
        time_precision=template.time_precision if time is not None else None,
        source_code=template.source_code,
        resource=token.resource or None,
    )


def _number(token: Token, value: float) -> float | None:
    return value if token.number == "numeric" and value == value else None


def _child(
    event: Event, code: str, text: str | None = None, number: float | None = None, unit: str | None = None
) -> Event:
    return replace(
        event,
        code=code,
        numeric_value=number,
        text_value=text,
        unit=unit,
        event_id=None,
        parent_id=event.event_id,
        end_time=None,
        source_code=None,
    )


def _children(record: _Record, event: Event, template: Template, value: float) -> Iterator[Event]:
    """The child rows of the template, its links, and the interpretation of the value."""
    if event.event_id is None:
        return
    if (code := template.interpretation(value)) is not None and value == value:
        yield _child(event, code)
    for code, text, number, unit in template.children:
        yield _child(event, code, text, number, unit)
    for code, target in template.links:
        if target in record.latest:
            yield _child(event, code, record.latest[target])
