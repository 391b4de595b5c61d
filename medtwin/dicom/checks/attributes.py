"""Whether every attribute is there that the IOD's modules require, in sequences too (PS3.5 7.4)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from medtwin.dicom.checks.collect import UNREADABLE, Collector, Path, dotted, items_of
from medtwin.dicom.checks.conditions import CONDITIONS
from medtwin.dicom.checks.tables import Tables

_PRESENT = "must be present, empty if unknown"
_WITH_VALUE = "must be present with a value"
_UNEMPTY = "must have a value where it is present"


def check_attributes(dataset: Dataset, tables: Tables, iod: str, found: Collector) -> None:
    """Adds a finding for each attribute that is missing, or empty though it may not be.

    Rules `type-1`, `type-1c`, `type-2`, `type-2c`.
    """
    _check(dataset, dataset, tables, tables.iods[iod], (), found)


def _check(item: Dataset, whole: Dataset, tables: Tables, index: int, path: Path, found: Collector) -> None:
    for keyword, (kind, child) in tables.nodes[index].items():
        if kind != "3":
            _check_one(item, whole, keyword, kind, path, found)
        if child >= 0 and keyword in item:
            for each in items_of(item, keyword):
                _check(each, whole, tables, child, (*path, keyword), found)


def _check_one(item: Dataset, whole: Dataset, keyword: str, kind: str, path: Path, found: Collector) -> None:
    is_there = keyword in item
    is_valued = is_there and not is_empty(item, keyword)
    if is_valued or (is_there and kind[0] == "2"):
        return
    is_conditional = kind.endswith("C")
    condition = CONDITIONS.get(keyword) if is_conditional else None
    if is_conditional and (condition is None or not condition(item, whole)):
        if is_there:
            found.add("type-1c", f"{dotted(path, keyword)} {_UNEMPTY}")
        return
    found.add(f"type-{kind.lower()}", f"{dotted(path, keyword)} {_PRESENT if kind[0] == '2' else _WITH_VALUE}")


def is_empty(item: Dataset, keyword: str) -> bool:
    """Whether an attribute that is present has no value, no item, or nothing but empty values."""
    try:
        element = item[keyword]
        value = element.value
    except UNREADABLE:
        return False
    if element.VR == "SQ":
        return not value
    return element.is_empty or (element.VM > 1 and all(str(each) == "" for each in value))
