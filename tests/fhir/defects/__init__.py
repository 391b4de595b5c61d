"""A set of single defects planted in valid R4 resources, written from the specification before medtwin's rules.

``bases.ndjson`` holds the valid resources: those named ``min.<Type>`` come from `minimal`, the others were written by
hand and form one hospital, whose references resolve. ``defects.ndjson`` holds the defects: what is set or dropped in
which base, and the rule of FHIR R4 (4.0.1) that this breaks. The set measures the rules and is kept apart from their
development: a miss is a figure to report, and no rule is written after looking at one.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SET_KINDS = ("dangling", "duplicate-id")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

Resource = dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """One defect: `what` is wrong in the changed `base`, and the `rule` of the specification that says so."""

    kind: str
    base: str
    what: str
    rule: str
    drop: tuple[str, ...]
    set: dict[str, Any]

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.base}: {self.what}"

    @property
    def type(self) -> str:
        """The resource type of its base."""
        return self.base.removeprefix("min.").split(".")[0]

    def plant(self, bases: dict[str, Resource]) -> Resource:
        """The broken resource."""
        resource = copy.deepcopy(bases[self.base])
        for path in self.drop:
            _change(resource, path, None, drop=True)
        for path, value in self.set.items():
            _change(resource, path, copy.deepcopy(value), drop=False)
        return resource

    def plant_in_hospital(self, bases: dict[str, Resource]) -> list[Resource]:
        """The hospital with the broken resource in place of its base."""
        return [self.plant(bases) if name == self.base else resource for name, resource in hospital(bases).items()]


def read_bases() -> dict[str, Resource]:
    """The valid resources by name."""
    lines = (FOLDER / "bases.ndjson").read_text(encoding="utf-8").splitlines()
    return {line["base"]: line["resource"] for line in map(json.loads, lines)}


def hospital(bases: dict[str, Resource]) -> dict[str, Resource]:
    """The resources written by hand, by name: every reference among them resolves."""
    return {name: resource for name, resource in bases.items() if not name.startswith(("min.", "Bundle."))}


def read_defects() -> list[Defect]:
    """The defects, in the order of the file."""
    lines = (FOLDER / "defects.ndjson").read_text(encoding="utf-8").splitlines()
    return [
        Defect(line["kind"], line["base"], line["what"], line["rule"], tuple(line.get("drop", ())), line.get("set", {}))
        for line in map(json.loads, lines)
    ]


def _change(resource: Resource, path: str, value: Any, *, drop: bool) -> None:
    """Sets or drops what stands at `path`; an index one past the end of a list appends to it."""
    steps: list[str | int] = [name or int(index) for name, index in _STEP.findall(path)]
    place: Any = resource
    for step in steps[:-1]:
        place = place[step]
    last = steps[-1]
    if drop:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
