"""Whether each element has the VR and number of values of its dictionary entry, and values of the form of its VR.

Source: DICOM PS3.5-2023, Table 6.2-1 and sections 6.1, 6.4, 7.8; PS3.6 by pydicom's dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from medtwin.dicom.checks.collect import UNREADABLE, Collector, Path, dotted, text_of
from medtwin.dicom.values import parse_date, parse_offset, parse_time

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")
_DECIMAL = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
_INTEGER = re.compile(r" *[+-]?\d+ *")
_AGE = re.compile(r"\d{3}[DWMY]")
_CODE = re.compile(r"[A-Z0-9 _]*")
_PLAIN_DATE = re.compile(r"\d{8}")
_PLAIN_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)? *")
_DATE_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\.\d{1,6})?([+-]\d{4})? *")
_CONTROL = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_VM = re.compile(r"(\d+)(?:-(\d*)(n?))?")

MAX_LENGTH = {"AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "SH": 16, "TM": 14}
"""Characters of a value; longer texts (LT 10240, ST 1024), UIDs (64) and the groups of a PN (64) are checked too."""

_TEXT_LENGTH = {"LT": 10240, "ST": 1024}
_LINES = frozenset({"LT", "ST", "UT"})
_WORDS = frozenset({"LO", "SH", "PN", "UC", "AE", "CS"})
_OF_ONE_VALUE = frozenset({"LT", "ST", "UT", "UR", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ"})
_IN_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_MIN_INTEGER, _MAX_INTEGER = -(2**31), 2**31 - 1


def check_values(dataset: Dataset, found: Collector) -> None:
    """Adds findings on every element, standard or private, also in sequences.

    Rules: `vr`, `vm`, `length`, `characters`, `character-set`, `uid`, `date`, `age`, `number`, `code-string`,
    `private`, `unreadable`.
    """
    encodings = _check_character_set(dataset, found)
    _check_item(dataset, (), encodings, found)


def _check_character_set(dataset: Dataset, found: Collector) -> bool:
    """Whether texts of more than ASCII are allowed for."""
    names = text_of(dataset, "SpecificCharacterSet").split("\\")
    if any(name and name not in python_encoding for name in names):
        found.add("character-set", "SpecificCharacterSet must be defined terms of C.12.1.1.2")
    return any(name not in ("", "ISO_IR 6", "ISO 2022 IR 6") for name in names)


def _check_item(item: Dataset, path: Path, has_characters: bool, found: Collector) -> None:
    for tag in list(item.keys()):
        name = dotted(path, keyword_for_tag(tag) or str(tag))
        try:
            element = item[tag]
            value = element.value
        except UNREADABLE:
            found.add("unreadable", f"{name} must have a value of its VR: this one cannot be read")
            continue
        if tag.is_private and not tag.is_private_creator:
            _check_private(item, tag, name, found)
        else:
            _check_dictionary(element, name, found)
        if element.VR == "SQ":
            for each in value or ():
                _check_item(each, (*path, keyword_for_tag(tag) or str(tag)), has_characters, found)
        elif tag.group != 0:
            _check_element(element, name, has_characters, found)


def _check_private(item: Dataset, tag: BaseTag, name: str, found: Collector) -> None:
    block = BaseTag((tag.group << 16) | (tag.element >> 8))
    if tag.element < 0x1000 or block not in item:
        found.add("private", f"{name} must have a private creator")


def _check_dictionary(element: DataElement, name: str, found: Collector) -> None:
    if not dictionary_has_tag(element.tag):
        return
    vr, vm = dictionary_VR(element.tag), dictionary_VM(element.tag)
    if element.VR not in (vr, *vr.split(" or "), "UN"):  # pydicom settles `OB or OW` when it writes
        found.add("vr", f"{name} must have VR {vr}, got {element.VR}")
    count = 1 if element.VR in _OF_ONE_VALUE else element.VM
    if count and element.VR != "UN" and not _fits(count, vm):
        found.add("vm", f"{name} must have {vm} values, got {count}")


def _fits(count: int, vm: str) -> bool:
    """Whether a number of values is one that a multiplicity such as 1, 1-3, 1-n or 2-2n allows."""
    match = _VM.fullmatch(vm)
    if match is None:
        return True
    low = int(match[1])
    if match[2] is None:
        return count == low
    if match[3]:
        return count >= low and count % int(match[2] or 1) == 0
    return low <= count <= int(match[2])


def _check_element(element: DataElement, name: str, has_characters: bool, found: Collector) -> None:
    rule = _FORMS.get(element.VR)
    for value in _values_of(element):
        text = str(value)
        if element.VR in _IN_CHARACTER_SET and not has_characters and not text.isascii():
            found.add("character-set", f"{name} is not ASCII: SpecificCharacterSet must name its characters")
        if len(text) > MAX_LENGTH.get(element.VR, 1 << 32):
            found.add("length", f"{name} must have at most {MAX_LENGTH[element.VR]} characters")
        elif rule is not None:
            rule(element, text, name, found)


def _values_of(element: DataElement) -> list[Any]:
    value = element.value
    if value is None or isinstance(value, bytes):
        return []
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    return [each for each in values if each is not None and str(each) != ""]


def _check_text(element: DataElement, text: str, name: str, found: Collector) -> None:
    if element.VR in _LINES:
        if len(text) > _TEXT_LENGTH.get(element.VR, 1 << 32):
            found.add("length", f"{name} must have at most {_TEXT_LENGTH[element.VR]} characters")
        if _CONTROL_IN_TEXT.search(text):
            found.add("characters", f"{name} must hold no control characters but tab, line feed, form feed and return")
    elif _CONTROL.search(text):
        found.add("characters", f"{name} must hold no control characters")
    if element.VR == "CS" and not _CODE.fullmatch(text):
        found.add("code-string", f"{name} must be upper-case letters, digits, spaces and underscores")


def _check_name(element: DataElement, text: str, name: str, found: Collector) -> None:
    _check_text(element, text, name, found)
    groups = text.split("=")
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        found.add("length", f"{name} must be at most 3 groups of 64 characters and 5 components")


def _check_uid(_: DataElement, text: str, name: str, found: Collector) -> None:
    if len(text) > 64 or not _UID.fullmatch(text):
        found.add("uid", f"{name} must have at most 64 characters: numbers without leading zero, and dots")


def _check_date(_: DataElement, text: str, name: str, found: Collector) -> None:
    if not _PLAIN_DATE.fullmatch(text.strip()) or parse_date(text) is None:
        found.add("date", f"{name} must be a date YYYYMMDD")


def _check_time(_: DataElement, text: str, name: str, found: Collector) -> None:
    if not _PLAIN_TIME.fullmatch(text) or (parse_time(text) is None and text[4:6] != "60"):
        found.add("date", f"{name} must be a time HHMMSS.FFFFFF")


def _check_date_time(_: DataElement, text: str, name: str, found: Collector) -> None:
    match = _DATE_TIME.fullmatch(text)
    is_sound = match is not None
    if match is not None:
        day = f"{match[1]}{match[2] or '01'}{match[3] or '01'}"
        clock = f"{match[4] or '00'}{match[5] or '00'}{'00' if match[6] in (None, '60') else match[6]}"
        is_sound = parse_date(day) is not None and parse_time(clock) is not None
        is_sound = is_sound and (match[8] is None or parse_offset(match[8]) is not None)
    if not is_sound:
        found.add("date", f"{name} must be a date and time YYYYMMDDHHMMSS.FFFFFF&ZZXX")


def _check_age(_: DataElement, text: str, name: str, found: Collector) -> None:
    if not _AGE.fullmatch(text.strip()):
        found.add("age", f"{name} must be three digits and D, W, M or Y")


def _check_decimal(_: DataElement, text: str, name: str, found: Collector) -> None:
    if not _DECIMAL.fullmatch(text):
        found.add("number", f"{name} must be a decimal number")


def _check_integer(_: DataElement, text: str, name: str, found: Collector) -> None:
    if not _INTEGER.fullmatch(text) or not _MIN_INTEGER <= int(text) <= _MAX_INTEGER:
        found.add("number", f"{name} must be a whole number of 32 bits")


_FORMS: dict[str, Callable[[DataElement, str, str, Collector], None]] = {
    **dict.fromkeys([*_LINES, *_WORDS], _check_text),
    "PN": _check_name,
    "UI": _check_uid,
    "DA": _check_date,
    "TM": _check_time,
    "DT": _check_date_time,
    "AS": _check_age,
    "DS": _check_decimal,
    "IS": _check_integer,
}
