"""The details of a dose as one text, `sig`, that a person can read and that reads back without loss.

`dosageInstruction.timing.code//SNOMED//229797004; dosageInstruction.doseAndRate.doseQuantity = 5 mg`
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_JOIN = "; "
_PATH = re.compile(r"([A-Za-z]+(?:\[\d+\])?(?:\.[A-Za-z]+(?:\[\d+\])?)*)")
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: (\S+))?(?: \((.+)\))?", re.IGNORECASE)
_NO_UNIT = "-"


@dataclass(frozen=True, slots=True)
class SigItem:
    """One detail of a dose: its element path below the resource, and a code, a number with unit, or a word."""

    path: str
    code: str | None = None
    number: float | None = None
    unit: str | None = None
    source_unit: str | None = None
    word: str | None = None

    def __str__(self) -> str:
        if self.code is not None:
            return f"{self.path}//{_escape(self.code)}"
        if self.number is None:
            return f"{self.path} = '{_escape(self.word or '')}'"
        unit = f" {self.unit or _NO_UNIT}" if self.unit or self.source_unit else ""
        source = f" ({_escape(self.source_unit)})" if self.source_unit else ""
        return f"{self.path} = {self.number!r}{unit}{source}"


def write_sig(items: list[SigItem]) -> str | None:
    """The text of some details; None for none.

    >>> write_sig([SigItem("dosage.dose", number=5.0, unit="mg"), SigItem("dosage.asNeededBoolean", word="true")])
    "dosage.dose = 5.0 mg; dosage.asNeededBoolean = 'true'"
    """
    return _JOIN.join(map(str, items)) or None


def read_sig(text: str) -> list[SigItem] | None:
    """The details of a text that `write_sig` wrote; None for any other text.

    >>> read_sig("dosage.dose = 5.0 mg")
    [SigItem(path='dosage.dose', code=None, number=5.0, unit='mg', source_unit=None, word=None)]
    >>> read_sig("one tablet daily") is None
    True
    """
    items = []
    for part in text.split(_JOIN):
        item = _read_item(part)
        if item is None:
            return None
        items.append(item)
    return items


def _read_item(text: str) -> SigItem | None:
    found = _PATH.match(text)
    if found is None:
        return None
    path, rest = found.group(), text[found.end() :]
    if rest.startswith("//"):
        return SigItem(path, code=_unescape(rest[2:]))
    if not rest.startswith(" = "):
        return None
    value = rest[3:]
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return SigItem(path, word=_unescape(value[1:-1]))
    number = _NUMBER.fullmatch(value)
    if number is None:
        return None
    unit = None if number[2] == _NO_UNIT else number[2]
    return SigItem(path, number=float(number[1]), unit=unit, source_unit=_unescape(number[3]) if number[3] else None)


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace(";", "%3B")


def _unescape(text: str) -> str:
    return text.replace("%3B", ";").replace("%25", "%")
