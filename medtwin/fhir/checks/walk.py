"""The walk over a resource: each element meets the rules of its type. Tables made from the definitions drive it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from medtwin.core.findings import Finding, Severity
from medtwin.fhir.checks.closures import Place, invariant
from medtwin.fhir.checks.tables import path_text, rules_table

Resource: TypeAlias = dict[str, Any]
Node: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class Hit:
    """A rule that an element breaks; its path is looked up only when it is reported."""

    rule: str
    message: str
    node: Any
    severity: Severity = "error"
    name: str = ""


@dataclass(slots=True)
class Visit:
    """One resource under inspection.

    Attributes:
        resource: Where paths begin.
        root: The resource that contains it, or itself.
        references: The References in it; None where nobody gathers them.
        full_urls: Of the bundle that it stands in: full URL to resource type; None outside of bundles.
    """

    resource: Resource
    root: Resource
    full_urls: dict[str, str] | None = None
    hits: list[Hit] = field(default_factory=list)
    references: list[Node] | None = None

    def add(self, rule: str, message: str, node: Any, severity: Severity = "error", name: str = "") -> None:
        """Records a broken rule at an element, or at its child `name`."""
        self.hits.append(Hit(rule, message, node, severity, name))

    def findings(self) -> Iterator[Finding]:
        """What was recorded, with JSON paths."""
        for hit in self.hits:
            steps = _steps_to(self.resource, hit.node) or []
            yield Finding(hit.rule, hit.message, hit.severity, path_text([*steps, *([hit.name] if hit.name else [])]))


Check: TypeAlias = Callable[[Node, Visit], None]


class Shape:
    """A type as the walk sees it.

    Attributes:
        name: Of its definition, such as `Period` or `Reference:Group,Patient`.
        children: The complex children by JSON name.
        checks: What its elements must meet, in Python.
        is_plain: Whether it has no checks of its own, so that only its complex children matter.
    """

    __slots__ = ("checks", "children", "is_plain", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: dict[str, Shape] = {}
        self.checks: tuple[Check, ...] = ()
        self.is_plain = True

    @property
    def base(self) -> str:
        """The type without what an element narrows."""
        base = self.name.partition(":")[0]
        return "Quantity" if base == "SimpleQuantity" else base


def walk(node: Node, shape: Shape, visit: Visit) -> None:
    """Applies the checks of an element and of all elements within it; resources within it are left out."""
    for check in shape.checks:
        check(node, visit)
    children = shape.children
    if children.keys().isdisjoint(node):
        return
    for name, value in node.items():
        inner = children.get(name)
        if inner is None:
            continue
        if value.__class__ is dict:
            if not inner.is_plain or not inner.children.keys().isdisjoint(value):
                walk(value, inner, visit)
        elif value.__class__ is list:
            for each in value:
                if each.__class__ is dict and (not inner.is_plain or not inner.children.keys().isdisjoint(each)):
                    walk(each, inner, visit)


def shape_of(kind: str, checks: Callable[[str], tuple[Check, ...]]) -> Shape:
    """The shape of a type, with those of all elements within.

    Args:
        kind: Name of the definition.
        checks: What to apply, by name of the definition; the same function each time, as its shapes are kept.
    """
    return _shapes(checks)(kind)


@cache
def _shapes(checks: Callable[[str], tuple[Check, ...]]) -> Callable[[str], Shape]:
    known: dict[str, Shape] = {}
    table = rules_table()["children"]

    def get(name: str) -> Shape:
        if name in known:
            return known[name]
        shape = known[name] = Shape(name)
        shape.checks = checks(name)
        for child, target in table.get(shape.base, {}).items():
            if target != "Resource":
                shape.children[child] = get(target)
        shape.is_plain = not shape.checks
        return shape

    return get


def _steps_to(value: Any, target: Any) -> list[int | str] | None:
    """The path to an object within a resource, by identity."""
    if value is target:
        return []
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in members:
        if isinstance(inner, (dict, list)) and (rest := _steps_to(inner, target)) is not None:
            return [step, *rest]
    return None


@cache
def invariant_checks(name: str) -> tuple[Check, ...]:
    """The invariants of a type or a backbone element that Python evaluates."""
    found: list[Check] = []
    for entry in rules_table()["invariants"]:
        if entry["by"] != "python":
            continue
        for place in entry["places"]:
            owner, _, child = place.partition("#")
            if owner == name:
                found.append(_invariant_check(entry["key"], entry["expression"], child))
    return tuple(found)


# An invariant can only fail where one of these elements is there: most objects need no evaluation. By hand, for speed.
_ONLY_WITH = {"obs-7": "component", "mdd-1": "whenHandedOver", "tim-9": "offset", "cnt-3": "value"}


def _invariant_check(key: str, expression: str, child: str) -> Check:
    holds = invariant(expression)
    text = f"the invariant must hold: {expression}" if len(expression) <= 160 else "the invariant must hold"
    needed = _ONLY_WITH.get(key)
    stem = child.removesuffix("[x]")

    def check(node: Node, visit: Visit) -> None:
        if needed is not None and needed not in node:
            return
        for context in _contexts(node, stem) if child else (node,):
            try:
                if not holds(Place(context, visit.resource, visit.root)):
                    visit.add(key, text, node, name=stem)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError):
                visit.add(key, "the invariant could not be evaluated on what stands here", node, "information", stem)

    return check


def _contexts(node: Node, stem: str) -> list[Any]:
    """The values of a child, whose JSON name may end in a type."""
    found: list[Any] = []
    for name, value in node.items():
        if name == stem or (name.startswith(stem) and name[len(stem) : len(stem) + 1].isupper()):
            found += value if isinstance(value, list) else [value]
    return found
