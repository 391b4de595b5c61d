"""The first pass over a source: who its patients are, and what other resources are referred to for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pyarrow as pa

from medtwin.core.dataset import ACTORS_SCHEMA
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir.codings import ShapeError, as_list, as_object, concept_codes, parse_reference
from medtwin.fhir.elements import ACTORS
from medtwin.fhir.reading.source import FhirSource, Item, Scope, is_ndjson
from medtwin.fhir.terms import HTEST_SYSTEM, ORIGIN_SYSTEM
from medtwin.fhir.times import BadDateError, Moment, parse_moment

Key = tuple[str, str]
# What is looked up when something else refers to it.
INDEXED = frozenset({"Patient", "Encounter", "Medication", *ACTORS})
# Links that say that two Patient resources are one person, and which of them stays.
_REPLACED_BY, _REPLACES = "replaced-by", "replaces"


class IncompleteIndexError(Exception):
    """A resource that is looked up stands where the index did not look: index the whole source, and read again."""


@dataclass(frozen=True, slots=True)
class Medication:
    """What a Medication is: its codings; of a mixture without a code, those of each ingredient."""

    codes: tuple[str, ...] = ()
    ingredients: tuple[tuple[str, ...], ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncounterPeriod:
    """Whose encounter it is, and when it was, before any shift."""

    patient: Key | None
    start: Moment | None
    end: Moment | None


@dataclass
class FhirIndex:
    """What the second pass looks up.

    Attributes:
        identities: `mr:<medical record number>` or `fhir:<id>` by Patient id: private.
        aliases: Every `mr:<medical record number>` of a patient to the identity that stands for them all: private.
        origins: How many patients bear each of our origin marks together with HTEST; "" for none.
        replaced: The Patient that stands for one that its source replaced, by id.
        actors: Codes of every Location, Organization, Practitioner and PractitionerRole.
        files: The files that were indexed; None: all of them.
    """

    identities: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    origins: Counter[str] = field(default_factory=Counter)
    medications: dict[str, Medication] = field(default_factory=dict)
    encounters: dict[str, EncounterPeriod] = field(default_factory=dict)
    actors: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    files: frozenset[str] | None = None
    _identifiers: dict[Key, str] = field(default_factory=dict)
    _links: list[tuple[str, Any, str, Scope]] = field(default_factory=list)
    _unresolved: dict[str, tuple[Any, Scope]] = field(default_factory=dict)
    _urls: dict[str, Key] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """`simulated` or `synthetic` if every patient is marked so, else `real`."""
        marks = set(self.origins)
        return marks.pop() if len(marks) == 1 and "" not in marks else "real"

    def subject_ids(self, pseudonyms: Pseudonyms) -> dict[str, int]:
        """The private map: identity to subject_id."""
        return {identity: pseudonyms.subject_id(identity) for identity in sorted(set(self.identities.values()))}

    def resolve(self, reference: Any, scope: Scope, path: str) -> Key | None:
        """Type and id of what a Reference means; None if it cannot be told.

        Raises:
            ShapeError: If an element of it has the wrong JSON type.
        """
        text = as_object(reference, path).get("reference")
        if text is None:
            return self._by_identifier(reference)
        if not isinstance(text, str):
            raise ShapeError(f"{path}.reference must be a string")
        if text in scope.full_urls:
            return scope.full_urls[text]
        if "?" in text:
            return self._by_search(text)
        return parse_reference(text) or self._urls.get(text)

    def _by_search(self, text: str) -> Key | None:
        """`Patient?identifier=system|value`."""
        parts = urlsplit(text)
        values = parse_qs(parts.query).get("identifier", [])
        return self._identified(parts.path.rpartition("/")[2], values[0]) if len(values) == 1 else None

    def _by_identifier(self, reference: dict[str, Any]) -> Key | None:
        identifier = reference.get("identifier")
        if not isinstance(identifier, dict):
            return None
        text = f"{identifier.get('system') or ''}|{identifier.get('value')}"
        kinds = [reference["type"]] if isinstance(reference.get("type"), str) else ["Patient", *ACTORS]
        return next((found for kind in kinds if (found := self._identified(kind, text))), None)

    def _identified(self, kind: str, identifier: str) -> Key | None:
        name = self._identifiers.get((kind, identifier))
        return (kind, name) if name is not None else None

    def add(self, item: Item) -> None:
        """Takes one resource; what is malformed is left for the second pass to reject."""
        if item.kind not in INDEXED:
            return
        try:
            resource = item.parsed()
        except orjson.JSONDecodeError:
            return
        kind, name = item.kind, name_of(item, resource.get("id"))
        if name is None:
            return
        if item.full_url is not None:
            self._urls[item.full_url] = (kind, name)
        if kind == "Patient":
            self._add_patient(resource, name, item.scope)
        elif kind == "Encounter":
            self._add_encounter(resource, name, item.scope)
        elif kind == "Medication":
            self.medications[name] = read_medication(resource)
        elif (kind, name) not in self.actors:
            self.actors[kind, name] = actor_codes(kind, resource)
            self._add_identifiers(kind, resource, name)

    def _add_identifiers(self, kind: str, resource: dict[str, Any], name: str) -> list[str]:
        """Takes the identifiers of a resource; gives its medical record numbers."""
        record_numbers = []
        for identifier in _objects(resource.get("identifier")):
            value = identifier.get("value")
            if isinstance(value, str) and value.strip():
                self._identifiers[kind, f"{identifier.get('system') or ''}|{value}"] = name
                self._identifiers.setdefault((kind, value), name)
                if _is_record_number(identifier):
                    record_numbers.append(value.strip())
        return record_numbers

    def _add_encounter(self, resource: dict[str, Any], name: str, scope: Scope) -> None:
        """Takes an encounter that the second pass can carry: what belongs to another one belongs to none."""
        period = _encounter_period(self, resource, scope)
        if period.start is None or resource.get("status") == "entered-in-error":
            return
        self.encounters.setdefault(name, period)
        if period.patient is None:
            self._unresolved[name] = (resource.get("subject"), scope)

    def _add_patient(self, resource: dict[str, Any], name: str, scope: Scope) -> None:
        if name in self.identities:
            return
        record_numbers = self._add_identifiers("Patient", resource, name)
        self.identities[name] = f"mr:{record_numbers[0]}" if record_numbers else f"fhir:{name}"
        for number in record_numbers:
            self.aliases.setdefault(f"mr:{number}", self.identities[name])
        self.origins[_origin_mark(resource)] += 1
        for link in _objects(resource.get("link")):
            if link.get("type") in (_REPLACED_BY, _REPLACES):
                self._links.append((name, link.get("other"), str(link["type"]), scope))

    def finish(self) -> None:
        """Resolves what came before that which it refers to: subjects of encounters, and links between patients."""
        for name, (subject, scope) in self._unresolved.items():
            patient = self._resolved(subject, scope)
            self.encounters[name] = replace(self.encounters[name], patient=patient)
        self._unresolved.clear()
        for name, other, kind, scope in self._links:
            found = self._resolved(other, scope)
            if found is not None and found[0] == "Patient" and found[1] in self.identities and found[1] != name:
                old, new = (name, found[1]) if kind == _REPLACED_BY else (found[1], name)
                self.replaced.setdefault(old, new)
        self._links.clear()
        self._join_replaced()

    def _resolved(self, reference: Any, scope: Scope) -> Key | None:
        if isinstance(reference, dict) and isinstance(reference.get("reference", ""), str):
            return self.resolve(reference, scope, "reference")
        return None

    def _join_replaced(self) -> None:
        """Gives patients that were replaced the identity of the one that stands for them; a ring of them has none."""
        survivors = {name: self._survivor(name) for name in self.replaced}
        self.replaced = {name: last for name, last in survivors.items() if last is not None}
        for name, last in self.replaced.items():
            own, joined = self.identities[name], self.identities[last]
            self.identities[name] = joined
            self.aliases.update({alias: joined for alias, identity in self.aliases.items() if identity == own})

    def _survivor(self, name: str) -> str | None:
        seen: set[str] = set()
        while name in self.replaced:
            if name in seen:
                return None
            seen.add(name)
            name = self.replaced[name]
        return name


# How many resources of a file of NDJSON tell what it holds.
_SAMPLE = 64
_MAX_ID = 256


def index_source(source: FhirSource, *, whole: bool = True) -> FhirIndex:
    """The index of a source: the first of two passes.

    Args:
        source: The files.
        whole: Look into every file. Else NDJSON files whose first resources are none that are looked up are passed
            over; `read_tables` raises `IncompleteIndexError` if such a resource stands further down in one.
    """
    index = FhirIndex(files=None if whole else frozenset(_likely_files(source)))
    for item in source.items(index.files):
        index.add(item)
    index.finish()
    return index


def _likely_files(source: FhirSource) -> Iterable[str]:
    for path, name in source.files:
        sample = islice(source.items([name]), _SAMPLE) if is_ndjson(path) else ()
        if not is_ndjson(path) or any(item.kind in INDEXED or item.kind == "Bundle" for item in sample):
            yield name


def item_id(item: Item) -> str | None:
    """The id of an item's resource; one without an id goes by its place; None if the id is no text."""
    raw = (item.fields or {}).get("id")
    if raw is None:
        return name_of(item, None)
    name = orjson.loads(bytes(raw))
    return name if isinstance(name, str) and 0 < len(name) <= _MAX_ID else name_of(item, name)


def name_of(item: Item, name: Any) -> str | None:
    """What a resource goes by whose id is `name`."""
    if name is None:
        return f"{item.file}#{item.line}"
    return name if isinstance(name, str) and 0 < len(name) <= _MAX_ID else None


# The elements that say what kind of actor it is.
_ACTOR_CODES = {
    "Location": ("type", "physicalType"),
    "Organization": ("type",),
    "Practitioner": ("qualification",),
    "PractitionerRole": ("code", "specialty"),
}


def actor_codes(kind: str, resource: dict[str, Any]) -> tuple[str, ...]:
    """The codings that say what an actor is, as `SYSTEM//code`, each once; malformed ones give none."""
    found: dict[str, None] = {}
    for name in _ACTOR_CODES[kind]:
        values = resource.get(name)
        for value in _objects(values if isinstance(values, list) else [values]):
            try:
                concept = value.get("code") if name == "qualification" else value
                found.update(dict.fromkeys(concept_codes(concept or {}, name)))
            except ShapeError:
                continue
    return tuple(found)


def actors_table(actors: Mapping[Key, tuple[str, ...]], pseudonyms: Pseudonyms) -> pa.Table:
    """metadata/actors.parquet: actor_id, resource, codes, (actors,), by id; the ids are pseudonyms."""
    rows = sorted((pseudonyms.event_id(*key), key[0], list(codes)) for key, codes in actors.items())
    columns = [[row[at] for row in rows] for at in range(3)]
    return pa.table(columns, schema=ACTORS_SCHEMA)


def actor_elements(kind: str) -> tuple[str, ...]:
    """The elements of an actor that are read."""
    return ("resourceType", "id", *_ACTOR_CODES[kind])


def read_medication(resource: dict[str, Any]) -> Medication:
    """The codings of a Medication, and of its ingredients where it has none itself; empty if it is malformed."""
    try:
        codes = concept_codes(resource.get("code") or {}, "Medication.code")
        if codes:
            return Medication(tuple(codes))
        ingredients, references = [], []
        for ingredient in _objects(resource.get("ingredient")):
            coded = concept_codes(ingredient.get("itemCodeableConcept") or {}, "Medication.ingredient")
            if coded:
                ingredients.append(tuple(coded))
            found = parse_reference(str((ingredient.get("itemReference") or {}).get("reference")))
            if found is not None:
                references.append(found[1])
    except (ShapeError, AttributeError):
        return Medication()
    return Medication((), tuple(ingredients), tuple(references))


def _encounter_period(index: FhirIndex, resource: dict[str, Any], scope: Scope) -> EncounterPeriod:
    patient, moments = None, []
    try:
        subject = resource.get("subject")
        patient = index.resolve(subject, scope, "Encounter.subject") if subject is not None else None
        period = as_object(resource.get("period") or {}, "Encounter.period")
        for name in ("start", "end"):
            text = period.get(name)
            moments.append(parse_moment(text) if isinstance(text, str) else None)
    except (ShapeError, BadDateError):
        return EncounterPeriod(patient, None, None)
    return EncounterPeriod(patient, moments[0], moments[1])


def _objects(values: Any) -> Iterable[dict[str, Any]]:
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else ()


def _is_record_number(identifier: dict[str, Any]) -> bool:
    kind = identifier.get("type")
    codings = kind.get("coding") if isinstance(kind, dict) else None
    return any(coding.get("code") == "MR" for coding in _objects(codings))


def _origin_mark(resource: dict[str, Any]) -> str:
    meta = resource.get("meta")
    if not isinstance(meta, dict):
        return ""
    labels = [(label.get("system"), label.get("code")) for label in _objects(meta.get("security"))]
    marks = [tag.get("code") for tag in _objects(meta.get("tag")) if tag.get("system") == ORIGIN_SYSTEM]
    if (HTEST_SYSTEM, "HTEST") in labels and marks and marks[0] in ("simulated", "synthetic"):
        return str(marks[0])
    return ""


def contained_resources(contained: Any) -> dict[str, dict[str, Any]]:
    """The contained resources by `#id`.

    Raises:
        ShapeError: If `contained` is not a list.
    """
    return {f"#{each.get('id')}": each for each in _objects(as_list(contained, "contained"))}
