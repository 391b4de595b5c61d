"""The constraints of the profiles as data: schemas/us-core-6.1.json, read into dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from medtwin.core.errors import ConfigError
from medtwin.core.paths import schema_dir

# Codes by code system; None stands for every code of a system, which is how huge terminologies are checked.
Codes = Mapping[str, frozenset[str] | None]


@dataclass(frozen=True)
class SliceRule:
    """A slice of a repeating element; all slices are open.

    Attributes:
        name: Its name in the profile.
        pattern: What an item has to contain to be of the slice; None if `concept` decides.
        concept: The codes of which an item has one, if it is of the slice.
        min, max: How many items of the slice there may be; max None is no limit.
        elements: Rules for the children of its items.
        invariants: Keys of invariants of its items.
    """

    name: str
    pattern: Any = None
    concept: Codes | None = None
    min: int = 0
    max: int | None = None
    elements: tuple[ElementRule, ...] = ()
    invariants: tuple[str, ...] = ()


@dataclass(frozen=True)
class ElementRule:
    """What a profile demands of one element of its holder.

    Attributes:
        name: Name in JSON (`valueQuantity`), or that of a choice (`value[x]`).
        min, max: How many there may be; max None is no limit.
        types: Types that a choice may have.
        code: Codes that a `code` may have.
        concept, coding: Codes of which a CodeableConcept has at least one, or a Coding has one.
        fixed: The one value that it may have.
        pattern: What the value has to contain.
        targets: Types that a Reference may lead to.
        elements: Rules for its children.
        slices: Its slices.
        invariants: Keys of invariants of its items.
    """

    name: str
    min: int = 0
    max: int | None = None
    types: tuple[str, ...] = ()
    code: frozenset[str] | None = None
    concept: Codes | None = None
    coding: Codes | None = None
    fixed: Any = None
    pattern: Any = None
    targets: frozenset[str] = frozenset()
    elements: tuple[ElementRule, ...] = ()
    slices: tuple[SliceRule, ...] = ()
    invariants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """A profile with the rules of those that it derives from.

    Attributes:
        url: Its canonical, without a version.
        type: The resource type that it is of.
        bases: Canonicals of the profiles of the table that it derives from, the nearest first.
        category, code: It is for the resources that have one of these; for all of the type if both are None.
        is_fallback: Whether it is declared only where no other profile is met.
        layers: Rules of the resource's elements, one tuple for each profile that it derives from and then its own.
        invariants: Keys of invariants of the resource.
    """

    url: str
    type: str
    bases: tuple[str, ...]
    category: Codes | None
    code: Codes | None
    is_fallback: bool
    layers: tuple[tuple[ElementRule, ...], ...]
    invariants: tuple[str, ...]


def load_profiles(path: Path | None = None) -> tuple[Profile, ...]:
    """The profiles in the order of the table; the one that ships with medtwin unless a path is given.

    Raises:
        ConfigError: If the table has a key that no rule knows, or a base that it lacks.
    """
    source = path or schema_dir() / "us-core-6.1.json"
    table = orjson.loads(source.read_bytes())
    prefix, entries = table["prefix"], table["profiles"]
    return tuple(_profile(prefix, name, entries, source) for name in entries)


def _profile(prefix: str, name: str, entries: dict[str, Any], source: Path) -> Profile:
    lineage = [name]
    while (base := entries[lineage[-1]].get("base")) is not None:
        if base not in entries or base in lineage:
            raise ConfigError(f"{source.name}: the base of {lineage[-1]} must be another profile of the table")
        lineage.append(base)
    entry, known = entries[name], {"type", "base", "applies", "fallback", "source", "invariants", "elements"}
    if not set(entry) <= known:
        raise ConfigError(f"{source.name}: {name} must have only the keys {', '.join(sorted(known))}")
    applies = entry.get("applies", {})
    layers = [_elements(entries[each]["elements"], source) for each in reversed(lineage)]
    keys = [key for each in reversed(lineage) for key in entries[each].get("invariants", ())]
    return Profile(
        url=prefix + name,
        type=entry["type"],
        bases=tuple(prefix + each for each in lineage[1:]),
        category=_codes(applies.get("category")),
        code=_codes(applies.get("code")),
        is_fallback=entry.get("fallback", False),
        layers=tuple(layers),
        invariants=tuple(dict.fromkeys(keys)),
    )


def _elements(table: dict[str, Any], source: Path) -> tuple[ElementRule, ...]:
    return tuple(ElementRule(name, **_rule(rule, ElementRule, source)) for name, rule in table.items())


def _rule(table: dict[str, Any], kind: type, source: Path) -> dict[str, Any]:
    unknown = set(table) - {field.name for field in fields(kind)}
    if unknown:
        raise ConfigError(f"{source.name}: a {kind.__name__} has no key {', '.join(sorted(unknown))}")
    rule = dict(table)
    for name in ("concept", "coding"):
        if name in rule:
            rule[name] = _codes(rule[name])
    if "code" in rule:
        rule["code"] = frozenset(rule["code"])
    for name in ("types", "invariants"):
        rule[name] = tuple(rule.get(name, ()))
    if "targets" in rule:
        rule["targets"] = frozenset(rule["targets"])
    rule["elements"] = _elements(rule.get("elements", {}), source)
    if kind is SliceRule:
        del rule["types"]
        return rule
    rule["slices"] = tuple(_slice(name, each, source) for name, each in rule.get("slices", {}).items())
    return rule


def _slice(name: str, table: dict[str, Any], source: Path) -> SliceRule:
    rest = {key: value for key, value in table.items() if key != "match"}
    return SliceRule(name, **_rule(rest | table["match"], SliceRule, source))


def _codes(table: dict[str, Any] | None) -> Codes | None:
    if table is None:
        return None
    return {system: None if codes == "*" else frozenset(codes) for system, codes in table.items()}
