"""What a validator says: every finding at once, each with a rule, a severity and a place, never a patient's value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule.

    Attributes:
        rule: Stable name of the rule, kebab-case.
        message: What is wrong and what would be right; ids and counts, never a record's values.
        severity: `error` makes the object invalid.
        where: File, table, element path or resource that it concerns.
        count: How many times the rule is broken there.
    """

    rule: str
    message: str
    severity: Severity = "error"
    where: str = ""
    count: int = 1

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.severity}: {place}{self.message} [{self.rule}]{times}"


def errors_in(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that make the object invalid."""
    return [finding for finding in findings if finding.severity == "error"]
