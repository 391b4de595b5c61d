"""Invariants as Python closures: FHIRPath evaluated on the JSON of a resource, for what a schema cannot say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import orjson

from medtwin.fhir.checks.fhirpath import Binary, Call, FhirPathError, Literal, Member, Node, Variable, parse
from medtwin.fhir.checks.order import UndecidedError, is_ordered
from medtwin.fhir.checks.tables import rules_table

Resource: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an invariant is evaluated: the element, its resource, and the resource that contains that one."""

    context: Any
    resource: Resource
    root: Resource


@dataclass(frozen=True, slots=True)
class _Bare:
    """A primitive element that has extensions and no value."""

    content: Any


_Function: TypeAlias = Callable[[Place, Any], list[Any]]

_TYPE_SUFFIX = re.compile(r"[A-Z][A-Za-z0-9]*")


@cache
def invariant(expression: str) -> Callable[[Place], bool]:
    """Whether an invariant holds at a place. What depends on missing precision or units counts as held.

    `not()` of nothing is true, as the invariants of R4 mean it (bdl-8 of an entry without fullUrl) and as HL7's
    validator has it, though not as FHIRPath defines it.

    Raises:
        FhirPathError: If the expression uses what is not understood here.
    """
    evaluate = _compile(parse(expression))

    def holds(place: Place) -> bool:
        try:
            return _truth(evaluate(place, place.context)) is True
        except UndecidedError:
            return True

    return holds


def _compile(node: Node) -> _Function:
    if isinstance(node, Literal):
        value = [node.value]
        return lambda place, this: value
    if isinstance(node, Variable):
        return _variable(node.name)
    if isinstance(node, Member):
        return _member(node)
    if isinstance(node, Binary):
        return _binary(node)
    return _call(node)


def _variable(name: str) -> _Function:
    known: dict[str, _Function] = {
        "$this": lambda place, this: [this],
        "%resource": lambda place, this: [place.resource],
        "%rootResource": lambda place, this: [place.root],
        "%context": lambda place, this: [place.context],
        "%ucum": lambda place, this: ["http://unitsofmeasure.org"],
    }
    if name not in known:
        raise FhirPathError(f"variable must be one of {', '.join(known)}, got {name}")
    return known[name]


def _member(node: Member) -> _Function:
    name = node.name
    if node.base is None:
        if name[0].isupper():  # the name of the type itself, as in Appointment.status
            return lambda place, this: [this]
        return lambda place, this: _children(this, name)
    base = _compile(node.base)
    return lambda place, this: [child for each in base(place, this) for child in _children(each, name)]


def _children(item: Any, name: str) -> list[Any]:
    if isinstance(item, _Bare):
        item = item.content
    if not isinstance(item, dict):
        return []
    value = item.get(name)
    if value is None and name in _choices():
        for key in item:
            bare = key.removeprefix("_")
            if bare.startswith(name) and _TYPE_SUFFIX.fullmatch(bare, len(name)):
                name, value = bare, item.get(bare)
                break
    found = _as_list(value)
    if len(found) != 1 or f"_{name}" in item:
        extensions = _as_list(item.get(f"_{name}"))
        padded = found + [None] * (len(extensions) - len(found))
        bare_items = [_Bare(extensions[place]) if place < len(extensions) else None for place in range(len(padded))]
        found = [bare_items[place] if each is None else each for place, each in enumerate(padded)]
    return [each for each in found if each is not None]


@cache
def _choices() -> frozenset[str]:
    """Elements whose JSON names end in a type."""
    return frozenset(rules_table()["choices"])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _descendants(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        for value in item.values():
            for each in _as_list(value):
                yield each
                yield from _descendants(each)


def _truth(items: list[Any]) -> bool | None:
    if not items:
        return None
    return items[0] if len(items) == 1 and isinstance(items[0], bool) else True


def _key(item: Any) -> Any:
    if isinstance(item, _Bare):
        return id(item.content)
    if isinstance(item, (dict, list)):
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    return (isinstance(item, bool), item)


def _binary(node: Binary) -> _Function:
    if node.operator in ("is", "as"):
        return _type_operator(node.operator, node.left, node.right)
    left, right = _compile(node.left), _compile(node.right)
    logic = {"and": _and, "or": _or, "implies": _implies}.get(node.operator)
    if logic is not None:
        return lambda place, this: logic(_truth(left(place, this)), lambda: _truth(right(place, this)))
    operate = _OPERATORS[node.operator]
    return lambda place, this: operate(left(place, this), right(place, this))


_Later: TypeAlias = Callable[[], "bool | None"]


def _and(left: bool | None, right: _Later) -> list[Any]:
    if left is False:
        return [False]
    other = right()
    if other is False:
        return [False]
    return [True] if left and other else []


def _or(left: bool | None, right: _Later) -> list[Any]:
    if left is True:
        return [True]
    other = right()
    if other is True:
        return [True]
    return [False] if left is False and other is False else []


def _implies(left: bool | None, right: _Later) -> list[Any]:
    return _or(None if left is None else not left, right)


def _xor(left: list[Any], right: list[Any]) -> list[Any]:
    first, second = _truth(left), _truth(right)
    return [] if first is None or second is None else [first != second]


def _equal(left: list[Any], right: list[Any]) -> list[Any]:
    if not left or not right or isinstance(left[0], _Bare):
        return []
    return [len(left) == len(right) and all(_key(a) == _key(b) for a, b in zip(left, right, strict=True))]


def _different(left: list[Any], right: list[Any]) -> list[Any]:
    return [not each for each in _equal(left, right)]


def _comparison(holds: Callable[[Any, Any], bool]) -> Callable[[list[Any], list[Any]], list[Any]]:
    def compare(left: list[Any], right: list[Any]) -> list[Any]:
        if len(left) != 1 or len(right) != 1 or isinstance(left[0], _Bare) or isinstance(right[0], _Bare):
            return []
        return [holds(left[0], right[0])]

    return compare


def _union(left: list[Any], right: list[Any]) -> list[Any]:
    return list({_key(each): each for each in [*left, *right]}.values())


def _is_in(left: list[Any], right: list[Any]) -> list[Any]:
    return [_key(left[0]) in {_key(each) for each in right}] if left else []


def _text(items: list[Any]) -> str:
    return "" if not items or isinstance(items[0], _Bare) else str(items[0])


def _plus(left: list[Any], right: list[Any]) -> list[Any]:
    return [left[0] + right[0]] if left and right else []


_OPERATORS: dict[str, Callable[[list[Any], list[Any]], list[Any]]] = {
    "xor": _xor,
    "=": _equal,
    "!=": _different,
    "<=": _comparison(lambda a, b: is_ordered(a, b)),
    ">=": _comparison(lambda a, b: is_ordered(b, a)),
    "<": _comparison(lambda a, b: not is_ordered(b, a)),
    ">": _comparison(lambda a, b: not is_ordered(a, b)),
    "|": _union,
    "in": _is_in,
    "contains": lambda left, right: _is_in(right, left),
    "&": lambda left, right: [_text(left) + _text(right)],
    "+": _plus,
}


def _type_name(node: Node) -> str:
    if isinstance(node, Member) and node.base is None:
        return node.name
    raise FhirPathError(f"type must be a plain name, got {node}")


def _type_operator(operator: str, left: Node, right: Node) -> _Function:
    """`x is T` and `x as T`, where x is a choice (the JSON name tells the type) or a resource."""
    if not isinstance(left, Member):
        raise FhirPathError(f"{operator} must follow an element, got {left}")
    kind, name = _type_name(right), left.name
    kind = kind[0].upper() + kind[1:]
    parents = _compile(left.base) if left.base is not None else (lambda place, this: [this])

    def typed(place: Place, this: Any) -> list[Any]:
        found = []
        for parent in parents(place, this):
            if isinstance(parent, dict):
                found += [each for each in _children(parent, name) if _kind(each) == kind]
                found += _children(parent, name + kind)
        return found

    return typed if operator == "as" else lambda place, this: [bool(typed(place, this))]


def _kind(item: Any) -> Any:
    return item.get("resourceType") if isinstance(item, dict) else None


def _call(node: Call) -> _Function:
    arguments = node.arguments
    if node.name in ("is", "as") and node.base is not None:
        return _is_first(node) if isinstance(node.base, Member) else _typed_items(node)
    base = _compile(node.base) if node.base is not None else (lambda place, this: [this])
    if node.name in _LAMBDAS:
        return _LAMBDAS[node.name](base, _compile(arguments[0])) if arguments else _plain(node.name, base)
    if node.name == "iif":
        return _iif(base, [_compile(each) for each in arguments])
    if node.name == "ofType":
        kind = _type_name(arguments[0])
        return lambda place, this: [each for each in base(place, this) if _kind(each) == kind]
    if node.name == "resolve":
        return lambda place, this: [found for each in base(place, this) for found in _resolve(place, each)]
    if node.name in _WITH_ARGUMENTS:
        values = [_compile(each) for each in arguments]
        function = _WITH_ARGUMENTS[node.name]
        return lambda place, this: function(base(place, this), [each(place, place.context) for each in values])
    return _plain(node.name, base)


def _is_first(node: Call) -> _Function:
    return _type_operator(node.name, node.base or Variable("$this"), node.arguments[0])


def _typed_items(node: Call) -> _Function:
    base, kind = _compile(node.base or Variable("$this")), _type_name(node.arguments[0])
    return lambda place, this: [_kind(each) == kind for each in base(place, this)[:1]] or [False]


def _plain(name: str, base: _Function) -> _Function:
    if name not in _FUNCTIONS:
        raise FhirPathError(f"function {name}() is not understood")
    function = _FUNCTIONS[name]
    return lambda place, this: function(base(place, this))


def _where(base: _Function, condition: _Function) -> _Function:
    return lambda place, this: [each for each in base(place, this) if _truth(condition(place, each))]


def _exists(base: _Function, condition: _Function) -> _Function:
    kept = _where(base, condition)
    return lambda place, this: [bool(kept(place, this))]


def _every(base: _Function, condition: _Function) -> _Function:
    return lambda place, this: [all(_truth(condition(place, each)) for each in base(place, this))]


def _select(base: _Function, projection: _Function) -> _Function:
    return lambda place, this: [found for each in base(place, this) for found in projection(place, each)]


_LAMBDAS = {"where": _where, "exists": _exists, "all": _every, "select": _select}


def _iif(base: _Function, branches: list[_Function]) -> _Function:
    def choose(place: Place, this: Any) -> list[Any]:
        items = base(place, this)
        focus = items[0] if items else None
        if _truth(branches[0](place, focus)):
            return branches[1](place, focus)
        return branches[2](place, focus) if len(branches) > 2 else []

    return choose


def _resolve(place: Place, reference: Any) -> list[Any]:
    """The contained resource that is meant; of any other, only the type that the reference names."""
    text = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(text, str):
        return []
    if text.startswith("#"):
        return [each for each in _children(place.root, "contained") if each.get("id") == text[1:]]
    steps = text.partition("/_history/")[0].split("/")
    return [{"resourceType": steps[-2]}] if len(steps) > 1 and steps[-2].isalpha() and ":" not in steps[-2] else []


def _distinct(items: list[Any]) -> list[Any]:
    return [len({_key(each) for each in items}) == len(items)]


def _to_integer(items: list[Any]) -> list[Any]:
    return [int(_text(items))] if re.fullmatch(r"[+-]?[0-9]+", _text(items)) else []


_FUNCTIONS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "exists": lambda items: [bool(items)],
    "empty": lambda items: [not items],
    "not": lambda items: [not _truth(items)],
    "hasValue": lambda items: [len(items) == 1 and isinstance(items[0], (str, int, float))],
    "count": lambda items: [len(items)],
    "first": lambda items: items[:1],
    "tail": lambda items: items[1:],
    "isDistinct": _distinct,
    "children": lambda items: [inner for each in items for inner in _all_children(each)],
    "descendants": lambda items: [inner for each in items for inner in _descendants(each)],
    "toInteger": _to_integer,
    "toString": lambda items: [_text(items)] if items else [],
}


def _all_children(item: Any) -> list[Any]:
    if not isinstance(item, dict):
        return []
    return [each for value in item.values() for each in _as_list(value)]


def _intersect(items: list[Any], values: list[list[Any]]) -> list[Any]:
    others = {_key(each) for each in values[0]}
    return [each for each in items if _key(each) in others]


def _matches(items: list[Any], values: list[list[Any]]) -> list[Any]:
    return [re.search(str(values[0][0]), _text(items)) is not None] if items else []


_WITH_ARGUMENTS: dict[str, Callable[[list[Any], list[list[Any]]], list[Any]]] = {
    "intersect": _intersect,
    "combine": lambda items, values: [*items, *values[0]],
    "startsWith": lambda items, values: [_text(items).startswith(_text(values[0]))] if items else [],
    "contains": lambda items, values: [_text(values[0]) in _text(items)] if items else [],
    "substring": lambda items, values: [_text(items)[int(values[0][0]) :]] if items else [],
    "matches": _matches,
    "replaceMatches": lambda items, values: [re.sub(_text(values[0]), _text(values[1]), _text(items))] if items else [],
}
