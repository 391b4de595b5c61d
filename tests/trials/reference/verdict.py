"""What became of the cases: shares by category, the pooled share, and what is missing, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

POOLED_BAR, CATEGORY_BAR = 0.97, 0.85
BARRED = (
    "gs_boundary",
    "gs_futility",
    "gs_characteristics",
    "sample_size_means",
    "sample_size_rates",
    "sample_size_survival",
    "power_fixed",
    "power_gs",
    "nph_design",
    "accrual_timing",
    "conditional_power",
    "multiplicity",
    "survival_analysis",
    "adaptive_analysis",
    "bayesian",
    "procova",
    "analysis_other",
)
"""Deterministic categories that must agree; others are run and shown where they can be."""


@dataclass(frozen=True)
class Judged:
    """What became of one case.

    Attributes:
        agrees: Of each output, whether it lies within the tolerance.
        missing: Outputs that were not computed. reason: Why, or the error.
        values: Of each output that does not agree, what was found and what R says.
    """

    case_id: str
    category: str
    agrees: dict[str, bool]
    missing: tuple[str, ...] = ()
    reason: str = ""
    values: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Outputs of the case; those that were not computed count as wrong."""
        return len(self.agrees) + len(self.missing)


@dataclass(frozen=True)
class Verdict:
    """All cases together."""

    judged: Sequence[Judged]

    def share(self, categories: Sequence[str]) -> tuple[int, int]:
        """Outputs that agree, and outputs, of some categories."""
        chosen = [one for one in self.judged if one.category in categories]
        return sum(sum(one.agrees.values()) for one in chosen), sum(one.total for one in chosen)

    @property
    def categories(self) -> list[str]:
        """Those with cases, in the order of the bar, the others last."""
        there = {one.category for one in self.judged}
        return [name for name in BARRED if name in there] + sorted(there - set(BARRED))

    @property
    def passed(self) -> bool:
        """Whether the pooled share and that of each category reach the bar."""
        pooled = self.share(BARRED)
        each = [self.share([name]) for name in self.categories if name in BARRED]
        return pooled[0] >= POOLED_BAR * pooled[1] and all(good >= CATEGORY_BAR * of for good, of in each)

    def text(self, *, verbose: bool = False) -> str:
        """A table, and the outputs that do not agree or were not computed."""
        lines = [f"{'category':28} {'agree':>6} {'of':>5} {'share':>7}"]
        for name in self.categories:
            good, of = self.share([name])
            low = name in BARRED and good < CATEGORY_BAR * of
            mark = "" if name in BARRED else "  (not in the bar)"
            lines.append(f"{name:28} {good:6d} {of:5d} {100 * good / of:6.1f}%{'  BELOW' if low else mark}")
        good, of = self.share(BARRED)
        lines.append(f"{'pooled':28} {good:6d} {of:5d} {100 * good / max(of, 1):6.1f}%  (bar {100 * POOLED_BAR:.0f} %)")
        lines += ["", *self._wrong(verbose)]
        return "\n".join([*lines, "passed" if self.passed else "NOT passed"])

    def _wrong(self, verbose: bool) -> list[str]:
        lines = []
        missing: dict[str, list[str]] = defaultdict(list)
        for one in self.judged:
            if one.missing:
                missing[one.reason].append(f"{one.category}/{one.case_id}: {', '.join(one.missing)}")
            wrong = [name for name, good in one.agrees.items() if not good]
            if wrong:
                lines.append(f"does not agree: {one.category}/{one.case_id}: {', '.join(wrong)}")
            if verbose:
                lines += [f"    {name}: found {one.values[name][0]}, R {one.values[name][1]}" for name in wrong]
        for reason, names in missing.items():
            lines += [f"not covered ({reason}):", *(f"    {name}" for name in names)]
        return lines
