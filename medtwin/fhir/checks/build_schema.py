"""Builds schemas/fhir-r4.schema.json.gz and schemas/fhir-r4.rules.json.gz from the official definitions.

The schema (draft 7) stands alone: it accepts any FHIR R4 resource that keeps the structure, the primitive formats, the
required value sets, the reference types and the invariants that JSON schema can state. The rules hold what the walk
over a resource in Python needs: the types of its elements, and the other invariants.
"""

from __future__ import annotations

import copy
import gzip
import sys
from pathlib import Path
from typing import Any

import orjson

from medtwin.fhir.checks import bindings, primitives
from medtwin.fhir.checks.definitions import Constraint, Definitions, Element, TypeRef, read_definitions
from medtwin.fhir.checks.fragments import NotStatableError, Schema, content_owner, invariant_schema
from medtwin.fhir.terms import words

SCHEMA_FILE = "fhir-r4.schema.json.gz"
RULES_FILE = "fhir-r4.rules.json.gz"
_ORIGIN = "Built by medtwin's scripts/fhir_schema from hl7.fhir.r4.core 4.0.1, which is CC0-1.0"
# Invariants that stand in Python code of their own, and why.
BY_HAND = {
    "per-1": "compares dates of unlike precision as far as they are certain",
    "rng-2": "compares quantities of the same unit only",
    "ref-1": "'#' alone means the container, which the expression of R4 forgets (mended in R4B)",
    "dom-3": "asks for the types of all descendants; any text '#id' in the resource counts as a reference here",
    "txt-1": "htmlChecks() is no FHIRPath: an XML parser and the list of allowed elements",
    "txt-2": "htmlChecks() is no FHIRPath: an XML parser",
}
# Invariants that nothing evaluates, and why. None at present; the table in the rules would list them.
NOT_EVALUATED: dict[str, str] = {}
_ABSOLUTE_URI: Schema = {"title": "absolute-uri", "type": "string", "pattern": primitives.ABSOLUTE_URI}
_DICOM_UID: Schema = {
    "title": "dicom-uid",
    "type": "string",
    "maxLength": 64,
    "pattern": r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$",
}
# Elements whose text asks for more than their type does. Source: hl7.org/fhir/R4: datatypes.html (Coding, Identifier,
# Quantity, SampledData), bundle.html, imagingstudy.html with DICOM PS3.5 section 9.1, location.html (WGS84 degrees).
_STRICTER: dict[str, Schema] = {
    "Coding.system": _ABSOLUTE_URI,
    "Identifier.system": _ABSOLUTE_URI,
    "Quantity.system": _ABSOLUTE_URI,
    "Bundle.entry.fullUrl": _ABSOLUTE_URI,
    "ImagingStudy.series.uid": _DICOM_UID,
    "ImagingStudy.series.instance.uid": _DICOM_UID,
    "SampledData.data": {
        "title": "sampled-data",
        "type": "string",
        "pattern": r"^([EUL]|-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)( +([EUL]|-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?))*$",
    },
    "Location.position.longitude": {"title": "degrees", "type": "number", "minimum": -180, "maximum": 180},
    "Location.position.latitude": {"title": "degrees", "type": "number", "minimum": -90, "maximum": 90},
}


def build(definitions: Definitions) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema and the rules, as JSON."""
    builder = _Builder(definitions)
    return builder.schema(), builder.rules()


def write(definitions: Definitions, folder: Path) -> None:
    """Writes both files, the same bytes for the same definitions."""
    for name, content in zip((SCHEMA_FILE, RULES_FILE), build(definitions), strict=True):
        packed = gzip.compress(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), compresslevel=9, mtime=0)
        (folder / name).write_bytes(packed)


def main() -> None:
    """Writes the files below the folder given second, from the package given first."""
    definitions = read_definitions(Path(sys.argv[1]))
    write(definitions, Path(sys.argv[2]))


class _Builder:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._named: dict[str, Schema] = {}
        self._children: dict[str, dict[str, str]] = {}
        self._integers: dict[str, list[str]] = {}
        self._canonicals: dict[str, list[str]] = {}
        self._invariants: dict[tuple[str, str], dict[str, Any]] = {}
        self._unlisted: set[str] = set()
        for name in sorted(primitives.PRIMITIVES):
            self._named[name] = primitives.PRIMITIVES[name]
        for owner in sorted(definitions.owners):
            if owner not in ("Resource", "DomainResource"):
                self._named[owner] = self._object(owner)
        self._named["Resource"] = self._any_resource()

    def schema(self) -> dict[str, Any]:
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$comment": _ORIGIN,
            "allOf": [{"$ref": "#/definitions/Resource"}],
            "definitions": dict(sorted(self._named.items())),
        }

    def rules(self) -> dict[str, Any]:
        return {
            "origin": _ORIGIN,
            "resources": sorted(self._definitions.resources),
            "elements": sorted(self._all_names()),
            "children": self._children,
            "choices": sorted(self._choices()),
            "integers": {owner: names for owner, names in self._integers.items() if names},
            "canonicals": {owner: names for owner, names in self._canonicals.items() if names},
            "invariants": [self._invariants[key] for key in sorted(self._invariants)],
            "unlisted": sorted(self._unlisted),
            "vital_signs": vital_sign_table(self._definitions),
        }

    def _choices(self) -> set[str]:
        return {each.name for owner in self._definitions.owners.values() for each in owner if each.is_choice}

    def _all_names(self) -> set[str]:
        names = {"resourceType"} | {each.name for owner in self._definitions.owners.values() for each in owner}
        for schema in self._named.values():
            names |= set(schema.get("properties", ()))
        return names

    def _object(self, owner: str) -> Schema:
        """The definition of a type or a backbone element."""
        is_resource = owner in self._definitions.resources
        found: Schema = {"type": "object", "additionalProperties": False, "properties": {}, "required": []}
        rules: list[Schema] = []
        if is_resource:
            found["properties"]["resourceType"] = {"const": owner}
            found["required"].append("resourceType")
        else:  # ele-1: an element has content besides its id
            found |= {"minProperties": 1, "dependencies": {"id": {"minProperties": 2}}}
        self._children[owner] = {}
        self._integers[owner] = []
        self._canonicals[owner] = []
        for element in self._definitions.owners[owner]:
            self._add_element(owner, element, found, rules)
        rules += self._owner_invariants(owner)
        if owner == "Extension":
            rules = [_extension_rule(rules)]
        if rules:
            found["allOf"] = rules
        return found

    def _add_element(self, owner: str, element: Element, found: Schema, rules: list[Schema]) -> None:
        properties = found["properties"]
        names: list[list[str]] = []
        for name, type_ref in element.names() or [(element.name, None)]:
            one, is_primitive = self._value(element, type_ref)
            one = _with_rules(one, self._leaf_invariants(owner, element))
            forms = [name]
            if is_primitive and not element.is_attribute and one != {"$ref": "#/definitions/xhtml"}:
                forms.append(f"_{name}")
                properties[f"_{name}"] = _extensions(is_list=element.is_list)
                self._children[owner][f"_{name}"] = "Element"
            if is_primitive and type_ref is not None and type_ref.code in ("integer", "positiveInt", "unsignedInt"):
                self._integers[owner].append(name)
            if type_ref is not None and type_ref.code == "canonical":
                self._canonicals[owner].append(name)
            if element.is_list:
                properties[name] = {"type": "array", "minItems": 1, "items": self._or_null(one) if forms[1:] else one}
                if forms[1:]:
                    rules.append(_null_rule(name))
            else:
                properties[name] = one
            if not is_primitive:
                self._children[owner][name] = self._child_name(element, type_ref)
            names.append(forms)
        _add_presence(element, names, found, rules)

    def _value(self, element: Element, type_ref: TypeRef | None) -> tuple[Schema, bool]:
        """The schema of one value of an element, and whether it is a primitive."""
        owner = content_owner(self._definitions, element, type_ref)
        if element.path in _STRICTER:
            return _STRICTER[element.path], True
        if type_ref is None or owner not in ("", type_ref.code):
            return _ref(self._child_name(element, type_ref)), False
        if type_ref.code in self._definitions.primitives:
            url = element.required or element.maximum
            if type_ref.code == "code" and url:
                return self._bound_code(element, url), True
            return _ref(type_ref.code), True
        return _ref(self._child_name(element, type_ref)), False

    def _child_name(self, element: Element, type_ref: TypeRef | None) -> str:
        """The definition of a complex element; a variant of the datatype where the element narrows it."""
        owner = content_owner(self._definitions, element, type_ref)
        if type_ref is None or owner != type_ref.code:
            return "Resource" if type_ref is not None and type_ref.code == "Resource" else owner
        if type_ref.code in ("Reference", "Quantity", "Extension"):
            return self._narrowed(element, type_ref)
        if type_ref.code in ("CodeableConcept", "Coding") and element.required:
            return self._bound_concept(type_ref.code, element.required)
        return owner

    def _narrowed(self, element: Element, type_ref: TypeRef) -> str:
        if type_ref.code == "Extension" and not element.path.startswith("Extension."):
            return self._variant("Extension:outer", "Extension")
        if type_ref.code == "Quantity" and "SimpleQuantity" in type_ref.profiles:
            return self._variant("SimpleQuantity", "Quantity")
        if type_ref.code == "Reference" and type_ref.targets:
            return self._variant(f"Reference:{','.join(type_ref.targets)}", "Reference")
        return type_ref.code

    def _variant(self, name: str, base: str) -> str:
        if name not in self._named:
            self._named[name] = {}  # it may contain itself
            schema = copy.deepcopy(self._named.get(base) or self._object(base))
            if base == "Quantity":
                del schema["properties"]["comparator"], schema["properties"]["_comparator"]
            elif base == "Extension":  # only an extension within an extension may have a relative URL
                schema["properties"]["url"] = _ABSOLUTE_URI
            else:
                targets = name.removeprefix("Reference:").split(",")
                schema["properties"]["reference"] = reference_schema(targets)
            self._named[name] = schema
        return name

    def _bound_concept(self, base: str, url: str) -> str:
        name = f"{base}:{bindings.value_set_name(url)}"
        coding = bindings.coding_schema(self._definitions, url)
        if coding is None:
            self._unlisted.add(url)
            return base
        if name not in self._named:
            schema = copy.deepcopy(self._named.get(base) or self._object(base))
            rule: Schema = {"title": "value-set", **coding}
            if base == "CodeableConcept":
                rule = {"title": "value-set", "required": ["coding"], "properties": {"coding": {"contains": coding}}}
            schema.setdefault("allOf", []).append(rule)
            self._named[name] = schema
        return name

    def _bound_code(self, element: Element, url: str) -> Schema:
        schema = bindings.code_schema(self._definitions, url, element.path)
        if schema is None:
            self._unlisted.add(url)
            return _ref("code")
        name = f"code:{bindings.value_set_name(url)}" + ("+words" if "anyOf" in schema else "")
        self._named[name] = {"title": "value-set", **schema}
        return _ref(name)

    def _or_null(self, one: Schema) -> Schema:
        """A primitive within a list, where null may hold the place of one that has extensions only."""
        schema = dict(self._named[one["$ref"].removeprefix("#/definitions/")] if "$ref" in one else one)
        if "anyOf" in schema or "allOf" in schema:
            return {"anyOf": [one, {"type": "null"}]}
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        schema["type"] = [schema["type"], "null"]
        return schema

    def _owner_invariants(self, owner: str) -> list[Schema]:
        root = self._definitions.roots.get(owner)
        constraints = root.constraints if root else ()
        is_type = "." not in owner
        return self._stated(
            owner, owner, [each for each in constraints if is_type or each.source in ("", owner.partition(".")[0])]
        )

    def _leaf_invariants(self, owner: str, element: Element) -> list[Schema]:
        if element.path in self._definitions.owners:
            return []
        own = [each for each in element.constraints if each.source in ("", owner.partition(".")[0])]
        content = content_owner(self._definitions, element, element.types[0] if element.types else None)
        return self._stated(content, f"{owner}#{element.path.rpartition('.')[2]}", own)

    def _stated(self, context: str, place: str, constraints: list[Constraint]) -> list[Schema]:
        """The schemas of some invariants; each one is entered in the table, with what evaluates it."""
        schemas: list[Schema] = []
        for each in constraints:
            if each.severity != "error" or each.key == "ele-1":
                continue
            by, reason = "python", BY_HAND.get(each.key, "it stands on a choice of types")
            if each.key in BY_HAND:
                by = "hand"
            elif each.key in NOT_EVALUATED:
                by, reason = "nothing", NOT_EVALUATED[each.key]
            elif "[x]" not in place:
                try:
                    schemas.append({"title": each.key, **invariant_schema(self._definitions, context, each.expression)})
                    by, reason = "schema", ""
                except NotStatableError as error:
                    reason = str(error)
            self._enter(each, place, by, reason)
        return schemas

    def _enter(self, constraint: Constraint, place: str, by: str, reason: str) -> None:
        entry = self._invariants.setdefault(
            (constraint.key, constraint.expression),
            {"key": constraint.key, "expression": constraint.expression, "by": by, "reason": reason, "places": []},
        )
        if place not in entry["places"]:
            entry["places"].append(place)

    def _any_resource(self) -> Schema:
        names = sorted(self._definitions.resources)
        cases = [{"if": {"properties": {"resourceType": {"const": name}}}, "then": _ref(name)} for name in names]
        kind = {"resourceType": {"enum": names}}
        return {"type": "object", "required": ["resourceType"], "properties": kind, "allOf": cases}


_VITAL_SIGNS = words(
    "vitalspanel resprate heartrate oxygensat bodytemp bodyheight headcircum bodyweight bmi bp",
)


def vital_sign_table(definitions: Definitions) -> dict[str, dict[str, Any]]:
    """What the R4 vital-sign profiles ask of a LOINC code: the units of its value, or those of its components.

    `units` is empty where the profile allows no value.
    """
    table: dict[str, dict[str, Any]] = {}
    for profile in sorted(_VITAL_SIGNS):
        elements = definitions.profiles[f"http://hl7.org/fhir/StructureDefinition/{profile}"]["snapshot"]["element"]
        codes = [each["fixedCode"] for each in elements if _is_code(each, "Observation.code.coding.code")]
        names = [each["fixedCode"] for each in elements if _is_code(each, "Observation.component.code.coding.code")]
        units = [
            _units(definitions, each) for each in elements if each["path"] == "Observation.component.value[x].code"
        ]
        own = [_units(definitions, each) for each in elements if each["path"] == "Observation.value[x].code"]
        components = dict(zip(names, units, strict=True))
        for code in codes:
            table[code] = {"profile": profile, "units": own[0] if own else [], "components": components}
    return table


def _is_code(element: dict[str, Any], path: str) -> bool:
    return element["path"] == path and "fixedCode" in element


def _units(definitions: Definitions, element: dict[str, Any]) -> list[str]:
    if "fixedCode" in element:
        return [element["fixedCode"]]
    codes = bindings.expand(definitions, element["binding"]["valueSet"].partition("|")[0]) or {}
    return [code for each in codes.values() for code in each]


def reference_schema(targets: list[str]) -> Schema:
    """The text of a reference to one of some types: relative, versioned, conditional, absolute, contained or a URN."""
    name, types = r"[A-Za-z0-9.\-]{1,64}", "|".join(targets)
    relative = rf"({types})(/{name}(/_history/{name})?|\?[^ \t\r\n]+)"
    return {
        "title": "reference-type",
        "type": "string",
        "pattern": rf"^(#[A-Za-z0-9.\-]{{0,64}}|urn:[^ \t\r\n]+|[A-Za-z][A-Za-z0-9+.\-]*://[^ \t\r\n]+|{relative})$",
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _with_rules(one: Schema, rules: list[Schema]) -> Schema:
    return {"allOf": [one, *rules]} if rules else one


def _extensions(*, is_list: bool) -> Schema:
    if not is_list:
        return _ref("Element")
    return {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "null"}, _ref("Element")]}}


def _null_rule(name: str) -> Schema:
    """A null in a list of primitives stands for extensions beside it."""
    plain = {"properties": {name: {"items": {"not": {"type": "null"}}}}}
    return {"title": "empty", "anyOf": [plain, {"required": [f"_{name}"]}]}


def _present(names: list[str]) -> Schema:
    return {"required": names} if len(names) == 1 else {"anyOf": [{"required": [name]} for name in names]}


def _add_presence(element: Element, names: list[list[str]], found: Schema, rules: list[Schema]) -> None:
    """Whether it must be there, and that a choice has one form only."""
    label = element.path.rpartition(".")[2]
    if element.is_required and len(names) == 1 and len(names[0]) == 1:
        found["required"].append(names[0][0])
    elif element.is_required and len(names) == 1:
        rules.append({"title": "missing-element", "$comment": label, **_present(names[0])})
    if len(names) == 1:
        return
    forms = [_present(each) for each in names]
    if element.is_required:
        rules.append({"title": "missing-element", "$comment": label, "anyOf": forms})
    none = {"not": _present([name for each in names for name in each])}
    rules.append({"title": "choice", "$comment": label, "oneOf": [none, *forms]})


def _extension_rule(rules: list[Schema]) -> Schema:
    """ext-1 and the choice of a value: most extensions have a url and one more member, and need no closer look."""
    plain = {"minProperties": 2, "maxProperties": 2, "required": ["url"], "not": {"required": ["id"]}}
    return {"title": "ext-1", "anyOf": [plain, {"allOf": rules}]}


if __name__ == "__main__":
    main()
