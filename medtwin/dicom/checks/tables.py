"""The module tables of the standard (schemas/dicom-iods.json.gz), read once, when the first dataset is checked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from medtwin.core.paths import schema_dir

FILE = "dicom-iods.json.gz"

Node = Mapping[str, tuple[str, int]]
"""Keyword to type (1, 1C, 2, 2C or 3) and the index of its items' node; -1 where items need no check."""


@dataclass(frozen=True)
class Tables:
    """The tables.

    Attributes:
        classes: SOP class UID to the name of its IOD.
        iods: Name of an IOD to the index of its node. nodes: All nodes.
        modules: Name of an IOD to its mandatory modules.
    """

    classes: Mapping[str, str]
    iods: Mapping[str, int]
    nodes: tuple[Node, ...]
    modules: Mapping[str, frozenset[str]]

    def iod_of(self, sop_class: str) -> str | None:
        """The IOD of a SOP class; None where the tables lack it."""
        return self.classes.get(sop_class)

    def required(self, sop_class: str, kind: str) -> list[str]:
        """The keywords of the first level that have a type, sorted; empty for an unknown SOP class."""
        iod = self.iod_of(sop_class)
        node = self.nodes[self.iods[iod]] if iod else {}
        return [keyword for keyword, (found, _) in node.items() if found == kind]


@cache
def load_tables() -> Tables:
    """The tables that were shipped."""
    document = json.loads(gzip.decompress((schema_dir() / FILE).read_bytes()))
    nodes = tuple({keyword: (kind, child) for keyword, (kind, child) in row.items()} for row in document["nodes"])
    modules = {iod: frozenset(names) for iod, names in document["modules"].items()}
    return Tables(document["classes"], document["iods"], nodes, modules)
