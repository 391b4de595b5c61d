"""Builds schemas/dicom-iods.json.gz from the module tables of the installed package highdicom (scripts/dicom_modules).

The tables state facts of DICOM PS3.3 and PS3.4: which attribute of which module has which type, and which module an
IOD has. Kept is what a check can use: attributes of type 1, 1C, 2 and 2C, and the sequences that lead to them. Equal
subtrees (code sequences, mostly) stand once, so that a few kilobytes hold all IODs.
"""

from __future__ import annotations

import gzip
import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medtwin.dicom.checks.tables import FILE

IODS = (
    "computed-radiography-image",
    "digital-x-ray-image",
    "digital-mammography-x-ray-image",
    "digital-intra-oral-x-ray-image",
    "ct-image",
    "enhanced-ct-image",
    "mr-image",
    "enhanced-mr-image",
    "positron-emission-tomography-image",
    "enhanced-pet-image",
    "nuclear-medicine-image",
    "ultrasound-image",
    "ultrasound-multi-frame-image",
    "secondary-capture-image",
    "multi-frame-grayscale-byte-secondary-capture-image",
    "multi-frame-grayscale-word-secondary-capture-image",
    "multi-frame-true-color-secondary-capture-image",
    "segmentation",
    "basic-text-sr",
    "enhanced-sr",
    "comprehensive-sr",
    "comprehensive-3d-sr",
)
"""What we read or write, and the multi-frame relatives of it."""

_STRICTEST_FIRST = ("1", "2", "1C", "2C", "3")
"""Where two modules of an IOD give an attribute a type, the stricter one holds (PS3.3 A.1.3)."""

_OVERRIDDEN = {("sc-equipment", "Modality"): "3"}
"""Types that by their own words override the one of another module (C.8.6.1)."""

_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""A macro is in one of them, not in both (PS3.3 C.7.6.16): neither can be told to lack it."""


_REPORT_CONTENT = "sr-document-content"
_OF_EVERY_ITEM = ("RelationshipType", "ValueType")
"""The module lists what each value type needs side by side; checks/reports.py knows which item needs which."""


def build_tables(standard: Path) -> bytes:
    """The tables, gzipped: equal input gives equal bytes.

    Args:
        standard: Folder with highdicom's module_attribute_map.json, iod_module_map.json and sop_class_iod_map.json.
    """
    modules, iods, classes = (
        json.loads((standard / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("module_attribute_map", "iod_module_map", "sop_class_iod_map")
    )
    nodes = _Nodes()
    roots = {iod: nodes.add(_tree(iods[iod], modules)) for iod in IODS}
    document = {
        "title": "Types of the attributes of DICOM IODs, after PS3.3",
        "source": f"highdicom {version('highdicom')}: _standard/*.json, by scripts/dicom_modules",
        "licence": "MIT (c) 2020 MGH Computational Pathology, for the tables; DICOM is a standard of NEMA",
        "form": "a node maps a keyword to [type, index of the node of its items, or -1]",
        "classes": {uid: iod for uid, iod in sorted(classes.items()) if iod in roots},
        "modules": {iod: sorted(each["key"] for each in iods[iod] if each["usage"] == "M") for iod in IODS},
        "iods": roots,
        "nodes": nodes.rows,
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


class _Nodes:
    """Rows of keyword to type and child; a subtree that is there already is not added again."""

    def __init__(self) -> None:
        self.rows: list[dict[str, list[Any]]] = []
        self._index: dict[str, int] = {}

    def add(self, tree: dict[str, Any]) -> int:
        """The index of a tree's row; -1 where nothing in it needs a check."""
        row = {}
        for keyword, (kind, items) in sorted(tree.items()):
            child = self.add(items)
            if kind != "3" or child >= 0:
                row[keyword] = [kind, child]
        if not row:
            return -1
        key = json.dumps(row, sort_keys=True)
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(row)
        return self._index[key]


def _tree(used: list[dict[str, str]], modules: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The attributes of an IOD as a tree. Those of a module that may be absent are optional; inside they keep types."""
    tree: dict[str, Any] = {}
    for each in used:
        for attribute in modules[each["key"]]:
            node, path = tree, attribute["path"]
            for keyword in path:
                node = node.setdefault(keyword, ["3", {}])[1]
            kind = "3" if _is_optional(each, attribute) else attribute["type"]
            known = node.setdefault(attribute["keyword"], ["3", {}])
            known[0] = min(known[0], kind, key=_STRICTEST_FIRST.index)
    for (module, keyword), kind in _OVERRIDDEN.items():
        if module in {each["key"] for each in used}:
            tree[keyword][0] = kind
    return tree


def _is_optional(module: dict[str, str], attribute: dict[str, Any]) -> bool:
    path = attribute["path"]
    if module["key"] == _REPORT_CONTENT and path in ([], ["ContentSequence"]):
        return attribute["keyword"] not in _OF_EVERY_ITEM
    if len(path) == 1 and path[0] in _FUNCTIONAL_GROUPS:
        return True
    return (module["usage"] != "M" and not path) or attribute["type"] not in _STRICTEST_FIRST


def installed_standard() -> Path:
    """The folder of the tables in the installed highdicom, which is not imported."""
    spec = find_spec("highdicom")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("highdicom must be installed: its tables are the source")
    return Path(spec.submodule_search_locations[0], "_standard")


def main() -> None:
    """Writes the tables into the folder that the argument names."""
    Path(sys.argv[1], FILE).write_bytes(build_tables(installed_standard()))


if __name__ == "__main__":
    main()
