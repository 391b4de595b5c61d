"""The resources of one subject from its rows: status, code, times, value, details and components of each event."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from medtwin.core.codes import AGE_CAPPED, BIRTH, DEATH, NEGATED_PREFIX
from medtwin.core.events import split_child_code
from medtwin.fhir.codings import code_to_coding, codes_to_concept
from medtwin.fhir.elements import COMPONENT_ELEMENTS, TABLES
from medtwin.fhir.kinds import ResourceTable, implied_time
from medtwin.fhir.writing.actions import INDEXED, PAIRED, Action, bare_path, compile_action
from medtwin.fhir.writing.context import ExportContext, fhir_id
from medtwin.fhir.writing.finish import count_uneven, even_ends, finish, pruned
from medtwin.fhir.writing.ingredients import is_ingredient
from medtwin.fhir.writing.panels import join_pressures
from medtwin.fhir.writing.patient import Fact, is_patient_code, patient_id, patient_tags, write_patient
from medtwin.fhir.writing.rows import Quantities, Resource, Rows, moment_text
from medtwin.fhir.writing.us_core import complete_us_core, met_profiles
from medtwin.fhir.writing.value import write_value
from medtwin.fhir.writing.vitals import add_panel_code, all_codings, complete_vital_sign, vital_quantity, vital_sign

_COMPONENT_ROWS = {element.row_path: element for element in COMPONENT_ELEMENTS}
_MAX_COMPILED = 1 << 17
Key = tuple[str | None, ...]


@dataclass(slots=True)
class Head:
    """What all events with the same type, status and code begin with.

    Attributes:
        table: Of the type.
        body: The first elements of the resource, to be copied; what is in them is shared.
        concept: The code as a CodeableConcept.
        loinc: The LOINC code by which the vital-sign profiles claim the event.
        is_ingredient: Whether a medication is coded by nothing better than its ingredient.
        is_special: Whether the code needs the child rows, or the status could not be written.
        lost: What of the status could not be written.
        actions: Those of child rows, by their code and source_code.
    """

    table: ResourceTable
    body: Resource
    concept: Resource
    loinc: str | None
    is_ingredient: bool
    is_special: bool
    lost: str | None
    actions: dict[Any, Action]


@dataclass(slots=True)
class Tools:
    """What an export makes once and uses for every subject."""

    context: ExportContext
    quantities: Quantities = field(default_factory=Quantities)
    heads: dict[Key, Head] = field(default_factory=dict)
    actions: dict[str, dict[Any, Action]] = field(default_factory=dict)
    metas: dict[tuple[str, ...], Resource] = field(default_factory=dict)

    def head(self, kind: str, status: str | None, code: str, source_code: str | None) -> Head:
        """The head of an event, made once."""
        key = kind, status, code, source_code
        found = self.heads.get(key)
        if found is None:
            if len(self.heads) >= _MAX_COMPILED:
                self.heads.clear()
            found = self.heads[key] = self._new_head(TABLES[kind], status, code, source_code)
        return found

    def _new_head(self, table: ResourceTable, status: str | None, code: str, source_code: str | None) -> Head:
        body: Resource = {"resourceType": table.name, "id": "", "meta": self.meta(())}
        lost = _write_status(body, status, table, is_negated=code.startswith(NEGATED_PREFIX))
        plain = code.removeprefix(NEGATED_PREFIX)
        loinc = vital_sign(plain, source_code) if table.name == "Observation" else None
        concept = codes_to_concept(plain, all_codings(plain, source_code) if loinc else source_code)
        is_special = table.code in ("medication", "modality") or table.code.endswith("*")
        if not is_special:
            body[table.code] = concept
        is_bare = table.code == "medication" and is_ingredient(plain, source_code)
        is_special = is_special or lost is not None
        return Head(table, body, concept, loinc, is_bare, is_special, lost, self.actions.setdefault(table.name, {}))

    def action(self, actions: dict[Any, Action], table: str, code: str, source_code: str | None) -> Action:
        """The action of a child row that is not yet among those of its table."""
        if len(actions) >= _MAX_COMPILED:
            actions.clear()
        elements = _COMPONENT_ROWS if table == "component" else TABLES[table].by_row
        name = "Observation" if table == "component" else table
        made = compile_action(name, elements, code, source_code)
        actions[code if source_code is None else (code, source_code)] = made
        return made

    def meta(self, profiles: tuple[str, ...]) -> Resource:
        """The meta of resources that meet these profiles, made once."""
        if profiles not in self.metas:
            self.metas[profiles] = self.context.meta(profiles)
        return self.metas[profiles]


def _write_status(body: Resource, status: str | None, table: ResourceTable, *, is_negated: bool) -> str | None:
    """Writes the status. A negated code must stay negated, whatever the status says.

    Returns:
        The name under which a status is counted that cannot be written.
    """
    lost = None
    if status is not None and status not in table.statuses:
        lost, status = f"{table.name}.status", None
    if is_negated and status not in table.negated:
        if any(element.path == "doNotPerform" for element in table.elements):
            body["doNotPerform"] = True
        elif table.negated:
            status = table.negated[0]
    if status is not None:
        body[table.status] = (
            status if table.status_system is None else {"coding": [{"system": table.status_system, "code": status}]}
        )
    return lost


class Subject:
    """The rows of one subject by what they are for.

    Args:
        tools: Of the export.
        rows: Columns that hold the subject's rows.
        numbers: Which of them.
    """

    def __init__(self, tools: Tools, rows: Rows, numbers: list[int]) -> None:
        self.tools, self.rows, self.quantities = tools, rows, tools.quantities
        self.subject_id = rows.subject[numbers[0]]
        self.not_carried: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.actors: set[str] = set()
        self.declared: Counter[str] = Counter()
        self.facts: list[Fact] = []
        self.roots: list[int] = []
        self.children: dict[str, list[int]] = {}
        self.kinds: dict[str | None, str] = {}
        self._references: dict[str, Resource] = {}
        self._moment: tuple[int | None, str | None, str] = (None, None, "")
        self._component_marks = 0
        self._me = {"reference": f"Patient/{patient_id(self.subject_id)}"}
        self._sort(numbers)
        self._join_pressures()
        self._count_orphans()

    def _sort(self, numbers: list[int]) -> None:
        rows, children, roots, kinds = self.rows, self.children, self.roots, self.kinds
        parents, names, resources = rows.parent, rows.event_id, rows.resource
        for row in numbers:
            parent = parents[row]
            if parent is not None:
                there = children.get(parent)
                if there is None:
                    children[parent] = [row]
                else:
                    there.append(row)
                continue
            kind = resources[row]
            code, time = rows.code[row], rows.time[row]
            if (time is None or kind not in TABLES or code in _LIFE) and is_patient_code(code, is_static=time is None):
                self.facts.append(Fact(code, time, rows.precision[row]))
            elif kind in TABLES and names[row] is not None:
                roots.append(row)
                kinds[names[row]] = kind
            else:
                self.not_carried["row-without-resource"] += 1

    def _join_pressures(self) -> None:
        """Makes one panel of a systolic and a diastolic pressure that were measured together."""
        joined = join_pressures(self.rows, self.roots, self.children)
        for panel, event_ids in joined:
            name = self.rows.event_id[panel] or ""
            self.kinds[name] = "Observation"
            for event_id in event_ids:
                self._references[event_id] = {"reference": f"Observation/{fhir_id(name)}"}
        self.flags["blood pressures joined in a panel"] += len(joined)

    def _count_orphans(self) -> None:
        for parent, children in self.children.items():
            if parent not in self.kinds and parent.rpartition(".")[0] not in self.kinds:
                self.not_carried["child-without-event"] += len(children)

    def reference(self, event_id: str | None, targets: frozenset[str]) -> Resource | None:
        """A reference to another event of the subject; None if it has none of that id and kind."""
        kind = self.kinds.get(event_id)
        if event_id is None or kind is None or kind not in targets:
            return None
        found = self._references.get(event_id)
        if found is None:
            found = self._references[event_id] = {"reference": f"{kind}/{fhir_id(event_id)}"}
        return found

    def actor(self, reference: str) -> Resource:
        """A reference to who or where, which the export's shared resources then hold."""
        self.actors.add(reference)
        return {"reference": reference}

    def resources(self) -> list[Resource]:
        """The Patient, then the resources of its events in the order of their rows."""
        patient, lost = write_patient(self.subject_id, self.facts)
        self.not_carried += lost
        context = self.tools.context
        tags = patient_tags(self.facts)
        patient["meta"] = context.meta((), tags)
        if context.profile == "us-core-6.1":
            complete_us_core(patient, context.origin)
            profiles = met_profiles(patient)
            patient["meta"] = context.meta(profiles, tags)
            self.declared["Patient"] += bool(profiles)
            return [patient, *map(self._us_core_resource, self.roots)]
        return [patient, *map(self.resource, self.roots)]

    def _us_core_resource(self, row: int) -> Resource:
        """The resource of an event, completed for US Core, with the profiles that it meets."""
        body = self.resource(row)
        complete_us_core(body, self.tools.context.origin)
        profiles = met_profiles(body)
        head = self.tools.head(body["resourceType"], self.rows.status[row], self.rows.code[row], self.rows.source[row])
        if profiles and not head.is_ingredient:
            body["meta"] = self.tools.meta(profiles)
            self.declared[body["resourceType"]] += 1
        return body

    def resource(self, row: int) -> Resource:
        """The resource of an event with its child rows."""
        rows = self.rows
        head = self.tools.head(rows.resource[row] or "", rows.status[row], rows.code[row], rows.source[row])
        table = head.table
        body = head.body.copy()
        event_id = rows.event_id[row] or ""
        body["id"] = event_id if rows.has_plain_ids else fhir_id(event_id)
        children = self.children.get(event_id, ())
        details, guides, components, marks = self._actions(head.actions, table.name, children)
        if head.is_special:
            self._write_head(body, head, row, children)
        body[table.subject] = self._me
        if table.encounter is not None and rows.encounter[row] is not None:
            encounter = self.reference(rows.encounter[row], _ENCOUNTER)
            if encounter is not None:
                set_path(body, table.encounter, encounter)
        self._write_times(body, row, table, guides)
        if table.name == "Observation":
            self._write_value(body, row, guides, head.loinc)
        elif rows.number[row] is not None or rows.text[row] is not None:
            self._count_values(row)
        self._place(body, details)
        if components:
            if len(components) > 1:
                components.sort(key=self._component_number)
            self._component_marks = 0
            body["component"] = [self._component(each) for each in components]
            marks |= self._component_marks & PAIRED
        if head.loinc is not None or (components and add_panel_code(body)):
            complete_vital_sign(body)
        return finish(pruned(body) if marks & INDEXED else body, table, self.not_carried, has_pairs=marks & PAIRED > 0)

    def _actions(
        self, known: dict[Any, Action], table: str, children: Any
    ) -> tuple[list[tuple[Action, int]], dict[str, int], list[int], int]:
        """The child rows by what becomes of them: details, guides, components, and the marks of the details."""
        codes, sources = self.rows.code, self.rows.source
        details: list[tuple[Action, int]] = []
        guides: dict[str, int] = {}
        components: list[int] = []
        marks = 0
        for row in children:
            code, source = codes[row], sources[row]
            action = known.get(code if source is None else (code, source))
            if action is None:
                action = self.tools.action(known, table, code, source)
            if action.guide is not None:
                guides[action.guide] = row
            elif action.is_component:
                components.append(row)
            else:
                details.append((action, row))
                marks |= action.marks
        return details, guides, components, marks

    def _place(self, body: Resource, details: list[tuple[Action, int]]) -> None:
        rows = self.rows
        for action, row in details:
            if action.place is None or not action.place(body, rows, row, self):
                self.not_carried[action.lost] += 1

    def _write_head(self, body: Resource, head: Head, row: int, children: Any) -> None:
        """Writes the code where it needs the child rows, and counts what the head could not hold."""
        code = head.table.code
        if head.lost is not None:
            self.not_carried[head.lost] += 1
        if code == "medication":
            self._write_medication(body, head.concept, children)
            self.flags["ingredient-level RxNorm"] += head.is_ingredient
        elif code == "modality":
            body["modality"] = [code_to_coding(self.rows.code[row].removeprefix(NEGATED_PREFIX))]
        elif code.endswith("*") and not self._goes_by_class(row, children):
            body[code.rstrip("*")] = [head.concept]

    def _goes_by_class(self, row: int, children: Any) -> bool:
        """Whether the code of an encounter without a type is that of its class, which its own element says."""
        code = self.rows.code[row].removeprefix(NEGATED_PREFIX)
        if not code.startswith("ENCOUNTER//"):
            return False
        classes = (split_child_code(self.rows.code[child]) for child in children)
        return any(path == "class" and each and code[11:] == each.partition("//")[2] for _, path, each in classes)

    def _write_medication(self, body: Resource, concept: Resource, children: Any) -> None:
        """A medication by its code; a mixture without one as a contained resource with its ingredients."""
        codes, sources = self.rows.code, self.rows.source
        found = [row for row in children if ".medication.ingredient//" in codes[row]]
        parts = [
            {"itemCodeableConcept": codes_to_concept(split_child_code(codes[row])[2] or "", sources[row])}
            for row in found
            if bare_path(split_child_code(codes[row])[1]) == "medication.ingredient"
        ]
        if not parts:
            body["medicationCodeableConcept"] = concept
            return
        body["contained"] = [{"resourceType": "Medication", "id": "mixture", "ingredient": parts}]
        body["medicationReference"] = {"reference": "#mixture"}

    def _count_values(self, row: int) -> None:
        kind = self.rows.resource[row]
        if self.rows.number[row] is not None:
            self.not_carried[f"{kind}.numeric_value"] += 1
        if self.rows.text[row] is not None:
            self.not_carried[f"{kind}.text_value"] += 1

    def _write_value(self, holder: Resource, row: int, guides: dict[str, int], loinc: str | None) -> None:
        value = write_value(self.rows, row, guides, self.quantities)
        if value is None:
            self._count_values(row)
            return
        name, written = value
        if loinc is not None and name == "valueQuantity":
            given, written = written, vital_quantity(written, loinc)
            self.flags["unit implied by a vital sign's code"] += "unit" in written and "unit" not in given
        holder[name] = written

    def _component_number(self, row: int) -> int:
        number = (self.rows.event_id[row] or "").rpartition(".")[2]
        return int(number) if number.isdecimal() else 0

    def _component(self, row: int) -> Resource:
        """A component of an Observation."""
        rows = self.rows
        code = rows.code[row].removeprefix(NEGATED_PREFIX)
        component: Resource = {"code": codes_to_concept(code, rows.source[row])}
        known = self.tools.actions.setdefault("component", {})
        children = self.children.get(rows.event_id[row] or "", ())
        details, guides, _, marks = self._actions(known, "component", children)
        self._write_value(component, row, guides, vital_sign(code, rows.source[row]))
        self._place(component, details)
        self._component_marks |= marks
        return pruned(component) if marks & INDEXED else component

    def _write_times(self, body: Resource, row: int, table: ResourceTable, guides: dict[str, int]) -> None:
        """Writes the element that dates the event, and its end."""
        rows = self.rows
        if rows.time[row] is None:
            body.update(table.undated)
            return
        start = self._start(row)
        end = rows.end[row]
        if end is None and "time" not in guides and table.name in _PLAINLY_DATED:
            body[table.times[0]] = start
            return
        choice = self._time_element(row, table, guides)
        end_text = None
        if end is not None:
            given = rows.text[guides["endPrecision"]] if "endPrecision" in guides else rows.precision[row]
            end_text = moment_text(end, given)
        if choice.lower().endswith("period"):
            set_path(body, choice, self._period(start, end_text, f"{table.name}.{choice}"))
        elif choice:
            set_path(body, choice, start)
        if end_text and table.end is not None:
            body[table.end] = end_text
        elif end_text and not choice.lower().endswith("period"):
            self.not_carried[f"{table.name}.end_time"] += 1

    def _start(self, row: int) -> str:
        """The text of a row's time, which the row before it often has too."""
        time, precision = self.rows.time[row], self.rows.precision[row]
        if self._moment[0] != time or self._moment[1] != precision:
            self._moment = time, precision, moment_text(time or 0, precision)
        return self._moment[2]

    def _time_element(self, row: int, table: ResourceTable, guides: dict[str, int]) -> str:
        """The element that dates an event; empty where the encounter does."""
        choice = implied_time(table, has_end=self.rows.end[row] is not None)
        if "time" in guides:
            given = split_child_code(self.rows.code[guides["time"]])[2] or ""
            if given in ("encounter-end", "encounter-start"):
                return ""
            choice = given if given in table.times else choice
        precision = self.rows.precision[row]
        if (table.name, choice) in _INSTANTS and precision is not None and not precision.startswith("second"):
            return next(name for name in table.times if (table.name, name) not in _INSTANTS)
        return choice

    def _period(self, start: str, end: str | None, path: str) -> Resource:
        """A Period, its ends equally precise."""
        if end is None:
            return {"start": start}
        written = even_ends(start, end)
        if written != (start, end):
            count_uneven((start, end), written, path, self.not_carried)
        return {"start": written[0], "end": written[1]}


_ENCOUNTER = frozenset({"Encounter"})
# Facts of a person that have a time.
_LIFE = frozenset({BIRTH, DEATH, AGE_CAPPED})
# Elements of the type `instant`, which a date cannot stand in.
_INSTANTS = frozenset(
    {
        ("Observation", "effectiveInstant"),
        ("Observation", "issued"),
        ("DiagnosticReport", "issued"),
        ("DocumentReference", "date"),
    }
)
# Types that one element at the top dates, whatever the precision.
_PLAINLY_DATED = frozenset(
    name
    for name, table in TABLES.items()
    if "." not in table.times[0] and not table.times[0].endswith("eriod") and (name, table.times[0]) not in _INSTANTS
)


def set_path(body: Resource, path: str, value: Any) -> None:
    """Sets an element by its path; a step that repeats (`event*`) gets one item."""
    if "." not in path and not path.endswith("*"):
        body[path] = value
        return
    *steps, name = path.split(".")
    for step in steps:
        if step.endswith("*"):
            items = body.setdefault(step[:-1], [{}])
            body = items[0]
        else:
            body = body.setdefault(step, {})
    body[name.rstrip("*")] = [value] if name.endswith("*") else value
