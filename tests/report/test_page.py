from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medtwin.report import Figure, ImageGrid, Page, Section, Table, write_page
from medtwin.report.page import png_uri, render_page
from medtwin.report.plots import bar_plot, interval_plot


def page() -> Page:
    table = Table(["name", "count", "share"], [["<b>one</b>", 1234567, 0.5], ["two", None, 1.0]], title="Counts")
    plot = Figure(interval_plot(["a", "b"], [1, 2], [(0.5, 1.5), (1, 3)], [1.1, 2.1], x_label="mm"), alt="two lines")
    grid = ImageGrid([np.eye(8), np.zeros((8, 8))], ["eye", "zeros"])
    return Page("Title & more", "What it is.", [Section("First", ["Words."], [table, plot, grid])], [("subjects", "5")])


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", page())
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;one&lt;/b&gt;" in html
    assert "1,234,567" in html
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert "<script" not in html


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert render_page(page()) == render_page(page())
    assert bar_plot(["a"], [1.0], x_label="n") == bar_plot(["a"], [1.0], x_label="n")
    assert "<metadata>" not in bar_plot(["a"], [1.0], x_label="n")


def test_a_constant_image_is_drawn() -> None:
    assert png_uri(np.full((4, 4), 7.0)).startswith("data:image/png;base64,")


def test_ragged_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 cells"):
        Table(["a", "b"], [[1]])
    with pytest.raises(ValueError, match="one per image"):
        ImageGrid([np.eye(2)], [])
