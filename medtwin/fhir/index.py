"""The first pass over a source: who its patients are, and what other resources are referred to for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir.codings import ShapeError, as_list, as_object, concept_codes, parse_reference
from medtwin.fhir.source import FhirSource, Item, Scope
from medtwin.fhir.times import BadDateError, Moment, parse_moment

# Our own mark of what is no real patient, beside HL7's security label HTEST.
ORIGIN_SYSTEM = "urn:medtwin:origin"
HTEST_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

Key = tuple[str, str]
_INDEXED = ("Patient", "Encounter", "Medication")
# A line of NDJSON that holds none of these words is no resource to index.
_WORDS = tuple(f'"{name}"'.encode() for name in (*_INDEXED, "Bundle"))


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
    """

    identities: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    origins: Counter[str] = field(default_factory=Counter)
    medications: dict[str, Medication] = field(default_factory=dict)
    encounters: dict[str, EncounterPeriod] = field(default_factory=dict)
    _identifiers: dict[str, str] = field(default_factory=dict)
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
            return self._by_identifier(reference.get("identifier"))
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
        if parts.path.rpartition("/")[2] != "Patient" or len(values) != 1:
            return None
        patient = self._identifiers.get(values[0])
        return ("Patient", patient) if patient is not None else None

    def _by_identifier(self, identifier: Any) -> Key | None:
        if not isinstance(identifier, dict):
            return None
        patient = self._identifiers.get(f"{identifier.get('system') or ''}|{identifier.get('value')}")
        return ("Patient", patient) if patient is not None else None

    def add(self, item: Item) -> None:
        """Takes one resource; what is malformed is left for the second pass to reject."""
        resource = item.resource
        if not isinstance(resource, dict) or resource.get("resourceType") not in _INDEXED:
            return
        kind, name = resource["resourceType"], item_id(item)
        if name is None:
            return
        if item.full_url is not None:
            self._urls[item.full_url] = (kind, name)
        if kind == "Patient":
            self._add_patient(resource, name)
        elif kind == "Encounter":
            self._add_encounter(item, name)
        else:
            self.medications[name] = read_medication(resource)

    def _add_encounter(self, item: Item, name: str) -> None:
        """Takes an encounter that the second pass can carry: what belongs to another one belongs to none."""
        period = _encounter_period(self, item)
        if period.start is None or item.resource.get("status") == "entered-in-error":
            return
        self.encounters.setdefault(name, period)
        if period.patient is None:
            self._unresolved[name] = (item.resource.get("subject"), item.scope)

    def finish(self) -> None:
        """Resolves the subjects of encounters that came before their patient."""
        for name, (subject, scope) in self._unresolved.items():
            if isinstance(subject, dict) and isinstance(subject.get("reference", ""), str):
                patient = self.resolve(subject, scope, "Encounter.subject")
                self.encounters[name] = replace(self.encounters[name], patient=patient)
        self._unresolved.clear()

    def _add_patient(self, resource: dict[str, Any], name: str) -> None:
        if name in self.identities:
            return
        record_numbers = []
        for identifier in _objects(resource.get("identifier")):
            value = identifier.get("value")
            if isinstance(value, str) and value.strip():
                self._identifiers[f"{identifier.get('system') or ''}|{value}"] = name
                self._identifiers.setdefault(value, name)
                if _is_record_number(identifier):
                    record_numbers.append(value.strip())
        self.identities[name] = f"mr:{record_numbers[0]}" if record_numbers else f"fhir:{name}"
        for number in record_numbers:
            self.aliases.setdefault(f"mr:{number}", self.identities[name])
        self.origins[_origin_mark(resource)] += 1


def index_source(source: FhirSource) -> FhirIndex:
    """The index of a source: the first of two passes."""
    index = FhirIndex()
    for item in source.items(_WORDS):
        index.add(item)
    index.finish()
    return index


def item_id(item: Item) -> str | None:
    """The id of an item's resource; one without an id goes by its place; None if the id is no text."""
    name = item.resource.get("id")
    if name is None:
        return f"{item.file}#{item.line}"
    return name if isinstance(name, str) and 0 < len(name) <= 256 else None


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


def _encounter_period(index: FhirIndex, item: Item) -> EncounterPeriod:
    resource = item.resource
    patient, moments = None, []
    try:
        subject = resource.get("subject")
        patient = index.resolve(subject, item.scope, "Encounter.subject") if subject is not None else None
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


def contained_resources(resource: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The contained resources by `#id`.

    Raises:
        ShapeError: If `contained` is not a list.
    """
    return {f"#{each.get('id')}": each for each in _objects(as_list(resource.get("contained"), "contained"))}
