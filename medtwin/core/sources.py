"""What became of the input: each item is carried, not carried for a stated reason, or rejected with file and line."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Reject:
    """One item of the input that did not get in.

    Attributes:
        file: Path relative to the source folder.
        line: 1-based line (NDJSON, CSV) or entry (bundle); 0 for the whole file.
        kind: Resource type, `DICOM` or `row`; empty where it could not be told.
        rule: Stable kebab-case name.
        reason: What is wrong and how to mend it; never a value of the record.
    """

    file: str
    line: int
    kind: str
    rule: str
    reason: str


@dataclass
class Ledger:
    """Counts what came in and what became of it; rejects go to `rejected/rejected.csv` as they come.

    The books balance per kind: read = carried + not_carried + rejected.
    """

    read: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    not_carried: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    elements_not_carried: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def reject(self, reject: Reject) -> None:
        """Records one item that did not get in (its kind must have been counted as read)."""
        self.rejected[reject.kind or "unreadable"] += 1
        self.rules[reject.rule] += 1
        self.rejects.append(reject)

    def add(self, other: Ledger) -> None:
        """Takes over the books of another part of the input, its rejects after those of this one."""
        for name in ("read", "carried", "not_carried", "rejected", "rules", "elements_not_carried", "flags"):
            getattr(self, name).update(getattr(other, name))
        self.rejects += other.rejects

    def imbalance(self) -> dict[str, int]:
        """Kinds whose books do not balance, and by how many items; empty when nothing was lost."""
        kinds = set(self.read) | set(self.carried) | set(self.not_carried) | set(self.rejected)
        open_items = {
            kind: self.read[kind] - self.carried[kind] - self.not_carried[kind] - self.rejected[kind] for kind in kinds
        }
        return {kind: count for kind, count in sorted(open_items.items()) if count}

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The counts for counts.json, by kind in alphabetical order."""
        names = ("read", "carried", "not_carried", "rejected", "rules", "elements_not_carried", "flags")
        return {name: dict(sorted(getattr(self, name).items())) for name in names}


def write_rejects(path: Path, rejects: list[Reject]) -> None:
    """Writes rejected.csv: file, line, kind, rule, reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        _write_rows(file, rejects)


def _write_rows(file: TextIO, rejects: list[Reject]) -> None:
    writer = csv.writer(file)
    writer.writerow(["file", "line", "kind", "rule", "reason"])
    for reject in rejects:
        writer.writerow([reject.file, reject.line, reject.kind, reject.rule, reject.reason])
