"""How numbers, intervals and long names are written in the cells of a report."""

from __future__ import annotations

import re

from medtwin.check import Estimate

Cells = list[str | int | float | None]
FEW = "1\N{EN DASH}10"
"""In the place of a number of so few people that it is not told."""


def interval(low: float, high: float) -> str:
    """Two bounds in three digits.

    >>> interval(0.12345, 2)
    '0.123 \N{EN DASH} 2'
    """
    return f"{low:.3g} \N{EN DASH} {high:.3g}"


def interval_of(estimate: Estimate | None) -> str | None:
    """The interval of an estimate; None of none."""
    return None if estimate is None else interval(estimate.low, estimate.high)


def rounded(value: float | None) -> float | None:
    """Two decimals; None of none."""
    return None if value is None else round(value, 2)


def percent(value: float) -> str:
    """A share in percent, one decimal."""
    return f"{value:.1%}"


def bare(text: str, length: int) -> str:
    """A LOINC name without property and system, as clinicians say it: `Creatinine`.

    >>> bare("Creatinine [Mass/volume] in Serum or Plasma", 34)
    'Creatinine'
    """
    return short(re.sub(r" \[.*", "", text) or text, length)


def short(text: str, length: int) -> str:
    """A name without the kind of concept that SNOMED CT writes behind it, cut to a length."""
    plain = re.sub(r" \([a-z/ ]+\)$", "", text)
    return plain if len(plain) <= length else plain[: length - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
