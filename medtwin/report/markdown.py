"""A report page as Markdown: the same sections, tables and numbers, its figures as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medtwin import __version__
from medtwin.core.files import atomic_file
from medtwin.report.page import Cell, Figure, ImageGrid, Page, Part, Scorecard, SideBySide, Table, cell_text

FIGURES = "figures"


def write_markdown(path: Path, page: Page) -> None:
    """Writes a page as Markdown (tables as GitHub has them), and its figures below figures/ beside it.

    Image grids and scorecards are for the page: the text says so where they would stand.

    Args:
        path: Of the file to write.
        page: The report.
    """
    lines = [f"# {_plain(page.title)}", "", _safe(page.lead), ""]
    if page.banner:
        lines += [f"> **{_plain(page.banner)}**", ""]
    if page.summary:
        lines += [*_table(["", ""], [[label, value] for label, value in page.summary]), ""]
    count = 0
    for section in page.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for paragraph in section.paragraphs:
            lines += [_safe(paragraph), ""]
        for part in section.parts:
            if part.title:
                lines += [f"### {_plain(part.title)}", ""]
            count += isinstance(part, Figure)
            lines += [*_part(part, path.parent, count, section.title), ""]
            if part.note:
                lines += [_safe(part.note), ""]
    lines += [f"Made by medtwin {__version__}."]
    with atomic_file(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def _part(part: Part, folder: Path, number: int, section: str) -> list[str]:
    if isinstance(part, Table):
        return _table(part.columns, part.rows)
    if isinstance(part, Figure):
        slug = re.sub(r"[^a-z0-9]+", "_", (part.title or section).lower()).strip("_")
        name = f"{FIGURES}/{number:02d}_{slug}.svg"
        with atomic_file(folder / name, "w") as file:
            file.write(part.svg)
        return [f"![{_plain(part.alt or part.title or section)}]({name})"]
    what = {ImageGrid: "Images", SideBySide: "A comparison", Scorecard: "A scorecard"}[type(part)]
    return [f"*{what}: see the HTML page.*"]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    is_number = [
        bool(rows) and all(row[place] is None or isinstance(row[place], (int, float)) for row in rows)
        for place in range(len(columns))
    ]
    rule = ["---:" if right else "---" for right in is_number]
    cells = [[_plain(cell_text(value)) for value in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([_plain(name) for name in columns], rule, *cells)]


def _plain(text: str) -> str:
    """Text that ends neither its cell nor its line."""
    return _safe(re.sub(r"\s+", " ", text)).replace("|", "\\|")


def _safe(text: str) -> str:
    """Text in which nothing is taken for HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "\\<", text)
