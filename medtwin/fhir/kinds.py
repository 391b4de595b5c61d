"""The grammar of the element tables: what kinds of elements there are, and what a table says of a resource type.

A path names FHIR elements; `*` marks those that repeat: `dosageInstruction*.route`. See docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any


class Kind(Enum):
    """How the value of an element stands in its child row."""

    CONCEPT = "CodeableConcept: `//SYSTEM//code` after the path"
    CODING = "Coding: the same"
    CODE = "code: text_value"
    BOOLEAN = "boolean: `true` or `false` in text_value"
    INTEGER = "whole number: numeric_value"
    QUANTITY = "SimpleQuantity: numeric_value and unit"
    TIMED = "number whose unit of time stands in the neighbouring element `<name>Unit`: numeric_value and unit"
    REFERENCE = "reference to another event: its id in text_value"
    ACTOR = "reference to who or where, which is no event: `Type/<actor_id>` in text_value (metadata/actors.parquet)"
    DATE = "date or dateTime: in text_value, moved like every date of the subject"
    UID = "DICOM UID: its pseudonym in text_value"
    STUDY_UID = "identifier with the Study Instance UID: its pseudonym in text_value"


@dataclass(frozen=True)
class Element:
    """One element that becomes child rows.

    Attributes:
        path: Path below the resource, `*` after names that repeat.
        words: The values that a CODE may have; empty: any.
        row: Path in the row's code, where it is not that of the element.
        targets: Resource types that a REFERENCE or an ACTOR may have.
    """

    path: str
    kind: Kind
    words: frozenset[str] = frozenset()
    row: str = ""
    targets: frozenset[str] = frozenset()

    @cached_property
    def steps(self) -> tuple[tuple[str, bool], ...]:
        """The names on the path, and whether each repeats."""
        return tuple((step.rstrip("*"), step.endswith("*")) for step in self.path.split("."))

    @property
    def row_path(self) -> str:
        """The path in the code of a child row, without indices."""
        return self.row or self.path.replace("*", "")


@dataclass(frozen=True)
class ResourceTable:
    """How one resource type becomes an event and its child rows.

    Attributes:
        code: Element that names what happened; `medication`, `modality` and `type*` have rules of their own (read.py).
        times: Elements that date it, the best first. `@encounter-end` and `@encounter-start` borrow the encounter's.
        end: Element of the end, where it is not that of the period.
        encounter: Element that refers to the encounter; of one that repeats the first counts.
        status_system: Code system of a status that is a CodeableConcept.
        statuses: The required value set of the status.
        negated: The statuses that say that it did not happen, the plainest first.
        required: What R4 requires although no row may say it: path and the least that can be said.
        needs: Structures that say nothing without one of their elements: path and element.
        undated: What R4 requires of one without a time.
        may_be_undated: Whether it stands as a static fact when nothing dates it.
    """

    name: str
    elements: tuple[Element, ...]
    code: str = "code"
    times: tuple[str, ...] = ()
    end: str | None = None
    subject: str = "subject"
    encounter: str | None = "encounter"
    status: str = "status"
    status_system: str | None = None
    statuses: frozenset[str] = frozenset()
    negated: tuple[str, ...] = ()
    required: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    undated: dict[str, Any] = field(default_factory=dict)
    may_be_undated: bool = False

    @cached_property
    def by_row(self) -> dict[str, Element]:
        """The elements by their path in a row's code."""
        return {element.row_path: element for element in self.elements}

    @cached_property
    def tree(self) -> Node:
        """The elements as a tree of names; with the structures in which a time stands."""
        root = build_tree(self.elements)
        for choice in self.times:
            node = root
            for name in choice.split(".")[:-1]:
                node = node.children.setdefault(name, Node())
        return root


@dataclass(slots=True)
class Node:
    """A name in a tree of elements.

    Attributes:
        element: Its element, if it is a leaf.
        is_read_along: Whether its neighbour reads it: the unit of a TIMED element.
    """

    repeats: bool = False
    element: Element | None = None
    is_read_along: bool = False
    children: dict[str, Node] = field(default_factory=dict)


def build_tree(elements: tuple[Element, ...]) -> Node:
    """The elements as a tree of names."""
    root = Node()
    for element in elements:
        holder = node = root
        name = ""
        for name, repeats in element.steps:
            holder, node = node, node.children.setdefault(name, Node(repeats))
        node.element = element
        if element.kind is Kind.TIMED:
            holder.children[f"{name}Unit"] = Node(is_read_along=True)
    return root


def implied_time(table: ResourceTable, *, has_end: bool) -> str:
    """The element that dates an event of which no row says otherwise: the best period for one that ended."""
    if has_end and table.end is None:
        return next((name for name in table.times if name.lower().endswith("period")), table.times[0])
    return table.times[0]
