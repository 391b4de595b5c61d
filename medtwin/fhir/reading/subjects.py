"""Whose a resource is, and in which encounter it happened: subjects with their shift of dates, visits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir.codings import ShapeError, as_list, as_object, as_text
from medtwin.fhir.kinds import ResourceTable
from medtwin.fhir.reading.details import Draft, RejectedError
from medtwin.fhir.reading.index import EncounterPeriod, FhirIndex
from medtwin.fhir.reading.plans import MAX_MEMO, Plan
from medtwin.fhir.reading.source import Scope, Texts

# What of a Reference is read.
_REFERENCE = ("reference", "type", "identifier")


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of the dataset.

    Attributes:
        shift: How far its dates move.
        shift_us: The same in microseconds.
        identity: Who it is in the source: private.
    """

    id: int
    shift: timedelta
    shift_us: int
    identity: str


@dataclass(slots=True, eq=False)
class Visit:
    """The encounter in which something happened.

    Attributes:
        digest: Names it; None: there is none, or it is not one of the same subject.
        left: Paths that are not carried.
        hits: As of `Given`.
    """

    digest: bytes | None = None
    period: EncounterPeriod | None = None
    left: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    hits: int = 0


NO_VISIT = Visit()


class Subjects:
    """Finds subjects and visits by reference, and remembers what references mean."""

    def __init__(self, index: FhirIndex, pseudonyms: Pseudonyms) -> None:
        self.index, self.pseudonyms = index, pseudonyms
        self._by_identity: dict[str, Subject] = {}

    def of_patient(self, patient: str) -> Subject:
        """The subject of an indexed Patient, by its id in the source."""
        identity = self.index.identities[patient]
        known = self._by_identity.get(identity)
        if known is None:
            subject_id = self.pseudonyms.subject_id(identity)
            shift = self.pseudonyms.shift(subject_id)
            known = self._by_identity[identity] = Subject(
                subject_id, shift, shift // timedelta(microseconds=1), identity
            )
        return known

    def known(self, plan: Plan, scope: Scope) -> dict[bytes, tuple[Subject, Visit]]:
        """What references to subjects meant so far, by their text; in a bundle they may mean something else."""
        if not scope.full_urls:
            return plan.subjects
        found: dict[bytes, tuple[Subject, Visit]] = scope.memo.setdefault(("subject", plan.name), {})
        return found

    def of(self, plan: Plan, fields: Texts, scope: Scope) -> tuple[Subject, Visit]:
        """The subject of a resource, and what of its reference is left behind, as a visit to nowhere.

        Raises:
            RejectedError: If it has none, or one that is no Patient of the source.
            ShapeError: If the reference is malformed.
        """
        text = fields.get(plan.table.subject, b"null")
        memo = self.known(plan, scope)
        if len(memo) >= MAX_MEMO:
            memo.clear()
        found = memo[text] = self._find(plan.table, orjson.loads(text), scope)
        return found

    def _find(self, table: ResourceTable, reference: Any, scope: Scope) -> tuple[Subject, Visit]:
        path = f"{table.name}.{table.subject}"
        if reference is None:
            raise RejectedError("no-subject", f"{path} must refer to a Patient")
        found = self.index.resolve(reference, scope, path)
        if found is None or found[0] != "Patient" or found[1] not in self.index.identities:
            raise RejectedError("unknown-subject", f"{path} must refer to a Patient of this source")
        draft = Draft(table.name, self.index, scope, self.pseudonyms, timedelta(0))
        draft.leave_all(reference, _REFERENCE, path)
        return self.of_patient(found[1]), Visit(left=tuple(draft.left))

    def known_visits(self, plan: Plan, scope: Scope) -> dict[tuple[bytes, int], Visit]:
        """What references to encounters meant so far, by their text and the subject."""
        if not scope.full_urls:
            return plan.visits
        found: dict[tuple[bytes, int], Visit] = scope.memo.setdefault(("visit", plan.name), {})
        return found

    def visit(self, plan: Plan, text: bytes | None, subject: Subject, scope: Scope) -> Visit:
        """The encounter of a resource, if it is one of the same subject.

        Args:
            plan: Of its type.
            text: Of the element that refers to it, `plan.encounter`; None: there is none.
            subject: Of the resource.
            scope: Its bundle.

        Raises:
            ShapeError: If the reference is malformed.
        """
        if text is None:
            return NO_VISIT
        memo = self.known_visits(plan, scope)
        if len(memo) >= MAX_MEMO:
            memo.clear()
        found = memo[text, subject.id] = self._visit(plan, orjson.loads(text), subject, scope)
        return found

    def _visit(self, plan: Plan, value: Any, subject: Subject, scope: Scope) -> Visit:
        path = f"{plan.name}.{plan.table.encounter}".replace("*", "")
        draft = Draft(plan.name, self.index, scope, self.pseudonyms, timedelta(0))
        references = _references(plan.table.encounter or "", value, plan.name)
        for reference in references[1:]:
            as_object(reference, path)
            draft.left.append(path)
        if not references or references[0] is None:
            return Visit(left=tuple(draft.left))
        found = self.index.resolve(references[0], scope, path)
        draft.leave_all(references[0], _REFERENCE, path)
        period = self.index.encounters.get(found[1]) if found is not None and found[0] == "Encounter" else None
        owner = period.patient if period is not None else None
        if found is None or owner is None or self.index.identities.get(owner[1]) != subject.identity:
            return Visit(left=(*draft.left, path), flags=("unknown-encounter",))
        return Visit(self.pseudonyms.event_digest(*found), period, tuple(draft.left))


def _references(path: str, value: Any, kind: str) -> list[Any]:
    """The references at a path, of which `value` is the first element."""
    steps = path.split(".")
    for number, step in enumerate(steps):
        if number and value is not None:
            value = as_object(value, f"{kind}.{path}").get(step.rstrip("*"))
        if value is not None and step.endswith("*"):
            return as_list(value, f"{kind}.{path}")
    return [value] if value is not None else []


def read_status(plan: Plan, raw: bytes) -> str | None:
    """The status, which must be known: one that cannot be read could mean that it never happened.

    Raises:
        RejectedError: If its source withdrew the resource.
        ShapeError: If it is malformed, or none that R4 knows.
    """
    table = plan.table
    value, path = orjson.loads(raw), f"{table.name}.{table.status}"
    if table.status_system is not None and value is not None:
        codings = [as_object(each, path) for each in as_list(as_object(value, path).get("coding"), path)]
        codes = [coding.get("code") for coding in codings if coding.get("code") is not None]
        known = (code for code in codes if isinstance(code, str) and code in table.statuses)
        value = next(known, codes[0] if codes else None)
    if value is None:
        return None
    status = as_text(value, path)
    if status == "entered-in-error":
        raise RejectedError("entered-in-error", "its source withdrew it")
    if status not in table.statuses:
        raise ShapeError(f"{path} must be in the value set that FHIR R4 requires")
    return status
