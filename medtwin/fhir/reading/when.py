"""When a resource was: by the first of its table's elements that says so, moved with its subject."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from medtwin.fhir.codings import ShapeError, as_list, as_object, as_text
from medtwin.fhir.reading.batch import NO_TIME
from medtwin.fhir.reading.details import RejectedError, bad_date
from medtwin.fhir.reading.plans import Plan, TimeChoice
from medtwin.fhir.reading.source import Texts
from medtwin.fhir.reading.subjects import Subject, Visit
from medtwin.fhir.terms import ELEMENT_NAMES
from medtwin.fhir.times import INSTANTS, BadDateError, join_period, micros_of, moment_of

# Microseconds since 1970, and the precision.
Instant = tuple[int, str]
_NULL = b"null"
_QUOTE = ord('"')
# A period of two instants and nothing else, in either order.
_TEXT = rb'("[^"\\]*")'
_PLAIN_PERIOD = re.compile(rb'\{"(start|end)": ?%s, ?"(start|end)": ?%s\}' % (_TEXT, _TEXT))


class When(NamedTuple):
    """When it was.

    Attributes:
        end_precision: Of an end that differs from that of the start.
        choice: The element that says it; None: nothing does.
        label: The same, where it is not the element that is implied.
        left: Paths that are not carried.
    """

    time: int
    end_time: int
    precision: str | None
    end_precision: str | None
    choice: str | None
    label: str | None
    left: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether its choice and its end are what is implied."""
        return self.label is None and self.end_precision is None


# What a NamedTuple does, at a third of the time.
_new_when = tuple.__new__


class Clock:
    """Reads the times of resources."""

    def __init__(self) -> None:
        self._parts = INSTANTS

    def whens(self, plan: Plan, texts: Sequence[bytes], subjects: Sequence[Subject]) -> list[When | None]:
        """When resources were that the best of their elements dates; None: `when` tells.

        Args:
            plan: Of their type.
            texts: Of `plan.instant`, (resources,).
            subjects: (resources,).
        """
        read, name = self._parts.read, plan.times[0].name
        found: list[When | None] = []
        for text, subject in zip(texts, subjects, strict=True):
            when = None
            if text[0] == _QUOTE:
                try:
                    time, precision = read(text)
                    if precision[0] not in "ym" and precision != "second":
                        when = _new_when(When, (time + subject.shift_us, NO_TIME, precision, None, name, None, (), ()))
                except BadDateError:
                    pass
            found.append(when)
        return found

    def when(self, plan: Plan, fields: Texts, subject: Subject, visit: Visit) -> When:
        """When a resource was.

        Raises:
            RejectedError: If nothing dates it, a date is none, or it ends before it starts.
            ShapeError: If an element is malformed.
        """
        left: list[str] = []
        for choice in plan.times:
            if choice.top not in fields and not choice.is_borrowed:
                continue
            start, end = self._moments(choice, fields, visit, left)
            if start is not None:
                break
        else:
            return _undated(plan, left)
        if plan.table.end is not None:
            if end is not None:
                left.append(f"{choice.path}.end")
            raw = fields.get(plan.table.end)
            end = self._instant(raw, f"{plan.name}.{plan.table.end}") if raw is not None else None
        time = _moved(start, subject)
        end_time, end_precision = _joined(start, end, subject, plan.name) if end is not None else (NO_TIME, None)
        label = choice.name
        if choice.is_borrowed:
            # An encounter that has not ended lends its start.
            is_end = label == "@encounter-end" and visit.period is not None and visit.period.end is not None
            label = "encounter-end" if is_end else "encounter-start"
        return When(
            time,
            end_time,
            start[1],
            end_precision,
            choice.name,
            None if label == plan.implied[end is not None] else label.replace("*", ""),
            tuple(left),
            ("instant-without-offset",) if start[1] == "second" else (),
        )

    def _instant(self, text: bytes, path: str) -> Instant | None:
        """The instant of an element; None for null."""
        if text == _NULL:
            return None
        if text[0] != _QUOTE:
            raise ShapeError(f"{path} must be a string")
        try:
            return self._parts.read(text)
        except BadDateError:
            raise bad_date(path) from None

    def _moments(
        self, choice: TimeChoice, fields: Texts, visit: Visit, left: list[str]
    ) -> tuple[Instant | None, Instant | None]:
        """Start and end by one element, or by the encounter's."""
        if choice.is_borrowed:
            return _borrowed(choice, visit), None
        text = fields.get(choice.top)
        if text is None:
            return None, None
        if not choice.steps and not choice.is_period:
            return self._instant(text, choice.path), None
        plain = _PLAIN_PERIOD.fullmatch(text) if not choice.steps else None
        if plain is not None and plain[1] != plain[3]:
            start, end = (plain[2], plain[4]) if plain[1] == b"start" else (plain[4], plain[2])
            return self._instant(start, f"{choice.path}.start"), self._instant(end, f"{choice.path}.end")
        value = orjson.loads(text)
        for name, _ in choice.steps:
            if value is None:
                return None, None
            value = as_object(value, choice.path).get(name)
        if value is None:
            return None, None
        if choice.is_period:
            return self._period(value, choice.path, left)
        if choice.steps[-1][1]:
            found = [self._instant_of(each, choice.path) for each in as_list(value, choice.path) if each is not None]
            return (min(found), max(found) if len(found) > 1 else None) if found else (None, None)
        return self._instant_of(value, choice.path), None

    def _instant_of(self, value: Any, path: str) -> Instant:
        try:
            return self._parts.read(orjson.dumps(as_text(value, path)))
        except BadDateError:
            raise bad_date(path) from None

    def _period(self, value: Any, path: str, left: list[str]) -> tuple[Instant | None, Instant | None]:
        moments = []
        for name in ("start", "end"):
            text = as_object(value, path).get(name)
            moments.append(self._instant_of(text, f"{path}.{name}") if text is not None else None)
        if moments[0] is not None:
            for name in value:
                if name not in ("start", "end"):
                    left.append(f"{path}.{name if name.lstrip('_') in ELEMENT_NAMES else '?'}")
        return moments[0], moments[1]


def _undated(plan: Plan, left: list[str]) -> When:
    if not plan.table.may_be_undated:
        names = " or ".join(choice.replace("@encounter-", "the encounter's ") for choice in plan.table.times)
        raise RejectedError("no-time", f"{plan.name} must be dated by {names}")
    return When(NO_TIME, NO_TIME, None, None, None, None, tuple(left), (f"undated-{plan.name}",))


def _borrowed(choice: TimeChoice, visit: Visit) -> Instant | None:
    period = visit.period
    if period is None:
        return None
    moment = (period.end if choice.name == "@encounter-end" else None) or period.start
    return (micros_of(moment.time), moment.precision) if moment is not None else None


def _moved(instant: Instant, subject: Subject) -> int:
    micros, precision = instant
    if precision[0] in "ym":  # a year or a month stays at its first day
        return micros_of(moment_of(micros, precision).moved(subject.shift).time)
    return micros + subject.shift_us


def _joined(start: Instant, end: Instant, subject: Subject, kind: str) -> tuple[int, str | None]:
    """The moved end of a period, and its precision where it is not that of the start."""
    first, last = _moved(start, subject), _moved(end, subject)
    if last >= first:
        return last, None if end[1] == start[1] else end[1]
    try:
        time, precision = join_period(moment_of(first, start[1]), moment_of(last, end[1]))
    except BadDateError:
        raise RejectedError("ends-before-start", f"{kind} must not end before it starts") from None
    return micros_of(time), precision
