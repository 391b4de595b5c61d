"""Random FHIR elements, made from the shipped JSON schema: well-formed, with codes of value sets, seldom valid."""

from __future__ import annotations

import random
from typing import Any

from medtwin.fhir.checks.tables import schema_table

_PREFIX = "#/definitions/"
_TEXTS = {
    "date": ["2020", "2020-02-03", "2021-05"],
    "dateTime": ["2020-02-03T10:00:00Z", "2019-12-31", "2020-02-03T10:00:00+05:00"],
    "instant": ["2020-02-03T10:00:00Z", "2020-02-03T10:00:00-05:00"],
    "time": ["10:00:00", "23:59:59"],
    "base64Binary": ["aGk="],
    "uuid": ["urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"],
    "oid": ["urn:oid:1.2.3"],
    "decimal": [-1, 0, 0.5, 1, 2, 101],
    "boolean": [True, False],
    "integer": [-1, 0, 1, 2, 3],
    "positiveInt": [1, 2],
    "unsignedInt": [0, 1, 2],
    "uri": ["http://unitsofmeasure.org", "urn:x", "http://hl7.org/fhir/StructureDefinition/x"],
    "canonical": ["http://hl7.org/fhir/StructureDefinition/x", "urn:x"],
    "url": ["http://a.org/b"],
    "code": ["1", "%", "Reference", "canonical", "code", "string"],
    "id": ["a", "b1"],
    "string": ["a", "1", "*", "a.b", "Observation.x", "uuid"],
    "markdown": ["a"],
    "xhtml": ['<div xmlns="http://www.w3.org/1999/xhtml">a</div>'],
}


def make(name: str, rng: random.Random, words: list[str] | None = None, depth: int = 3) -> Any:
    """A random value of a definition.

    Args:
        name: Of the definition.
        rng: What decides.
        words: Texts that codes, strings and URIs often are.
        depth: How deep objects nest.
    """
    return _Maker(rng, words or []).named(name, depth)


class _Maker:
    def __init__(self, rng: random.Random, words: list[str]) -> None:
        self._rng = rng
        self._words = words

    def named(self, name: str, depth: int) -> Any:
        if name in ("code", "uri", "string", "id") and self._words and self._rng.random() < 0.6:
            return self._rng.choice(self._words)
        if name in _TEXTS:
            return self._rng.choice(_TEXTS[name])
        if name == "Resource":
            return self._inner_resource()
        return self._value(schema_table()["definitions"][name], depth)

    def _inner_resource(self) -> dict[str, Any]:
        found: dict[str, Any] = {"resourceType": "Basic", "id": "x", "code": {"text": "a"}}
        meta = [{"versionId": "1"}, {"security": [{"code": "a"}]}, {"source": "urn:x"}]
        more = self._rng.choice(
            [{}, {"contained": [{"resourceType": "Basic", "id": "y"}]}, {"meta": self._rng.choice(meta)}]
        )
        return found | more

    def _value(self, schema: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            return self.named(schema["$ref"].removeprefix(_PREFIX), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            known = [each for each in schema["enum"] if each is not None]
            wanted = [each for each in known if each in self._words]
            return self._rng.choice(wanted if wanted and self._rng.random() < 0.6 else known)
        if schema.get("type") == "object":
            return self._object(schema, depth)
        if schema.get("type") == "array":
            return [self._value(schema["items"], depth - 1) for _ in range(self._rng.choice([1, 1, 2, 3]))]
        if "allOf" in schema or "anyOf" in schema:
            return self._value(schema["allOf"][0] if "allOf" in schema else schema["anyOf"][-1], depth)
        return self._text(schema)

    def _text(self, schema: dict[str, Any]) -> Any:
        if schema.get("type") == "number":
            return 1
        title = schema.get("title", "")
        if title == "absolute-uri":
            return self._rng.choice([each for each in self._words if ":" in each] or _TEXTS["uri"])
        if title == "" and self._words:
            return self._rng.choice(self._words)
        return {"reference-type": "#a", "dicom-uid": "1.2", "sampled-data": "1 2"}.get(title, "a")

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """All members that must be there, most of the time, and up to ten others."""
        needed = {name for name in schema["required"] if self._rng.random() < 0.95 or name == "resourceType"}
        others = [name for name in schema["properties"] if not name.startswith("_") and name not in needed]
        chosen = set(self._rng.sample(others, min(len(others), self._rng.randint(1, 10)))) if depth > 0 else set()
        if not needed | chosen:  # no object is empty
            chosen = {self._rng.choice(others)}
        return {
            name: "a" if name == "id" else self._value(inner, depth - 1)
            for name, inner in schema["properties"].items()
            if name in needed | chosen and (depth > -6 or name == "url")
        } or {"id": "a"}
