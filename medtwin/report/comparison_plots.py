"""Plots of designs side by side for the report, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medtwin.report.plots import canvases, to_svg

# Okabe & Ito's colours, told apart with any colour vision; each has a marker of its own.
_LOOKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#1b2430", "X"),
)
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Panel:
    """A number of every design in every scenario.

    Attributes:
        label: Of the axis, with the unit.
        points: By design, (scenarios,) estimate, low and high.
        mark: A vertical line, such as no difference; None: none.
    """

    label: str
    points: Mapping[str, Sequence[Point]]
    mark: float | None = None


def grid_plot(scenarios: Sequence[str], panels: Sequence[Panel]) -> str:
    """Panels side by side: a row for each scenario, the first on top, in it a point with its interval for each design.

    Args:
        scenarios: Names.
        panels: One or more; the legend is that of the first, and a design looks the same in all.
    """
    order = {name: place for place, name in enumerate(panels[0].points)}
    height = 1.1 + len(scenarios) * max(0.34, 0.15 * len(order))
    figure, every = canvases(1, len(panels), 8.6, height)
    rows = -np.arange(len(scenarios), dtype=np.float64)
    for number, (axes, panel) in enumerate(zip(every, panels, strict=True)):
        _draw(axes, panel, rows, order)
        axes.set_yticks(rows, scenarios if number == 0 else [])
        axes.set_ylim(rows[-1] - 0.5, 0.5)
        axes.set_xlabel(panel.label)
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return to_svg(figure)


def _draw(axes: Any, panel: Panel, rows: Any, order: dict[str, int]) -> None:
    for row in rows[:-1]:
        axes.axhline(row - 0.5, color="#dde3ea", linewidth=0.6)
    if panel.mark is not None:
        axes.axvline(panel.mark, color="#5c6773", linewidth=0.9)
    for name, points in panel.points.items():
        colour, marker = _LOOKS[order[name] % len(_LOOKS)]
        at = rows - 0.7 * ((order[name] + 0.5) / len(order) - 0.5)
        values, low, high = np.array(points, dtype=np.float64).T
        axes.hlines(at, low, high, color=colour, linewidth=1.6)
        axes.plot(values, at, marker, color=colour, markersize=5, label=name)
