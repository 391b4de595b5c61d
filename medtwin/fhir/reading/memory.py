"""What elements give, worked out once for each text: `Given` by the element tables, remembered while there is room."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import orjson

from medtwin.core.codes import NEGATED_PREFIX, preferred
from medtwin.core.events import child_code
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir.codings import joined
from medtwin.fhir.reading.batch import Row, Templates
from medtwin.fhir.reading.components import read_components
from medtwin.fhir.reading.details import Draft, RejectedError, read_element, walk
from medtwin.fhir.reading.index import FhirIndex
from medtwin.fhir.reading.plans import MAX_MEMO, Detail, Given, Memo, Plan, Shape
from medtwin.fhir.reading.source import Scope, Texts, fields_of
from medtwin.fhir.reading.subjects import Subject
from medtwin.fhir.reading.values import read_value
from medtwin.fhir.reading.what import first_coded, read_what

_NULL, _LIST = b"null", ord("[")
# A reference to one thing by its type and id, alone or in a list.
_PLAIN_REFERENCE = re.compile(rb'\[?\{"reference": ?"([A-Z][A-Za-z]{1,40})/([A-Za-z0-9\-.]{1,64})"\}\]?')
NOTHING_GIVEN = Given()
_NO_SHIFT = timedelta(0)
_NOWHERE = Scope()
# Where these are given, the other element that could say it does not count.
_ALONE = frozenset({"medicationCodeableConcept"})


class Memory:
    """Reads elements, and remembers what they gave.

    Attributes:
        templates: The rows that they gave.
        remembers: Whether it does; what it gives is the same.
    """

    def __init__(self, index: FhirIndex, pseudonyms: Pseudonyms, *, remembers: bool = True) -> None:
        self.index, self.pseudonyms, self.remembers = index, pseudonyms, remembers
        self.templates = Templates()
        self._generation = 0

    def forget(self, plans: dict[str, Plan]) -> None:
        """Starts with new templates: what was remembered of the old ones is void."""
        self.templates = Templates()
        self._generation += 1
        for plan in plans.values():
            for memo in plan.memos.values():
                memo.clear()

    def _draft(self, kind: str, subject: Subject | None, scope: Scope) -> Draft:
        return Draft(kind, self.index, scope, self.pseudonyms, subject.shift if subject is not None else _NO_SHIFT)

    def _keep(self, memo: Memo, key: Any, given: Given) -> Given:
        if self.remembers:
            if len(memo) >= MAX_MEMO:
                memo.clear()
            memo[key] = given
        return given

    def _given(self, draft: Draft, rows: list[Row], **more: Any) -> Given:
        return Given(tuple([self.templates.add(row) for row in rows]), tuple(draft.left), tuple(draft.flags), **more)

    def code(self, plan: Plan, fields: Texts, scope: Scope) -> Given:
        """What happened: `rows` are the event's, the same negated, and those that detail it.

        Raises:
            RejectedError: If no coding says it.
            ShapeError: If an element is malformed.
        """
        for name in plan.code_names:
            text: Any = fields.get(name, _NULL)
            if text == _NULL:
                continue
            if name == "medicationReference" and "contained" in fields:
                text = text, fields["contained"]
            given = self._code(plan, name, text, scope)
            if given.codes or name in _ALONE:
                break
        else:
            given = NOTHING_GIVEN
        if not given.codes:
            path = f"{plan.name}.{plan.table.code.rstrip('*')}"
            reason = f"{path} must have a coding, its code of at most 64 characters: text alone is not carried"
            raise RejectedError("no-coding", reason)
        return given

    def _code(self, plan: Plan, name: str, text: Any, scope: Scope) -> Given:
        is_scoped = bool(scope.full_urls) and name == "medicationReference"
        memo: Memo = scope.memo if is_scoped else plan.memo(name)
        key = (self._generation, plan.name, name, text) if is_scoped else text
        given = memo.get(key)
        if given is not None:
            return given
        draft = self._draft(plan.name, None, scope)
        value, contained = (text[0], orjson.loads(text[1])) if isinstance(text, tuple) else (text, None)
        what = read_what(name, orjson.loads(value), plan.table, draft, contained)
        if not what.codes:
            return Given(codes=(), left=tuple(draft.left))
        code, source = preferred(what.codes), joined(what.codes)
        for path, coded, values in what.details:
            draft.add(path, coded, **values)
        rows = [Row(code, source_code=source), Row(NEGATED_PREFIX + code, source_code=source), *draft.rows]
        return self._keep(memo, key, self._given(draft, rows, codes=tuple(what.codes)))

    def value(self, shape: Shape, plan: Plan, text: bytes | None, scope: Scope) -> Given:
        """The value of an Observation: `value` is its template, `rows` say what that cannot.

        Args:
            shape: Of the resource.
            plan: Of its type.
            text: Of its one value[x]; None: there is none, or several.
            scope: Its bundle.

        Raises:
            ShapeError: If it is malformed, or there are several.
        """
        if text is None or shape.value is None:
            if shape.num_values > 1:
                read_value(dict.fromkeys(shape.names), plan.name, self._draft(plan.name, None, scope))
            return NOTHING_GIVEN
        memo = plan.memo(shape.value)
        given = memo.get(text)
        if given is None:
            draft = self._draft(plan.name, None, scope)
            columns, details = read_value({shape.value: orjson.loads(text)}, plan.name, draft)
            for path, coded, values in details:
                draft.add(path, coded, **values)
            value = self.templates.add(Row(**columns)) if columns else 0
            given = self._keep(memo, text, self._given(draft, draft.rows, value=value))
        return given

    def detail(self, plan: Plan, detail: Detail, text: bytes, subject: Subject, scope: Scope) -> Given:
        """The child rows of an element.

        Raises:
            RejectedError, ShapeError: If it is malformed.
        """
        is_scoped = detail.refers and bool(scope.full_urls)
        memo: Memo = scope.memo if is_scoped else detail.memo
        key: Any = (self._generation, detail.place, detail.name, detail.known, text) if is_scoped else text
        given = memo.get(key)
        if given is not None and given.is_dated:
            given = memo.get((key, subject.shift_us))
        if given is not None:
            return given
        plain = _PLAIN_REFERENCE.fullmatch(text) if detail.targets and not is_scoped else None
        if plain is not None and (text[0] == _LIST) == (detail.leaf is None):
            return self._keep(memo, key, self._referred(plan, detail, plain))
        draft = self._draft(plan.name, subject, scope)
        if detail.parts is not None and text != _NULL:
            return self._keep_dated(memo, key, draft, subject, self._parts(plan, detail, text, (subject, scope, draft)))
        value = orjson.loads(text)
        if detail.leaf is not None:
            if value is not None:
                element, row = detail.leaf
                read_element(draft, element, value, (row, f"{detail.place[1]}.{detail.name}"), {detail.name: value})
            return self._keep_dated(memo, key, draft, subject, ())
        if plan.table.code in (f"{detail.name}*", detail.name) and value is not None:
            main = first_coded(detail.name, value, plan.table)
            draft.main = (f"{plan.name}.{detail.name}", main[0]) if main is not None else None
        walk(draft, detail.root, {detail.name: value}, detail.place, detail.known)
        return self._keep_dated(memo, key, draft, subject, ())

    def _referred(self, plan: Plan, detail: Detail, plain: re.Match[bytes]) -> Given:
        """What a relative reference to another event gives; as `read_element`, of which it is a short cut."""
        kind = plain[1].decode()
        if kind not in detail.targets:
            return Given(left=(f"{detail.place[1]}.{detail.name}",))
        code, name = child_code(plan.name, detail.row, None), plain[2].decode()
        return Given((self.templates.add(Row(code, text_value=self.pseudonyms.event_id(kind, name))),))

    def _parts(self, plan: Plan, detail: Detail, text: bytes, about: tuple[Subject, Scope, Draft]) -> tuple[int, ...]:
        """The rows of the elements of a structure; what they leave behind goes to the draft."""
        subject, scope, draft = about
        path = f"{detail.place[1]}.{detail.name}"
        rows: tuple[int, ...] = ()
        for name, raw in fields_of(text, path).items():
            part = (detail.parts or {}).get(name)
            if part is None:
                if f"{path}.{name}" not in detail.known:
                    draft.leave(path, name)
                continue
            given = self.detail(plan, part, bytes(raw), subject, scope)
            draft.is_dated = draft.is_dated or given.of_subject
            draft.left += given.left
            draft.flags += given.flags
            rows += given.rows
        return rows

    def _keep_dated(self, memo: Memo, key: Any, draft: Draft, subject: Subject, rows: tuple[int, ...]) -> Given:
        """What a draft gives, remembered for its subject alone if it holds a date.

        Args:
            memo: Where.
            key: Under which text.
            draft: Holds new rows, or none.
            subject: Whose dates.
            rows: Templates that are known.
        """
        given = self._given(draft, draft.rows, recorded=draft.recorded, of_subject=draft.is_dated)
        given.rows = rows or given.rows
        if not draft.is_dated:
            return self._keep(memo, key, given)
        self._keep(memo, key, Given(is_dated=True))
        return self._keep(memo, (key, subject.shift_us), given)

    def components(self, plan: Plan, text: bytes, subject: Subject, scope: Scope, *, negated: bool) -> Given:
        """The rows of the components of an Observation.

        Raises:
            RejectedError, ShapeError: If an element is malformed.
        """
        memo = plan.memo("component")
        key: Any = (text, negated)
        given = memo.get(key)
        if given is not None and given.is_dated:
            given = memo.get((key, subject.shift_us))
        if given is not None:
            return given
        draft = self._draft(plan.name, subject, scope)
        read_components(orjson.loads(text), draft, negated=negated)
        return self._keep_dated(memo, key, draft, subject, ())

    def mark(self, plan: Plan, path: str, code: str | None = None, text: str | None = None) -> int:
        """The template of a row that says how to read its event."""
        memo = plan.memo("mark")
        given = memo.get((path, code, text))
        if given is None:
            draft = self._draft(plan.name, None, _NOWHERE)
            draft.add(path, code, text_value=text)
            given = memo[path, code, text] = self._given(draft, draft.rows)
        return given.rows[0]
