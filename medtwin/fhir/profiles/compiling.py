"""Rules of the table as closures: each tells whether an object keeps a rule, and says why not if it is asked to.

A closure takes an object and a list; with None for the list it stops at the first broken rule, which is how
`met_profiles` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medtwin.core.findings import Finding
from medtwin.fhir.profiles.invariants import INVARIANTS, Invariant
from medtwin.fhir.profiles.table import Codes, ElementRule, Profile, SliceRule

Found = list[Finding] | None
Check = Callable[[Any, Found], bool]
_CODING = {"system", "code"}


def compile_profile(profile: Profile) -> Check:
    """A closure that checks a resource against a profile; it takes the type for granted.

    The closure is given the resource and a list for findings, or None.
    """
    checks = [_element(rule, f"{profile.type}.{rule.name}") for layer in profile.layers for rule in layer]
    checks += [_invariant(INVARIANTS[key], profile.type) for key in profile.invariants]
    return _all_of(checks)


def _all_of(checks: list[Check]) -> Check:
    parts = tuple(checks)
    if len(parts) == 1:
        return parts[0]

    def check(value: Any, found: Found) -> bool:
        if found is None:
            for part in parts:  # noqa: SIM110 - a generator would cost more than the checks
                if not part(value, None):
                    return False
            return True
        kept = [part(value, found) for part in parts]
        return all(kept)

    return check


def _fail(found: Found, rule: str, message: str, where: str) -> bool:
    if found is not None:
        found.append(Finding(rule, message, where=where))
    return False


def _invariant(invariant: Invariant, path: str) -> Check:
    holds, message = invariant.holds, invariant.message
    key = "us-core-6" if invariant.key.startswith("us-core-6-") else invariant.key

    def check(value: Any, found: Found) -> bool:
        return holds(value) or _fail(found, key, message, path)

    return check


def _element(rule: ElementRule, path: str) -> Check:
    """Checks an element of the object that holds it."""
    checks = _value_checks(rule, path)
    if rule.name.endswith("[x]"):
        return _choice(rule, path)
    checks += [_slice(each, path) for each in rule.slices]
    return _cardinality(rule, _all_of(checks) if checks else None, path)


def _cardinality(rule: ElementRule, inner: Check | None, path: str) -> Check:
    """Counts the items of an element and gives them, as a list, to the rules for them."""
    name, shadow, least, most = rule.name, f"_{rule.name}", rule.min, rule.max
    may_be_extension = rule.code is None and rule.fixed is None
    fewest = (
        f"there must be at least {least}, or a data-absent-reason" if may_be_extension else "the value must be there"
    )

    def check(holder: Any, found: Found) -> bool:
        value = holder.get(name)
        if value is None:
            if least and not (may_be_extension and shadow in holder):
                return _fail(found, "min", fewest, path)
            return True
        items = value if type(value) is list else (value,)
        if len(items) < least:
            return _fail(found, "min", fewest, path)
        if most is not None and len(items) > most:
            return _fail(found, "max", f"there must be at most {most}", path)
        return inner is None or inner(items, found)

    return check


def _choice(rule: ElementRule, path: str) -> Check:
    """Whether a choice is there and of an allowed type; rules for one type stand under its own name."""
    stem = rule.name.removesuffix("[x]")
    size, least, most = len(stem), rule.min, rule.max
    allowed = frozenset(f"{stem}{each[0].upper()}{each[1:]}" for each in rule.types)
    wanted = f"the type must be one of {', '.join(rule.types)}"

    def check(holder: Any, found: Found) -> bool:
        is_there = False
        for key in holder:
            bare = key[1:] if key.startswith("_") else key
            if bare.startswith(stem) and bare[size : size + 1].isupper():
                is_there = True
                if allowed and bare not in allowed:
                    return _fail(found, "types", wanted, path)
        if least and not is_there:
            return _fail(found, "min", "there must be at least 1, or a data-absent-reason", path)
        if most == 0 and is_there:
            return _fail(found, "max", "there must be at most 0", path)
        return True

    return check


def _value_checks(rule: ElementRule, path: str) -> list[Check]:
    """Checks of the items of an element, each of which is given the list of them."""
    checks: list[Check] = []
    if rule.code is not None:
        checks.append(_each(_code(rule.code, path)))
    if rule.fixed is not None:
        checks.append(_each(_fixed(rule.fixed, path)))
    objects: list[Check] = []
    if rule.pattern is not None:
        objects.append(_pattern(rule.pattern, path))
    if rule.concept is not None:
        objects.append(_concept(rule.concept, path))
    if rule.coding is not None:
        objects.append(_coding(rule.coding, path))
    if rule.targets:
        objects.append(_target(rule.targets, path))
    objects += [_element(each, f"{path}.{each.name}") for each in rule.elements]
    objects += [_invariant(INVARIANTS[key], path) for key in rule.invariants]
    if objects or rule.slices:
        checks.append(_each(_object(objects, path)))
    return checks


def _each(inner: Check) -> Check:
    def check(items: Any, found: Found) -> bool:
        is_kept = True
        for item in items:
            if not inner(item, found):
                if found is None:
                    return False
                is_kept = False
        return is_kept

    return check


def _object(checks: list[Check], path: str) -> Check:
    inner = _all_of(checks)

    def check(item: Any, found: Found) -> bool:
        if type(item) is not dict:
            return _fail(found, "structure", "the element must be an object", path)
        return inner(item, found)

    return check


def _code(codes: frozenset[str], path: str) -> Check:
    def check(item: Any, found: Found) -> bool:
        if type(item) is str and item in codes:
            return True
        return _fail(found, "code", "the code must be in the required value set", path)

    return check


def _fixed(value: Any, path: str) -> Check:
    def check(item: Any, found: Found) -> bool:
        return item == value or _fail(found, "fixed", f"the value must be {value}", path)

    return check


def _pattern(pattern: Any, path: str) -> Check:
    matches = matcher(pattern)

    def check(item: Any, found: Found) -> bool:
        return matches(item) or _fail(found, "pattern", "the element must contain the profile's pattern", path)

    return check


def matcher(pattern: Any) -> Callable[[Any], bool]:
    """Whether a value contains a pattern, as FHIR's pattern[x] says: extra elements and extra list items are allowed.

    >>> is_lab = matcher({"coding": [{"code": "laboratory"}]})
    >>> is_lab({"coding": [{"code": "exam"}, {"code": "laboratory", "display": "Lab"}]}), is_lab({"text": "Lab"})
    (True, False)
    """
    if isinstance(pattern, dict):
        parts = tuple((name, matcher(each)) for name, each in pattern.items())
        if list(pattern) == ["coding"] and len(pattern["coding"]) == 1 and set(pattern["coding"][0]) == _CODING:
            return _coding_matcher(**pattern["coding"][0])

        def is_within(value: Any) -> bool:
            if type(value) is not dict:
                return False
            for name, part in parts:  # noqa: SIM110 - a generator would cost more than the checks
                if not part(value.get(name)):
                    return False
            return True

        return is_within
    if isinstance(pattern, list):
        inner = [matcher(each) for each in pattern]
        return lambda value: type(value) is list and all(any(part(each) for each in value) for part in inner)
    return lambda value: bool(value == pattern)


def _coding_matcher(system: str, code: str) -> Callable[[Any], bool]:
    """The commonest pattern, a CodeableConcept with one coding, without a closure for each of its parts."""

    def has_coding(value: Any) -> bool:
        codings = value.get("coding") if type(value) is dict else None
        if type(codings) is not list:
            return False
        for coding in codings:
            if type(coding) is dict and coding.get("code") == code and coding.get("system") == system:
                return True
        return False

    return has_coding


def is_in(codes: Codes, coding: Any) -> bool:
    """Whether a Coding is of a set of codes."""
    if type(coding) is not dict:
        return False
    system, code = coding.get("system"), coding.get("code")
    if type(system) is not str or type(code) is not str or system not in codes:
        return False
    allowed = codes[system]
    return allowed is None or code in allowed


def has_code_of(codes: Codes, concept: Any) -> bool:
    """Whether a CodeableConcept has a coding of a set of codes."""
    codings = concept.get("coding") if type(concept) is dict else None
    if type(codings) is not list:
        return False
    for coding in codings:  # noqa: SIM110 - as above
        if is_in(codes, coding):
            return True
    return False


def _concept(codes: Codes, path: str) -> Check:
    def check(item: Any, found: Found) -> bool:
        if has_code_of(codes, item):
            return True
        return _fail(found, "concept", "a coding must be in the required value set", path)

    return check


def _coding(codes: Codes, path: str) -> Check:
    def check(item: Any, found: Found) -> bool:
        return is_in(codes, item) or _fail(found, "coding", "the coding must be in the required value set", path)

    return check


def _target(targets: frozenset[str], path: str) -> Check:
    wanted = f"the reference must be to {' or '.join(sorted(targets))}"

    def check(item: Any, found: Found) -> bool:
        text = item.get("reference")
        if type(text) is str and text.partition("/")[0] in targets:
            return True
        kind = target_type(item)
        return kind is None or kind in targets or _fail(found, "target", wanted, path)

    return check


def target_type(reference: Mapping[str, Any]) -> str | None:
    """The type that a Reference leads to; None if it does not say, as `#id` and urn:uuid do not.

    >>> target_type({"reference": "https://host/fhir/Patient/1/_history/2"}), target_type({"reference": "#a"})
    ('Patient', None)
    """
    text = reference.get("reference")
    if isinstance(text, str) and not text.startswith(("#", "urn:")):
        steps = text.partition("?")[0].partition("/_history/")[0].split("/")
        kind = steps[-2] if len(steps) > 1 else steps[0] if "?" in text else ""
        if kind.isalpha() and kind[0].isupper():
            return kind
    named = reference.get("type")
    return named if isinstance(named, str) else None


def _slice(rule: SliceRule, path: str) -> Check:
    """Counts the items of a slice, and checks them by its rules."""
    where = f"{path}:{rule.name}"
    codes, least, most = rule.concept, rule.min, rule.max
    matches = matcher(rule.pattern) if codes is None else lambda item: has_code_of(codes, item)
    checks = [_element(each, f"{where}.{each.name}") for each in rule.elements]
    checks += [_invariant(INVARIANTS[key], where) for key in rule.invariants]
    inner = _each(_all_of(checks)) if checks else None

    def check(items: Any, found: Found) -> bool:
        members = [item for item in items if matches(item)]
        if len(members) < least:
            return _fail(found, "slice-min", f"there must be at least {least} of this slice", where)
        if most is not None and len(members) > most:
            return _fail(found, "slice-max", f"there must be at most {most} of this slice", where)
        return inner is None or inner(members, found)

    return check
