"""Every constraint of a profile as a way to break it, made from the table, so that none can be forgotten."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from medtwin.fhir.profiles.compiling import has_code_of, matcher
from medtwin.fhir.profiles.invariants import ABSENT_URL, items_of
from medtwin.fhir.profiles.table import ElementRule, Profile, SliceRule

Resource = dict[str, Any]
Steps = tuple[tuple[str, SliceRule | None], ...]


@dataclass(frozen=True)
class Mutation:
    """A constraint and how to break it.

    Attributes:
        rule: The rule that must then be found.
        where: The path at which it must be found.
        steps: The way to the objects that hold the element.
        breaks: Changes one of those objects.
    """

    rule: str
    where: str
    steps: Steps
    breaks: Callable[[Resource], None]

    def applied(self, sample: Resource) -> Resource:
        """A copy of the sample that breaks the constraint.

        Raises:
            LookupError: If the sample lacks what is to be broken.
        """
        broken = copy.deepcopy(sample)
        holders = _holders(broken, self.steps)
        if not holders:
            raise LookupError(f"the sample has no {self.where}")
        self.breaks(holders[-1])
        if broken == sample:
            raise LookupError(f"breaking {self.rule} at {self.where} changed nothing")
        return broken


def _holders(resource: Resource, steps: Steps) -> list[Resource]:
    holders = [resource]
    for name, slice_ in steps:
        items = [item for holder in holders for item in items_of(holder.get(name))]
        holders = [item for item in items if slice_ is None or is_member(slice_, item)]
    return holders


def is_member(slice_: SliceRule, item: Any) -> bool:
    if slice_.concept is not None:
        return has_code_of(slice_.concept, item)
    return matcher(slice_.pattern)(item)


def mutations(profile: Profile) -> Iterator[Mutation]:
    """One mutation for each constraint of a profile and of those that it derives from."""
    for layer in profile.layers:
        for rule in layer:
            yield from _of_element(rule, (), profile.type)
    for key in profile.invariants:
        yield Mutation(key, profile.type, (), BREAKERS[key])


def _of_element(rule: ElementRule, steps: Steps, path: str) -> Iterator[Mutation]:
    where = f"{path}.{rule.name}"
    if rule.name.endswith("[x]"):
        yield from _of_choice(rule, steps, where)
        return
    for kind, breaks in _breakers(rule):
        yield Mutation(kind, where, steps, breaks)
    inner = (*steps, (rule.name, None))
    for child in rule.elements:
        yield from _of_element(child, inner, where)
    for key in rule.invariants:
        yield Mutation(_bare(key), where, inner, BREAKERS[key])
    for slice_ in rule.slices:
        yield from _of_slice(rule, slice_, steps, where)


def _bare(key: str) -> str:
    return "us-core-6" if key.startswith("us-core-6-") else key


def _of_choice(rule: ElementRule, steps: Steps, where: str) -> Iterator[Mutation]:
    stem = rule.name.removesuffix("[x]")

    def forms(holder: Resource) -> list[str]:
        return [key for key in holder if key.startswith(stem) and key[len(stem) :][:1].isupper()]

    def drop(holder: Resource) -> None:
        for key in forms(holder):
            del holder[key]

    def rename(holder: Resource) -> None:
        for key in forms(holder):
            holder[f"{stem}Attachment"] = holder.pop(key)

    if rule.min:
        yield Mutation("min", where, steps, drop)
    if rule.types:
        yield Mutation("types", where, steps, rename)
    if rule.max == 0:
        yield Mutation("max", where, steps, lambda holder: holder.update({f"{stem}String": "x"}))


def _breakers(rule: ElementRule) -> Iterator[tuple[str, Callable[[Resource], None]]]:
    name = rule.name

    def replace_with(value: Any) -> Callable[[Resource], None]:
        def replace(holder: Resource) -> None:
            # Only the last of several, so that a slice keeps its other items.
            holder[name] = [*holder[name][:-1], value] if isinstance(holder[name], list) else value

        return replace

    def drop(holder: Resource) -> None:
        if rule.min > 1:
            holder[name] = holder[name][: rule.min - 1]
        else:
            del holder[name]

    def repeat(holder: Resource) -> None:
        holder[name] = [items_of(holder[name])[0]] * ((rule.max or 0) + 1)

    alien = {"system": "urn:x:alien", "code": "alien"}
    made = {
        "min": (bool(rule.min), drop),
        "max": (rule.max is not None, repeat),
        "code": (rule.code is not None, replace_with("alien")),
        "fixed": (rule.fixed is not None, replace_with("alien")),
        "pattern": (rule.pattern is not None, replace_with({"coding": [alien]})),
        "concept": (rule.concept is not None, replace_with({"coding": [alien], "text": "alien"})),
        "coding": (rule.coding is not None, replace_with(alien)),
        "target": (bool(rule.targets), replace_with({"reference": "Basic/b1"})),
        "structure": (bool(rule.elements or rule.slices), replace_with("alien")),
    }
    yield from ((kind, breaks) for kind, (is_demanded, breaks) in made.items() if is_demanded)


def _of_slice(rule: ElementRule, slice_: SliceRule, steps: Steps, where: str) -> Iterator[Mutation]:
    path = f"{where}:{slice_.name}"

    def drop(holder: Resource) -> None:
        others = [item for item in holder[rule.name] if not is_member(slice_, item)]
        filler: Resource = {"text": "other", "dataAbsentReason": {"text": "other"}, "code": {"text": "other"}}
        holder[rule.name] = others + [filler] * (max(rule.min, 1) - len(others))

    def repeat(holder: Resource) -> None:
        member = next(item for item in holder[rule.name] if is_member(slice_, item))
        holder[rule.name] += [copy.deepcopy(member) for _ in range(slice_.max or 1)]

    if slice_.min:
        yield Mutation("slice-min", path, steps, drop)
    if slice_.max is not None:
        yield Mutation("slice-max", path, steps, repeat)
    inner = (*steps, (rule.name, slice_))
    for child in slice_.elements:
        yield from _of_element(child, inner, path)
    for key in slice_.invariants:
        yield Mutation(_bare(key), path, inner, BREAKERS[key])


def _without(*names: str) -> Callable[[Resource], None]:
    def breaks(holder: Resource) -> None:
        for key in [key for key in holder if key.startswith(names)]:
            del holder[key]

    return breaks


def _with(**elements: Any) -> Callable[[Resource], None]:
    return lambda holder: holder.update(elements)


def _without_value(holder: Resource) -> None:
    _without("value", "component", "hasMember", "dataAbsentReason")(holder)


def _without_day(holder: Resource) -> None:
    holder["effectiveDateTime"] = "2024-03"


def _local_unit(holder: Resource) -> None:
    holder["valueQuantity"]["system"] = "urn:x:units"


# What breaks each invariant, given an object that keeps it.
BREAKERS: dict[str, Callable[[Resource], None]] = {
    "us-core-1": _without_day,
    "us-core-2": _without_value,
    "us-core-3": _local_unit,
    "us-core-6-name": _with(extension=[{"url": ABSENT_URL, "valueCode": "masked"}]),
    "us-core-6-attachment": _without("url", "data"),
    "us-core-7": _without("performed"),
    "us-core-8": _without("effective"),
    "us-core-9": _without("issued"),
    "us-core-10": _without("effective"),
    "us-core-13": _without("practitioner", "organization", "location", "healthcareService"),
    "pd-1": _without("telecom", "endpoint"),
    "us-core-14": _without("name", "relationship"),
    "us-core-15": _without("identifier", "subscriberId"),
    "us-core-16": _with(value="123456789"),
    "us-core-17": _with(value="1234567890"),
    "us-core-18": _with(value="1234567890"),
    "us-core-19": _with(value="1234"),
    "us-core-20": _without("whenHandedOver"),
    "us-core-21": _without("requester"),
    "provenance-1": _without("onBehalfOf"),
    "vs-1": _without_day,
    "vs-2": _without_value,
    "vs-3": _without("value", "dataAbsentReason"),
}
