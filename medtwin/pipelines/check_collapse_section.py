"""The section of a check's page about collapse: every generation of twins, and the rare codes that they have lost."""

from __future__ import annotations

from medtwin.check import Findings
from medtwin.check.collapse_rows import GenerationRow
from medtwin.pipelines.report_text import Cells
from medtwin.report import Section, Table

NUM_RARE = 15


def collapse_section(findings: Findings) -> Section | None:
    """The numbers of every generation and the rare codes; None where nothing was measured."""
    if not findings.generations and not findings.rare_codes:
        return None
    text = (
        "Twins that are learned from twins forget what is rare, then what is common. A model of each generation is "
        "asked about real patients that none was learned from (the anchors): what they cost it rises first. The last "
        "generation is these twins; in the first row other real patients stand in the place of twins."
    )
    parts = []
    if findings.generations:
        names = list(dict.fromkeys(row.measure for row in findings.generations))
        told = {(row.generation, row.measure): row for row in findings.generations}
        numbers = sorted({generation for generation, _ in told})
        rows: list[Cells] = [
            ["other real patients" if number == 0 else f"generation {number}", *(_cell(told, number, n) for n in names)]
            for number in numbers
        ]
        note = (
            "Perplexities per token, lower: easier to foresee. In brackets 95 % intervals, from leaving out a "
            "twentieth of the patients at a time. Alarm: worse than the first generation, at 5 % for all generations "
            "together."
        )
        parts.append(Table(["", *names], rows, "Generations", note))
    if findings.rare_codes:
        lost = sum(row.is_lost for row in findings.rare_codes)
        rows = [
            [
                row.code,
                f"{row.num_real:,} of {row.total_real:,}",
                f"{row.num_synthetic:,} of {row.total_synthetic:,}",
                f"{row.adjusted:.2g}",
            ]
            for row in findings.rare_codes[:NUM_RARE]
        ]
        note = (
            f"{lost} of {len(findings.rare_codes)} rare codes are lost: Fisher's exact test, one-sided, Holm's "
            "adjustment, at 5 %. Shown: those with the smallest p."
        )
        parts.append(Table(["code", "real patients", "twins", "adjusted p"], rows, "Rare codes", note))
    return Section("Collapse", [text], parts)


def _cell(told: dict[tuple[int, str], GenerationRow], generation: int, name: str) -> str | None:
    row = told.get((generation, name))
    if row is None:
        return None
    return f"{row.value:.3g} ({row.low:.3g} \N{EN DASH} {row.high:.3g}){', alarm' if row.alarm else ''}"
