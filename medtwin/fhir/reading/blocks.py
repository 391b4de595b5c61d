"""Resources of one shape, read together: a column of texts for every element, looked up as a column.

Every step that a resource goes through is taken by all of a block before the next one. Who fails a step is rejected
for that, and is not there for the steps that follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson
from msgspec import Raw

from medtwin.fhir.codings import ShapeError
from medtwin.fhir.reading.batch import Batch
from medtwin.fhir.reading.details import RejectedError
from medtwin.fhir.reading.memory import NOTHING_GIVEN, Memory
from medtwin.fhir.reading.plans import MAX_MEMO, Detail, Given, Plan, Route, Shape
from medtwin.fhir.reading.source import Fields, Scope, Texts, texts_of
from medtwin.fhir.reading.subjects import NO_VISIT, Subject, Subjects, Visit, read_status
from medtwin.fhir.reading.when import Clock, When

# Where a resource is: its number in the source, its file and its line.
Place = tuple[int, str, int]
Failure = RejectedError | ShapeError | orjson.JSONDecodeError
FAILURES = (RejectedError, ShapeError, orjson.JSONDecodeError)
_NO_ROWS: tuple[int, ...] = ()


@dataclass(slots=True)
class Block:
    """Resources of one type whose elements have the same names in the same order, of one bundle if of any.

    Attributes:
        elements: Those of each as JSON text, in the order of the shape's names, one resource after the other.
        places: Where each is.
        digests: What names each.
    """

    plan: Plan
    shape: Shape
    scope: Scope
    elements: list[Raw] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    def add(self, fields: Fields, place: Place, digest: bytes) -> None:
        """Appends a resource."""
        self.elements.extend(fields.values())
        self.places.append(place)
        self.digests.append(digest)


class _Columns:
    """The columns of those resources of a block that have not failed.

    Attributes:
        texts: The elements of all resources of the block, failed or not, one resource after the other.
        columns: By name; `number` is the place of a resource in the block.
        failures: Place and failure of the others.
    """

    def __init__(self, shape: Shape, texts: list[bytes], columns: dict[str, list[Any]]) -> None:
        self.shape, self.texts, self.columns = shape, texts, columns
        self.failures: list[tuple[Place, Failure]] = []

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["number"])

    def texts_of(self, name: str) -> list[bytes]:
        """The text of an element of each."""
        texts = self.texts[self.shape.places[name] :: len(self.shape.names)]
        numbers = self.columns["number"]
        return texts if len(numbers) == len(texts) else [texts[number] for number in numbers]

    def fields(self, number: int, names: Iterable[str]) -> Texts:
        """Those of these elements that one has."""
        places, start = self.shape.places, self.columns["number"][number] * len(self.shape.names)
        return {name: self.texts[start + places[name]] for name in names if name in places}

    def complete(
        self, name: str, values: list[Any], read: Callable[[int], Any], keys: Sequence[Any] | None = None
    ) -> None:
        """Takes a column; what is None in it is read, and who cannot be read is dropped for it.

        Args:
            name: Of the column.
            values: One of each resource.
            read: Gives that of one resource, by its number.
            keys: Resources with the same key are the same to `read`, which is asked once for them all.
        """
        failed = []
        fresh: dict[Any, Any] = {}
        if None in values:
            for number, value in enumerate(values):
                if value is not None:
                    continue
                known = fresh.get(keys[number]) if keys is not None else None
                if known is None:
                    try:
                        known = read(number)
                    except FAILURES as failure:
                        failed.append(number)
                        self.failures.append((self.columns["places"][number], failure))
                    if keys is not None:
                        fresh[keys[number]] = known
                values[number] = known
        self.columns[name] = values
        if failed:
            gone = frozenset(failed)
            for each, column in self.columns.items():
                self.columns[each] = [value for number, value in enumerate(column) if number not in gone]

    def chosen(self, choice: str | None) -> _Columns:
        """Those that one element dates."""
        if all(when.choice == choice for when in self.columns["when"]):
            return self
        numbers = [number for number, when in enumerate(self.columns["when"]) if when.choice == choice]
        chosen = {name: [column[number] for number in numbers] for name, column in self.columns.items()}
        return _Columns(self.shape, self.texts, chosen)


class BlockReader:
    """Turns blocks into events of a batch.

    Attributes:
        carried: How many resources of each type became events.
        failures: Place, type and failure of the others.
    """

    def __init__(self, memory: Memory, subjects: Subjects) -> None:
        self.memory, self.subjects = memory, subjects
        self.batch = Batch(memory.templates)
        self.carried: Counter[str] = Counter()
        self.failures: list[tuple[Place, str, Failure]] = []
        self.hit: list[Given | Route | Visit] = []
        self._clock = Clock()

    def read(self, block: Block) -> None:
        """Reads a block."""
        plan, places = block.plan, block.places
        columns = _Columns(
            block.shape,
            texts_of(block.elements),
            {"number": list(range(len(places))), "places": places, "digest": block.digests},
        )
        self._read_statuses(columns, block)
        self._read_subjects(columns, block)
        self._read_visits(columns, block)
        self._read_times(columns, block)
        self._read_codes(columns, block)
        self._read_values(columns, block)
        for choice in dict.fromkeys(when.choice for when in columns["when"]):
            part = columns.chosen(choice)
            self._read_rows(part, block, plan.route(block.shape, choice))
            if part is not columns:
                columns.failures += part.failures
        self.failures += [(place, plan.name, failure) for place, failure in columns.failures]

    def _read_statuses(self, columns: _Columns, block: Block) -> None:
        plan = block.plan
        if plan.table.status not in block.shape.places:
            columns.columns["status"] = [None] * len(columns)
            return
        texts = columns.texts_of(plan.table.status)
        found: list[Any] = list(map(plan.statuses.get, texts))
        columns.complete("status", found, lambda number: self._status(plan, texts[number]))

    def _status(self, plan: Plan, text: bytes) -> str | None:
        if text not in plan.statuses:
            if len(plan.statuses) >= MAX_MEMO:
                plan.statuses.clear()
            plan.statuses[text] = read_status(plan, text)
        return plan.statuses[text]

    def _read_subjects(self, columns: _Columns, block: Block) -> None:
        plan, scope = block.plan, block.scope
        is_there = plan.table.subject in block.shape.places
        memo = self.subjects.known(plan, scope)
        texts = columns.texts_of(plan.table.subject) if is_there else None
        found: list[Any] = list(map(memo.get, texts)) if texts is not None else [None] * len(columns)

        def read(number: int) -> Texts:
            return columns.fields(number, (plan.table.subject,))

        columns.complete("subject", found, lambda number: self.subjects.of(plan, read(number), scope), texts)

    def _read_visits(self, columns: _Columns, block: Block) -> None:
        plan, subjects, persons = block.plan, self.subjects, columns["subject"]
        found: list[Any] = [NO_VISIT] * len(columns)
        keys = None
        if plan.encounter in block.shape.places:
            memo = subjects.known_visits(plan, block.scope)
            texts = columns.texts_of(plan.encounter or "")
            keys = [(text, subject.id) for text, (subject, _) in zip(texts, persons, strict=True)]
            found = list(map(memo.get, keys))

        def read(number: int) -> Visit:
            return subjects.visit(plan, keys[number][0] if keys else None, persons[number][0], block.scope)

        columns.complete("visit", found, read, keys)

    def _read_times(self, columns: _Columns, block: Block) -> None:
        plan = block.plan
        subjects, visits = columns["subject"], columns["visit"]
        found: list[Any] = [None] * len(columns)
        # An element of the end makes a period of an instant.
        if plan.instant in block.shape.places and plan.table.end not in block.shape.places:
            found = self._clock.whens(plan, columns.texts_of(plan.instant or ""), [subject for subject, _ in subjects])
        columns.complete(
            "when",
            found,
            lambda number: self._clock.when(
                plan, columns.fields(number, plan.time_names), subjects[number][0], visits[number]
            ),
        )

    def _read_codes(self, columns: _Columns, block: Block) -> None:
        plan, name = block.plan, block.plan.code_names[0]
        found: list[Any] = [None] * len(columns)
        texts = None
        if name in block.shape.places:
            texts = columns.texts_of(name)
            found = list(map(plan.memo(name).get, texts))
        # Without a second element that may say it, equal texts are equal codes.
        keys = texts if self.memory.remembers and len(plan.code_names) == 1 else None
        wanted = (*plan.code_names, "contained")
        columns.complete(
            "what", found, lambda number: self.memory.code(plan, columns.fields(number, wanted), block.scope), keys
        )

    def _read_values(self, columns: _Columns, block: Block) -> None:
        plan, shape = block.plan, block.shape
        found: list[Any] = [None if shape.num_values > 1 else NOTHING_GIVEN] * len(columns)
        texts = None
        if shape.num_values == 1 and shape.value is not None:
            texts = columns.texts_of(shape.value)
            found = list(map(plan.memo(shape.value).get, texts))
        keys = texts if self.memory.remembers else None
        columns.complete(
            "value",
            found,
            lambda number: self.memory.value(shape, plan, texts[number] if texts else None, block.scope),
            keys,
        )

    def _read_rows(self, columns: _Columns, block: Block, route: Route) -> None:
        """Reads the details of resources that one element dates, and appends them all to the batch."""
        plan = block.plan
        negated = self._negated(columns, block)
        columns.columns["negated"] = negated
        names = []
        for number, detail in enumerate(route.details):
            names.append(f"detail {number}")
            self._read_detail(names[-1], detail, columns, block)
        if "component" in block.shape.places and plan.name == "Observation":
            names.append("component")
            self._read_components(columns, block)
        whens, whats, values = columns["when"], columns["what"], columns["value"]
        rows: list[Iterable[tuple[int, ...]]] = [
            [(what.rows[negated],) for what, negated in zip(whats, columns["negated"], strict=True)],
            [_NO_ROWS if when.is_plain else self._guide(plan, when) for when in whens],
            [what.rows[2:] for what in whats],
            [value.rows for value in values],
            *(self._rows_of(columns, name, detail) for name, detail in zip(names, route.details, strict=False)),
        ]
        if "component" in names:
            rows.append([given.rows for given in columns["component"]])
        self._append(columns, plan, rows)
        self._count(columns, plan, route, names)

    def _negated(self, columns: _Columns, block: Block) -> list[bool]:
        negated = block.plan.table.negated
        found = [status in negated for status in columns["status"]]
        if "doNotPerform" in block.shape.places:
            texts = columns.texts_of("doNotPerform")
            found = [is_not or text == b"true" for is_not, text in zip(found, texts, strict=True)]
        return found

    def _read_detail(self, name: str, detail: Detail, columns: _Columns, block: Block) -> None:
        plan, scope, texts = block.plan, block.scope, columns.texts_of(detail.name)
        if detail.refers and scope.full_urls:
            found: list[Any] = [None] * len(texts)
        else:
            found = list(map(detail.memo.get, texts))
            if detail.may_be_dated:
                found = [None if given is not None and given.is_dated else given for given in found]
        subjects = columns["subject"]
        keys: Sequence[Any] | None = texts if self.memory.remembers else None
        if keys is not None and detail.may_be_dated:
            keys = [(text, subject.shift_us) for text, (subject, _) in zip(texts, subjects, strict=True)]
        columns.complete(
            name,
            found,
            lambda number: self.memory.detail(plan, detail, texts[number], subjects[number][0], scope),
            keys,
        )

    def _read_components(self, columns: _Columns, block: Block) -> None:
        texts, subjects, negated = columns.texts_of("component"), columns["subject"], columns["negated"]

        def read(number: int) -> Given:
            subject: Subject = subjects[number][0]
            return self.memory.components(
                block.plan, texts[number], subject, block.scope, negated=bool(negated[number])
            )

        columns.complete("component", [None] * len(texts), read)

    def _rows_of(self, columns: _Columns, name: str, detail: Detail) -> list[tuple[int, ...]]:
        if not detail.is_recorded:
            return [given.rows for given in columns[name]]
        pairs = zip(columns[name], columns["when"], strict=True)
        return [_NO_ROWS if given.recorded == (when.time, when.precision) else given.rows for given, when in pairs]

    def _guide(self, plan: Plan, when: When) -> tuple[int, ...]:
        """The rows that say which element dates an event, and how its end was written."""
        rows = []
        if when.label is not None:
            rows.append(self.memory.mark(plan, "time", when.label))
        if when.end_precision is not None:
            rows.append(self.memory.mark(plan, "endPrecision", text=when.end_precision))
        return tuple(rows)

    def _append(self, columns: _Columns, plan: Plan, rows: list[Iterable[tuple[int, ...]]]) -> None:
        counts = [sum(map(len, each)) for each in zip(*rows, strict=True)]
        self.batch.rows.extend(chain.from_iterable(chain.from_iterable(zip(*rows, strict=True))))
        is_encounter = plan.name == "Encounter"
        encounters = columns["digest"] if is_encounter else [visit.digest for visit in columns["visit"]]
        whens = columns["when"]
        self.batch.add(
            [place[0] for place in columns["places"]],
            [subject.id for subject, _ in columns["subject"]],
            [when.time for when in whens],
            [when.end_time for when in whens],
            [when.precision for when in whens],
            columns["status"],
            [plan.name] * len(whens),
            encounters,
            columns["digest"],
            [value.value for value in columns["value"]],
            counts,
        )

    def _count(self, columns: _Columns, plan: Plan, route: Route, names: list[str]) -> None:
        """Notes what the carried resources were read by."""
        count = len(columns)
        self.carried[plan.name] += count
        if not count:
            return
        _add_hits(self.hit, route, count)
        for when in columns["when"]:
            if when.left or when.flags:
                _add_hits(self.hit, Given(left=when.left, flags=when.flags), 1)
        used = [columns[name] for name in ("visit", "what", "value", *names)]
        rests = [rest for _, rest in columns["subject"]]
        for given, hits in Counter(chain(rests, *used)).items():
            if given.left or given.flags:
                _add_hits(self.hit, given, hits)


def _add_hits(hit: list[Given | Route | Visit], given: Given | Route | Visit, count: int) -> None:
    if not given.hits:
        hit.append(given)
    given.hits += count
