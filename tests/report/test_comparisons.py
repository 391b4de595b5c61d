from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from medtwin.report import Figure, ImageGrid, Page, Score, Scorecard, Section, SideBySide
from medtwin.report.comparisons import (
    NUM_BARS,
    Curves,
    Panel,
    Timeline,
    _edges,
    agreement_plot,
    curve_multiples,
    histogram_multiples,
    scatter_plot,
    timeline_plot,
)
from medtwin.report.page import render_page


def panel(**more: object) -> Panel:
    return Panel("Sodium <1>", "mmol/L", [1.0, 2.0, 4.0], [0.2, 0.5, 1.0], [0.1, 0.6, 1.0], **more)  # type: ignore[arg-type]


def drawings() -> list[str]:
    lanes = {"visits": [0.0, 1.0, 2.5], "labs": []}
    timelines = [Timeline("Twin 1", lanes, [(0.0, "Diabetes"), (0.0, "A very long name of a condition indeed")], 2.5)]
    return [
        scatter_plot([0.1, 0.5, 0.0], [0.2, 0.5, 1.0], x_label="real", y_label="twins", names={0: "up", 1: "down"}),
        histogram_multiples([panel(), panel(is_log=True), Panel("empty", "", [], [], [])], columns=2),
        curve_multiples([Curves("Survival", "years", "alive", [0, 1], [1, 0.5], [1, 0.6], is_step=True)]),
        agreement_plot({"Between": ([0.1, -0.5], [0.2, -0.5]), "Within": ([0.3], [0.0])}, limits=(-1, 1)),
        timeline_plot([*timelines, Timeline("Twin 2", {"visits": [], "labs": []})], unit="years"),
    ]


def test_drawings_are_well_formed_and_the_same_bytes_each_time() -> None:
    first, again = drawings(), drawings()
    assert first == again
    for svg in first:
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg")
        assert not [
            e for e in root.iter() if any("href" in key and not v.startswith("#") for key, v in e.attrib.items())
        ]
    assert "Sodium &lt;1&gt;" in first[1]
    assert "Between (2)" in first[3]
    assert "Diabetes" in first[4]
    assert "A very long name of a condition i" not in first[4]  # shortened
    assert "died" in first[4]


def test_bars_of_whole_numbers_hold_equally_many_of_them() -> None:
    support = np.arange(40.0, 140.0)
    edges = _edges(support, np.linspace(0.01, 1, 100), is_log=False)
    counts = np.histogram(support, edges)[0]
    assert len(counts) <= NUM_BARS + 1
    assert set(counts[:-1]) == {counts[0]}
    few = np.array([1.0, 2.0, 5.0])
    assert _edges(few, np.array([0.3, 0.6, 1.0]), is_log=False).tolist() == [0.0, 1.5, 3.5, 6.0]


def test_a_scorecard_shows_words_bars_and_numbers() -> None:
    scores = [
        Score("Good?", "good", "passed", 0.1, 0.05, 0.2, (0.05, 0.15)),
        Score("Bad?", "bad", "failed", 9.0, 0.0, 0.2, note="3 of 9 <b>"),
        Score("None?", "none", "not applicable"),
    ]
    html = render_page(Page("T", "L", [Section("S", parts=[Scorecard(scores)])], banner="Refused & why", state="bad"))
    assert '<p class="banner bad">Refused &amp; why</p>' in html
    assert "width:30.0%" in html  # half of the limit, which stands at 60
    assert "width:100.0%" in html
    assert "3 of 9 &lt;b&gt;" in html
    assert html.count('<div class="bar">') == 2
    assert "0.1 [0.05, 0.15]" in html


@pytest.mark.parametrize(
    ("number", "limit", "position"), [(1.0, 2.0, 30.0), (9.0, 2.0, 100.0), (1.0, 0.0, None), (None, 1.0, None)]
)
def test_positions_on_the_bar(number: float | None, limit: float, position: float | None) -> None:
    assert Score("x", "good", "passed", limit=limit).position(number) == position


def test_two_parts_stand_side_by_side() -> None:
    grid = ImageGrid([np.eye(4)], ["eye <i>"])
    figure = Figure("<svg></svg>", note="a note")
    html = render_page(Page("T", "L", [Section("S", parts=[SideBySide("real", grid, "twins", figure)])]))
    body = html[html.index("<main>") :]
    assert (
        body.index("<h4>real</h4>") < body.index("eye &lt;i&gt;") < body.index("<h4>twins</h4>") < body.index("<svg>")
    )
    assert "a note" in body
