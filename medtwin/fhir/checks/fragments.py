"""Invariants as JSON schema, where their logic is existence, equality, counts or patterns of child elements.

FHIRPath has three truth values. A condition is therefore turned into two schemas: of what makes it true, and of what
makes it false; what is neither is empty, and an invariant that is empty does not hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from medtwin.fhir.checks.definitions import Definitions, Element, TypeRef
from medtwin.fhir.checks.fhirpath import Binary, Call, Literal, Member, Node, Variable, parse

Schema: TypeAlias = dict[str, Any]
UCUM = "http://unitsofmeasure.org"
_TRUTH = ("exists", "empty", "not", "all", "hasValue", "startsWith", "matches")
_LOGIC = ("and", "or", "xor", "implies", "=", "!=", "in", "<", ">", "<=", ">=")


class NotStatableError(ValueError):
    """A condition that JSON schema cannot state."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What makes a condition true, and what makes it false."""

    true: Schema
    false: Schema

    def swapped(self) -> Sides:
        """The sides of the negation."""
        return Sides(self.false, self.true)


@dataclass(frozen=True, slots=True)
class _Where:
    condition: Node


_Part: TypeAlias = "str | _Where"


def content_owner(definitions: Definitions, element: Element, type_ref: TypeRef | None) -> str:
    """The owner of an element's children: a backbone element's path, or a datatype's name; empty for a primitive."""
    if element.content_of:
        return element.content_of
    if element.path in definitions.owners:
        return element.path
    code = type_ref.code if type_ref else ""
    if code == "Resource":  # what is contained or in a bundle: an invariant may ask for `contained.contained`
        code = "DomainResource"
    return code if code in definitions.owners else ""


def invariant_schema(definitions: Definitions, owner: str, expression: str) -> Schema:
    """The schema of the objects of `owner` (a type or a backbone path) for which an invariant holds.

    Raises:
        NotStatableError: If JSON schema cannot say it.
    """
    return _Compiler(definitions, owner, is_root=owner in definitions.resources).sides(parse(expression)).true


class _Compiler:
    def __init__(self, definitions: Definitions, owner: str, *, is_root: bool) -> None:
        self._definitions = definitions
        self._owner = owner
        self._is_root = is_root

    def sides(self, node: Node) -> Sides:
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Member):
            parts = self._single(node)
            return Sides(self._some(parts, {"const": True}), self._some(parts, {"const": False}))
        raise NotStatableError(f"no condition: {node}")

    def _binary(self, node: Binary) -> Sides:
        if node.operator in ("and", "or", "xor", "implies"):
            return _combine(node.operator, self.sides(node.left), self.sides(node.right))
        if node.operator in ("=", "!=") and _is_condition(node.left) and _is_condition(node.right):
            same = _combine("xor", self.sides(node.left), self.sides(node.right)).swapped()
            return same if node.operator == "=" else same.swapped()
        if "count" in _functions(node.left):
            return self._counted(node)
        return self._compared(node)

    def _compared(self, node: Binary) -> Sides:
        parts = self._single(node.left)
        inner = _literal_schema(node.operator, node.right)
        sides = Sides(self._some(parts, inner), self._some(parts, {"not": inner}))
        return sides.swapped() if node.operator == "!=" else sides

    def _counted(self, node: Binary) -> Sides:
        if not isinstance(node.right, Literal) or not isinstance(node.right.value, int):
            raise NotStatableError("a count is compared with a number only")
        limit = node.right.value
        lists = [self._parts(each.base) for each in _summands(node.left) if isinstance(each, Call) and each.base]
        if node.operator == ">" and limit == 0:
            true = _any([self._some(parts, {}) for parts in lists])
            return Sides(true, _not(true))
        if len(lists) != 1 or len(lists[0]) != 1 or node.operator not in (">", "<="):
            raise NotStatableError("sums of counts are not stated")
        (name,) = lists[0]
        element = self._element(self._owner, name)
        if not element.is_list or not content_owner(self._definitions, element, element.types[0]):
            raise NotStatableError("only lists of objects are counted")
        more = {"required": [name], "properties": {name: {"minItems": limit + 1}}}
        sides = Sides(more, _not(more))
        return sides if node.operator == ">" else sides.swapped()

    def _call(self, node: Call) -> Sides:
        if node.name == "not" and node.base is not None:
            true = self.sides(node.base).true  # of nothing it is true, see closures.invariant
            return Sides(_not(true), true)
        if node.name in ("exists", "empty", "hasValue") and not node.arguments:
            inner: Schema = {"not": {"type": ["object", "array"]}} if node.name == "hasValue" else {}
            found = self._some(self._parts(node.base), inner)
            sides = Sides(found, _not(found))
            return sides.swapped() if node.name == "empty" else sides
        if node.name == "all":
            return self._all(node)
        if node.name in ("startsWith", "matches") and isinstance(text := node.arguments[0], Literal):
            pattern = str(text.value) if node.name == "matches" else "^" + re.escape(str(text.value))
            parts = self._single(node.base)
            inner = {"pattern": pattern}
            return Sides(self._some(parts, inner), self._some(parts, {"not": inner}))
        raise NotStatableError(f"{node.name}() is not stated")

    def _all(self, node: Call) -> Sides:
        owner, parts = self._owner, self._parts(node.base)
        for part in parts:
            if isinstance(part, str):
                element = self._element(owner, part)
                owner = content_owner(self._definitions, element, element.types[0] if element.types else None)
        condition = _Compiler(self._definitions, owner, is_root=False).sides(node.arguments[0])
        broken = self._some(parts, _not(condition.true))
        return Sides(_not(broken), broken)

    def _parts(self, node: Node | None) -> list[_Part]:
        """The steps of a path from the object of this compiler."""
        parts: list[_Part] = []
        while node is not None:
            if isinstance(node, Member):
                parts.append(node.name)
            elif isinstance(node, Call) and node.name == "where":
                parts.append(_Where(node.arguments[0]))
            elif isinstance(node, Variable) and (node.name == "$this" or (node.name == "%resource" and self._is_root)):
                break
            else:
                raise NotStatableError(f"no plain path: {node}")
            node = node.base
        parts.reverse()
        if self._is_root and parts[:1] == [self._owner]:
            del parts[0]
        return parts

    def _single(self, node: Node | None) -> list[_Part]:
        """The steps of a path that leads to one value at most."""
        parts, owner = self._parts(node), self._owner
        for part in parts:
            if not isinstance(part, str):
                raise NotStatableError("a filtered path may lead to several values")
            element = self._element(owner, part)
            if element.is_list or element.is_choice:
                raise NotStatableError(f"{element.path} may have several values or types")
            owner = content_owner(self._definitions, element, element.types[0] if element.types else None)
        return parts

    def _element(self, owner: str, name: Any) -> Element:
        for element in self._definitions.owners.get(owner, ()):
            if element.name == name:
                return element
        raise NotStatableError(f"{owner or 'a primitive'} has no {name}")

    def _some(self, parts: list[_Part], inner: Schema, owner: str | None = None) -> Schema:
        """Objects in which something at the end of the path meets `inner`; `{}` asks for existence."""
        owner = self._owner if owner is None else owner
        if not parts:
            return inner
        first, rest = parts[0], parts[1:]
        if isinstance(first, _Where):
            condition = _Compiler(self._definitions, owner, is_root=False).sides(first.condition).true
            return _all([condition, self._some(rest, inner, owner)])
        element = self._element(owner, first)
        forms: list[Schema] = []
        for name, type_ref in element.names() or [(element.name, TypeRef(""))]:
            content = content_owner(self._definitions, element, type_ref)
            after = self._some(rest, inner, content) if content or not rest else None
            if after is None:
                raise NotStatableError(f"{element.path} has no children")
            forms.append(_at(name, after, is_list=element.is_list))
            if not rest and inner == {} and not content and not element.is_attribute:
                forms.append({"required": [f"_{name}"]})
        return _any(forms)


def _at(name: str, inner: Schema, *, is_list: bool) -> Schema:
    if inner == {}:
        return {"required": [name]}
    return {"required": [name], "properties": {name: {"contains": inner} if is_list else inner}}


def _literal_schema(operator: str, node: Node) -> Schema:
    if operator == "in":
        return {"enum": [_value(each) for each in _operands("|", node)]}
    keyword = {"=": "const", "!=": "const", "<": "exclusiveMaximum", ">": "exclusiveMinimum"}
    keyword |= {"<=": "maximum", ">=": "minimum"}
    if operator not in keyword:
        raise NotStatableError(f"{operator} is not stated")
    value = _value(node)
    if keyword[operator] != "const" and not isinstance(value, (int, float)):
        raise NotStatableError("only numbers are compared")
    return {keyword[operator]: value}


def _value(node: Node) -> str | float | bool:
    if isinstance(node, Variable) and node.name == "%ucum":
        return UCUM
    if isinstance(node, Literal):
        return node.value
    raise NotStatableError(f"no literal: {node}")


def _operands(operator: str, node: Node) -> list[Node]:
    if isinstance(node, Binary) and node.operator == operator:
        return [*_operands(operator, node.left), *_operands(operator, node.right)]
    return [node]


def _summands(node: Node) -> list[Node]:
    summands = _operands("+", node)
    if not all(isinstance(each, Call) and each.name == "count" for each in summands):
        raise NotStatableError("only counts are added")
    return summands


def _functions(node: Node) -> set[str]:
    return {each.name for each in _operands("+", node) if isinstance(each, Call)}


def _is_condition(node: Node) -> bool:
    return (isinstance(node, Call) and node.name in _TRUTH) or (isinstance(node, Binary) and node.operator in _LOGIC)


def _combine(operator: str, left: Sides, right: Sides) -> Sides:
    if operator == "and":
        return Sides(_all([left.true, right.true]), _any([left.false, right.false]))
    if operator == "or":
        return Sides(_any([left.true, right.true]), _all([left.false, right.false]))
    if operator == "implies":
        return _combine("or", left.swapped(), right)
    true = _any([_all([left.true, right.false]), _all([left.false, right.true])])
    false = _any([_all([left.true, right.true]), _all([left.false, right.false])])
    return Sides(true, false)


def _any(schemas: list[Schema]) -> Schema:
    flat = [inner for each in schemas for inner in (each["anyOf"] if set(each) == {"anyOf"} else [each])]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _all(schemas: list[Schema]) -> Schema:
    flat = [inner for each in schemas if each for inner in (each["allOf"] if set(each) == {"allOf"} else [each])]
    return {} if not flat else flat[0] if len(flat) == 1 else {"allOf": flat}


def _not(schema: Schema) -> Schema:
    return schema["not"] if set(schema) == {"not"} else {"not": schema}
