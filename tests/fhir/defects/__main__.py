"""Prints how many of the defects medtwin catches, by kind, and which it misses: ``python -m tests.fhir.defects``."""

from __future__ import annotations

from collections import Counter

from tests.fhir.defects import Defect, read_bases, read_defects
from tests.fhir.defects.catch import is_caught, refused


def summary(defects: list[Defect], missed: list[Defect]) -> str:
    """A line for each kind, and below it the defects of that kind that were missed."""
    planted, left = Counter(each.kind for each in defects), Counter(each.kind for each in missed)
    lines = [f"caught {len(defects) - len(missed)} of {len(defects)} ({1 - len(missed) / len(defects):.1%})"]
    for kind in sorted(planted):
        lines.append(f"  {kind}: {planted[kind] - left[kind]} of {planted[kind]}")
        lines += [f"    missed: {each.name} [{each.rule}]" for each in missed if each.kind == kind]
    return "\n".join(lines)


def main() -> None:
    """Plants every defect and prints the summary."""
    bases, defects = read_bases(), read_defects()
    print("valid bases refused:", refused(bases) or "none", "of", len(bases))  # noqa: T201
    print(summary(defects, [each for each in defects if not is_caught(each, bases)]))  # noqa: T201


if __name__ == "__main__":
    main()
