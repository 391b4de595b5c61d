"""Checks of FHIR R4 resources in three layers: a JSON schema, rules, and the models of fhir.resources.

`schema` and `rules` are built from the official definitions and meant for every resource; `models` is slow, and meant
for a sample. What none of them checks: whether LOINC, SNOMED CT or RxNorm have a code, displays, and profiles beyond
the vital signs (`medtwin.fhir.profiles` has those of US Core). docs/fhir_validation.md says more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from medtwin.core.findings import Finding
from medtwin.fhir.checks.chronology import Chronology
from medtwin.fhir.checks.models import check_models
from medtwin.fhir.checks.references import ReferenceBook
from medtwin.fhir.checks.rules import check_rules
from medtwin.fhir.checks.schema import check_schema
from medtwin.fhir.checks.tables import place_of, resource_types
from medtwin.fhir.checks.walk import Visit

__all__ = [
    "LAYERS",
    "STRUCTURAL",
    "Chronology",
    "ReferenceBook",
    "Validation",
    "validate_references",
    "validate_resource",
]

Resource: TypeAlias = dict[str, Any]
LAYERS = ("schema", "rules", "models")
# Rules whose breach means that the resource is not FHIR R4 by its form: a writer that breaks one has a fault.
STRUCTURAL = frozenset(
    {"unknown-type", "unknown-element", "missing-element", "json-type", "format", "empty", "choice", "id", "not-json"}
    | {"value-set", "reference-type", "structure", "nesting"}
)
_UNKNOWN = "resourceType must name a FHIR R4 resource type"
_WITHIN = frozenset({"Bundle", "Parameters"})


@dataclass(slots=True)
class _Part:
    """A resource, or one within it."""

    resource: Any
    root: Resource
    full_urls: dict[str, str] | None
    path: str


def validate_resource(resource: Any, layers: Iterable[str] = LAYERS) -> list[Finding]:
    """Every rule that a resource breaks, and those that resources within it break; no message repeats a value.

    Args:
        resource: Parsed JSON.
        layers: Which of `LAYERS` to run.

    >>> [str(each) for each in validate_resource({"resourceType": "Patient", "gender": "man"}, ["schema"])]
    ['error: Patient gender: the code must be in its required value set [value-set]']
    """
    return _validate(resource, frozenset(layers), None)


def _validate(resource: Any, layers: frozenset[str], book: ReferenceBook | None) -> list[Finding]:
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(kind, str) or kind not in resource_types():
        return [Finding("unknown-type", _UNKNOWN)]
    if "contained" in resource or kind in _WITHIN:
        found = [each for part in _parts(resource) for each in _validate_part(part, layers, book)]
    else:
        found = _validate_one(_Part(resource, resource, None, ""), layers, book)
    if "models" in layers:
        found += check_models(resource)
    if not found:
        return found
    place = place_of(resource)
    return [Finding(each.rule, each.message, each.severity, f"{place} {each.where}".rstrip()) for each in found]


def _validate_part(part: _Part, layers: frozenset[str], book: ReferenceBook | None) -> list[Finding]:
    inner = part.resource
    if not isinstance(inner, dict) or inner.get("resourceType") not in resource_types():
        return [Finding("unknown-type", _UNKNOWN, where=part.path)]
    found = _validate_one(part, layers, book)
    if not part.path:
        return found
    return [Finding(each.rule, each.message, each.severity, f"{part.path}.{each.where}".rstrip(".")) for each in found]


def _validate_one(part: _Part, layers: frozenset[str], book: ReferenceBook | None) -> list[Finding]:
    found = check_schema(part.resource) if "schema" in layers else []
    if "rules" in layers:
        visit = Visit(part.resource, part.root, part.full_urls, references=None if book is None else [])
        ruled = check_rules(visit)
        if ruled:
            known = {(each.rule, each.where) for each in found}
            found = found + [each for each in ruled if (each.rule, each.where) not in known]
        if book is not None:
            book.add(part.resource, visit.references or (), is_root=part.resource is part.root)
    return found


def _parts(resource: Resource) -> Iterator[_Part]:
    """A resource and all resources within it; what is contained knows its container."""
    waiting = [_Part(resource, resource, None, "")]
    while waiting:
        part = waiting.pop()
        yield part
        inner = part.resource
        if not isinstance(inner, dict):
            continue
        prefix = f"{part.path}." if part.path else ""
        contained = inner.get("contained")
        for number, each in enumerate(contained if isinstance(contained, list) else ()):
            waiting.append(_Part(each, part.root, part.full_urls, f"{prefix}contained[{number}]"))
        if inner.get("resourceType") == "Bundle":
            waiting += _entries(inner, prefix)
        elif inner.get("resourceType") == "Parameters":
            waiting += _parameters(inner.get("parameter"), f"{prefix}parameter")


def _entries(bundle: Resource, prefix: str) -> Iterator[_Part]:
    entries = bundle.get("entry")
    listed = [each if isinstance(each, dict) else {} for each in entries] if isinstance(entries, list) else []
    urls = {
        each["fullUrl"]: str(each["resource"].get("resourceType"))
        for each in listed
        if isinstance(each.get("fullUrl"), str) and isinstance(each.get("resource"), dict)
    }
    for number, each in enumerate(listed):
        if "resource" in each:
            yield _Part(each["resource"], each["resource"], urls, f"{prefix}entry[{number}].resource")
        response = each.get("response")
        if isinstance(response, dict) and "outcome" in response:
            yield _Part(response["outcome"], response["outcome"], urls, f"{prefix}entry[{number}].response.outcome")


def _parameters(parameters: Any, path: str) -> Iterator[_Part]:
    for number, each in enumerate(parameters if isinstance(parameters, list) else ()):
        if isinstance(each, dict):
            if "resource" in each:
                yield _Part(each["resource"], each["resource"], None, f"{path}[{number}].resource")
            yield from _parameters(each.get("part"), f"{path}[{number}].part")


@dataclass
class Validation:
    """What the layers found in many resources, by rule and type, with the first places of each.

    Attributes:
        layers: Which to run on every resource.
        sample: Of the models layer, if it is not among `layers`: run it on the first of each type, and on every n-th.
        num_run: How many resources each layer ran on, by layer.
        num_resources: By type.
        counts: How often each rule was broken: (severity, rule, type).
        places: The first of them: type, id and path.
        book: Where references lead; None leaves that unchecked.
    """

    layers: tuple[str, ...] = ("schema", "rules")
    sample: int = 0
    first: int = 20
    num_run: Counter[str] = field(default_factory=Counter)
    num_resources: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    places: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    messages: dict[tuple[str, str, str], str] = field(default_factory=dict)
    book: ReferenceBook | None = None

    def __post_init__(self) -> None:
        unknown = set(self.layers) - set(LAYERS)
        if unknown or not self.layers:
            raise ValueError(f"layers must be some of {', '.join(LAYERS)}, got {', '.join(self.layers) or 'none'}")
        self._layers = frozenset(self.layers)

    def add(self, resource: Any) -> list[Finding]:
        """Checks one resource, enters what was found, and returns it."""
        kind = resource.get("resourceType") if isinstance(resource, dict) else None
        kind = kind if isinstance(kind, str) and kind in resource_types() else "unknown"
        layers = self._layers | {"models"} if self._is_sampled(kind) else self._layers
        self.num_resources[kind] += 1
        for layer in layers if kind != "unknown" else ():
            self.num_run[layer] += 1
        findings = _validate(resource, layers, self.book)
        for finding in findings:
            self.enter(finding, kind)
        return findings

    def _is_sampled(self, kind: str) -> bool:
        number = self.num_resources[kind]
        return self.sample > 0 and (number < self.first or number % self.sample == 0)

    def enter(self, finding: Finding, kind: str) -> None:
        """Enters a finding that was made elsewhere, such as one of a whole set."""
        key = (finding.severity, finding.rule, kind)
        self.counts[key] += finding.count
        self.messages.setdefault(key, finding.message)
        places = self.places.setdefault(key, [])
        if len(places) < 5:
            places.append(finding.where)

    def findings(self) -> list[Finding]:
        """One finding for each rule and type, with its count and first place, errors first."""
        order = {"error": 0, "warning": 1, "information": 2}
        found = []
        for key in sorted(self.counts, key=lambda each: (order[each[0]], each[1], each[2])):
            severity, rule, kind = key
            where = self.places[key][0] or kind
            found.append(Finding(rule, self.messages[key], _severity(severity), where, self.counts[key]))
        return found

    @property
    def num_errors(self) -> int:
        """How many findings make a resource invalid."""
        return sum(count for (severity, _, _), count in self.counts.items() if severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON: resources by type, layers, and the findings by rule and type."""
        return {
            "resources": dict(sorted(self.num_resources.items())),
            "checked": {layer: self.num_run[layer] for layer in LAYERS},
            "errors": self.num_errors,
            "findings": [
                {"severity": key[0], "rule": key[1], "type": key[2], "count": self.counts[key]}
                | {"message": self.messages[key], "first": self.places[key]}
                for key in sorted(self.counts)
            ],
        }


def _severity(text: str) -> Any:
    return text


def validate_references(resources: Iterable[Resource]) -> list[Finding]:
    """References of an export that lead nowhere in it, and ids that stand twice; counted by type and target type."""
    book = ReferenceBook()
    for resource in resources:
        book.add_resource(resource)
    return book.findings()
