"""The table of profiles as StructureDefinitions with snapshots over those of R4, for a validator that is not ours.

They hold what our table says, not what HL7 published: a validator that is given them tells whether our checker means by
a constraint what FHIR means by it. Extensions are left out (Medplum does not check slices of extensions).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from medtwin.fhir.profiles.table import Codes, ElementRule, Profile, SliceRule

Node = dict[str, Any]
FHIR = "http://hl7.org/fhir/StructureDefinition/"
_PER_RELEASE = "status in ('partial' | 'preliminary' | 'final' | 'amended' | 'corrected' | 'appended') implies "
# The invariants again, in FHIRPath; on the element at which the table has them.
EXPRESSIONS = {
    "us-core-1": "effective.empty() or (effective is dateTime).not() or effective.toString().length() >= 10",
    "us-core-2": "component.exists() or hasMember.exists() or dataAbsentReason.exists() or value.exists()",
    "us-core-3": "value.ofType(Quantity).system.empty() or value.ofType(Quantity).system = 'http://unitsofmeasure.org'",
    "us-core-6-name": (
        "(family.exists() or given.exists()) xor "
        "extension.where(url = 'http://hl7.org/fhir/StructureDefinition/data-absent-reason').exists()"
    ),
    "us-core-6-attachment": "url.exists() or data.exists()",
    "us-core-7": "(status = 'completed' or status = 'in-progress') implies performed.exists()",
    "us-core-8": f"{_PER_RELEASE}effective.exists()",
    "us-core-9": f"{_PER_RELEASE}issued.exists()",
    "us-core-10": f"{_PER_RELEASE}effective.exists()",
    "us-core-13": "practitioner.exists() or organization.exists() or healthcareService.exists() or location.exists()",
    "pd-1": "telecom.exists() or endpoint.exists()",
    "us-core-14": "name.exists() or relationship.exists()",
    "us-core-15": "identifier.type.coding.where(code = 'MB').exists() or subscriberId.exists()",
    "us-core-16": "value.empty() or value.matches('^[0-9]{10}$')",
    "us-core-18": "value.empty() or value.matches('^[0-9]{2}D[0-9]{7}$')",
    "us-core-19": "value.empty() or value.matches('^[0-9]{5}$')",
    "us-core-20": "status = 'completed' implies whenHandedOver.exists()",
    "us-core-21": (
        "(intent = 'order' or intent = 'original-order' or intent = 'reflex-order' or intent = 'filler-order' "
        "or intent = 'instance-order') implies requester.exists()"
    ),
    "provenance-1": "(who.reference.matches('^(Practitioner|Device)/')) implies onBehalfOf.exists()",
    "vs-1": "effective.empty() or (effective is dateTime).not() or effective.toString().length() >= 10",
    "vs-2": "component.exists() or hasMember.exists() or dataAbsentReason.exists() or value.exists()",
    "vs-3": "value.exists() or dataAbsentReason.exists()",
}


class Definition:
    """A StructureDefinition in the making, and the value sets that it names."""

    def __init__(self, profile: Profile, core: Path) -> None:
        self.core = core
        self.nodes: list[Node] = self._snapshot(profile.type)
        self.value_sets: list[Node] = []
        self.profile = profile
        for layer in profile.layers:
            for rule in layer:
                if rule.name != "extension":
                    self._element(rule, profile.type)
        self._invariants(self.nodes[0], profile.invariants)

    def resource(self) -> Node:
        """The StructureDefinition."""
        return {
            "resourceType": "StructureDefinition",
            "id": self.profile.url.rpartition("/")[2],
            "url": self.profile.url,
            "name": self.profile.url.rpartition("/")[2].replace("-", "_"),
            "status": "active",
            "kind": "resource",
            "abstract": False,
            "type": self.profile.type,
            "baseDefinition": FHIR + self.profile.type,
            "derivation": "constraint",
            "snapshot": {"element": self.nodes},
        }

    def _snapshot(self, kind: str) -> list[Node]:
        path = self.core / f"StructureDefinition-{kind}.json"
        return copy.deepcopy(json.loads(path.read_bytes())["snapshot"]["element"])

    def _find(self, id_: str) -> int | None:
        return next((index for index, node in enumerate(self.nodes) if node["id"] == id_), None)

    def _end(self, id_: str, marks: str) -> int:
        """Where the block of an element ends: with its children (.), and its slices (:)."""
        start = self._find(id_)
        assert start is not None
        stop = start + 1
        while stop < len(self.nodes) and self.nodes[stop]["id"].startswith(tuple(id_ + mark for mark in marks)):
            stop += 1
        return stop

    def _open(self, id_: str) -> None:
        """Adds the children of an element of a data type."""
        start = self._find(id_)
        assert start is not None
        node = self.nodes[start]
        if self._end(id_, ".") > start + 1 or node["type"][0]["code"] in ("BackboneElement", "Element"):
            return
        inner = self._snapshot(node["type"][0]["code"])
        stem = inner[0]["id"]
        for child in inner[1:]:
            child["id"] = id_ + child["id"].removeprefix(stem)
            child["path"] = node["path"] + child["path"].removeprefix(stem)
        self.nodes[start + 1 : start + 1] = inner[1:]

    def _slice_of(self, id_: str, name: str, discriminator: Node) -> Node:
        """A copy of an element and its children as a slice of it."""
        start = self._find(id_)
        assert start is not None
        base = self.nodes[start]
        known = self._find(f"{id_}:{name}")
        if known is not None:
            return self.nodes[known]
        base.setdefault("slicing", {"discriminator": [], "rules": "open"})
        if discriminator not in base["slicing"]["discriminator"]:
            base["slicing"]["discriminator"].append(discriminator)
        block = copy.deepcopy(self.nodes[start : self._end(id_, ".")])
        for node in block:
            node["id"] = f"{id_}:{name}" + node["id"].removeprefix(id_)
        block[0].pop("slicing", None)
        block[0] |= {"sliceName": name, "min": 0}
        end = self._end(id_, ".:")
        self.nodes[end:end] = block
        return block[0]

    def _element(self, rule: ElementRule, holder: str) -> None:
        id_ = f"{holder}.{rule.name}"
        if self._find(id_) is None and self._find(holder) is not None:
            self._open(holder)
        index = self._find(id_)
        node = self.nodes[index] if index is not None else self._typed(rule, holder)
        _set_cardinality(node, rule)
        if rule.types:
            wanted = {each.lower() for each in rule.types}
            node["type"] = [each for each in node["type"] if each["code"].lower() in wanted]
        self._set_value(node, rule)
        for child in rule.elements:
            self._element(child, node["id"])
        self._invariants(node, rule.invariants)
        for slice_ in rule.slices:
            self._slice(slice_, node)

    def _typed(self, rule: ElementRule, holder: str) -> Node:
        """`valueQuantity` as value[x]: of that one type where the rule is about more than the targets of a reference.

        A slice by type would say it better, but Medplum does not look into such a slice.
        """
        choices = [node for node in self.nodes if node["id"].startswith(f"{holder}.") and node["id"].endswith("[x]")]
        base = next(node for node in choices if rule.name.startswith(node["id"][len(holder) + 1 : -3]))
        kind = rule.name.removeprefix(base["id"][len(holder) + 1 : -3]).lower()
        if rule.min or rule.elements:
            base["type"] = [each for each in base["type"] if each["code"].lower() == kind]
        return base

    def _set_value(self, node: Node, rule: ElementRule) -> None:
        kind = node["type"][0]["code"] if node.get("type") else ""
        form = kind[:1].upper() + kind[1:]
        if rule.fixed is not None:
            node[f"fixed{form}"] = rule.fixed
        if rule.pattern is not None:
            node[f"pattern{form}"] = rule.pattern
        codes: Codes | None = rule.concept or rule.coding
        if rule.code is not None:
            codes = {"urn:any": rule.code}
        if codes is not None:
            node["binding"] = self._binding(node["id"], codes)
        if rule.targets:
            references = [each for each in node["type"] if each["code"] == "Reference"]
            references[0]["targetProfile"] = [FHIR + each for each in sorted(rule.targets)]

    def _binding(self, id_: str, codes: Codes) -> Node:
        """A required binding; a system without a list of codes makes a value set that no one can expand."""
        url = f"urn:medtwin:value-set:{self.profile.url.rpartition('/')[2]}:{id_}"
        include = [
            {"system": system} | ({"concept": [{"code": code} for code in sorted(allowed)]} if allowed else {})
            for system, allowed in codes.items()
        ]
        name = f"v{abs(hash(url))}"
        self.value_sets.append({"resourceType": "ValueSet", "id": name, "url": url, "compose": {"include": include}})
        return {"strength": "required", "valueSet": url}

    def _slice(self, rule: SliceRule, base: Node) -> None:
        pattern, kind = rule.pattern, base["type"][0]["code"]
        if any(child.name == "coding" for child in rule.elements):
            self._slice_by_fixed_coding(rule, base)
            return
        inner = next(iter(pattern)) if isinstance(pattern, dict) and len(pattern) == 1 else ""
        is_inner = kind in ("BackboneElement", "Element") or (kind == "Identifier" and inner == "type")
        if is_inner and kind == "Identifier":
            self._open(base["id"])
        path = inner if is_inner else "$this"
        node = self._slice_of(base["id"], rule.name, {"type": "pattern", "path": path})
        node |= {"min": rule.min, "max": "*" if rule.max is None else str(rule.max)}
        if rule.concept is not None:
            node["binding"] = self._binding(node["id"], rule.concept)
        elif is_inner:
            child = self._find(f"{node['id']}.{inner}")
            assert child is not None
            self.nodes[child]["patternCodeableConcept"] = pattern[inner]
        else:
            node[f"pattern{kind}"] = pattern
        for each in rule.elements:
            self._element(each, node["id"])
        self._invariants(node, rule.invariants)

    def _slice_by_fixed_coding(self, rule: SliceRule, base: Node) -> None:
        """The category of vital signs, whose codings are fixed one by one: sliced by these, as R4 does it."""
        self._open(base["id"])
        self._open(f"{base['id']}.coding")
        for name in ("system", "code"):
            node = self._slice_of(base["id"], rule.name, {"type": "value", "path": f"coding.{name}"})
        node |= {"min": rule.min, "max": str(rule.max)}
        for each in rule.elements:
            self._element(each, node["id"])

    def _invariants(self, node: Node, keys: tuple[str, ...]) -> None:
        known = [key for key in keys if key in EXPRESSIONS]
        made = [
            {"key": key, "severity": "error", "human": key, "expression": EXPRESSIONS[key], "source": self.profile.url}
            for key in known
        ]
        node["constraint"] = node.get("constraint", []) + made


def _set_cardinality(node: Node, rule: ElementRule) -> None:
    node["min"] = max(node["min"], rule.min)
    if rule.max is not None:
        node["max"] = str(rule.max)


def write_package(profiles: list[Profile], core: Path, folder: Path) -> int:
    """Writes the definitions and value sets as files; how many profiles there are.

    Args:
        profiles: What to write.
        core: Folder of hl7.fhir.r4.core.
        folder: Where to write it.
    """
    for profile in profiles:
        definition = Definition(profile, core)
        for resource in (definition.resource(), *definition.value_sets):
            (folder / f"{resource['resourceType']}-{resource['id']}.json").write_text(json.dumps(resource))
    return len(profiles)
