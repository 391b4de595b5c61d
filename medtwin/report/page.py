"""A report page: sections of text, tables, figures and image grids, as one HTML file without links outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray

from medtwin import __version__
from medtwin.core.files import atomic_file

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; numbers are right-aligned. `note` says what a reader must know of it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row must have {len(self.columns)} cells")


@dataclass(frozen=True)
class Figure:
    """An SVG drawing (`medtwin.report.plots`), with a caption and a sentence for those who cannot see it."""

    svg: str
    title: str = ""
    note: str = ""
    alt: str = ""


@dataclass(frozen=True)
class ImageGrid:
    """Grey images side by side, each with a caption.

    Attributes:
        images: (rows, columns) arrays in any range. captions: One per image.
        window: Smallest and largest value shown, the same for all; None: each image's own 1st and 99th percentile.
    """

    images: Sequence[NDArray[np.generic]]
    captions: Sequence[str]
    title: str = ""
    note: str = ""
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"captions must be one per image, got {len(self.captions)} for {len(self.images)}")

    def uris(self) -> list[str]:
        """The images as data URIs of PNG files."""
        return [png_uri(image, self.window) for image in self.images]


@dataclass(frozen=True)
class SideBySide:
    """Two image grids or figures beside each other, each under a heading of its own; stacked on a narrow screen."""

    left_title: str
    left: ImageGrid | Figure
    right_title: str
    right: ImageGrid | Figure
    title: str = ""
    note: str = ""


State = Literal["good", "bad", "unknown", "none"]


@dataclass(frozen=True)
class Score:
    """One line of a scorecard.

    Attributes:
        name: What was asked, in words. state: How it went, as a colour. word: The same in a word.
        value, baseline, limit: The measured number, what is usual, and what it may be; None: none.
        interval: Of the value.
        note: A short sentence more.
    """

    name: str
    state: State
    word: str
    value: float | None = None
    baseline: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    note: str = ""

    def position(self, number: float | None) -> float | None:
        """Where a number stands on the line's bar, 0 to 100, the limit at 60; None where there is no bar."""
        if number is None or not self.limit:
            return None
        return min(max(number, 0.0) / self.limit * 60, 100.0)


@dataclass(frozen=True)
class Scorecard:
    """Scores under each other: a coloured word, the question, and a bar from 0 past the limit."""

    scores: Sequence[Score]
    title: str = ""
    note: str = ""


Part = Table | Figure | ImageGrid | SideBySide | Scorecard


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then whatever it shows."""

    title: str
    paragraphs: Sequence[str] = ()
    parts: Sequence[Part] = ()


@dataclass(frozen=True)
class Page:
    """A report. `summary` stands on top, as label and value; `state` colours a banner with `banner` in it."""

    title: str
    lead: str
    sections: Sequence[Section]
    summary: Sequence[tuple[str, str]] = field(default_factory=tuple)
    banner: str = ""
    state: State = "none"


def png_uri(image: NDArray[np.generic], window: tuple[float, float] | None = None) -> str:
    """An image as a data URI of an 8-bit grey PNG."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    low, high = window or (float(np.percentile(values, 1)), float(np.percentile(values, 99)))
    grey = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["cell"] = cell_text
    environment.filters["brief"] = _brief
    environment.tests["number"] = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    return environment.get_template("page.html.j2")


def cell_text(value: Cell) -> str:
    """A cell as the page shows it: four digits of a number, a dash for nothing."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def _brief(value: float) -> str:
    """Two digits, never an exponent: for reading, not for computing."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) >= 0.001 else "<0.001"


def render_page(page: Page) -> str:
    """The page as HTML; all text is escaped."""
    return _template().render(
        page=page, version=__version__, Table=Table, Figure=Figure, kind=lambda part: type(part).__name__
    )


def write_page(path: Path, page: Page) -> None:
    """Writes the page as one HTML file."""
    with atomic_file(path, "w") as file:
        file.write(render_page(page))
