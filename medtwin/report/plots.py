"""Plots for the report, as SVG text: the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_STYLE: dict[RcKeyType, Any] = {
    "svg.hashsalt": "medtwin",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5c6773",
    "axes.labelcolor": "#1b2430",
    "legend.frameon": False,
}
COLOURS = ("#1f6f8b", "#d9822b", "#7a8b99", "#5b8c5a")


def interval_plot(
    labels: Sequence[str],
    estimates: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    references: Sequence[float],
    *,
    x_label: str,
) -> str:
    """Estimates with intervals, one line per label, and a mark at what each should be.

    Args:
        labels: (lines,) what each line is.
        estimates: (lines,) the measured values.
        intervals: (lines,) low and high.
        references: (lines,) the true values.
        x_label: What is measured, with its unit.
    """
    figure, axes = canvas(7.5, 0.9 + 0.3 * len(labels))
    rows = list(range(len(labels)))[::-1]
    axes.hlines(rows, [low for low, _ in intervals], [high for _, high in intervals], color=COLOURS[0], linewidth=2)
    axes.plot(estimates, rows, "o", color=COLOURS[0], markersize=4, label="measured, 95 % interval")
    axes.plot(references, rows, "|", color=COLOURS[1], markersize=13, markeredgewidth=2.2, label="law")
    axes.set_yticks(rows, labels)
    axes.set_xlabel(x_label)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return to_svg(figure)


def bar_plot(labels: Sequence[str], values: Sequence[float], *, x_label: str) -> str:
    """Horizontal bars, the first label on top.

    Args:
        labels: (bars,) what each bar is.
        values: (bars,) the lengths.
        x_label: What is measured, with its unit.
    """
    figure, axes = canvas(7.5, 0.8 + 0.26 * len(labels))
    rows = list(range(len(labels)))[::-1]
    axes.barh(rows, values, color=COLOURS[0], height=0.7)
    axes.set_yticks(rows, labels)
    axes.set_xlabel(x_label)
    return to_svg(figure)


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of this size in inches, and its axes, in the report's style."""
    figure, grid = canvases(1, 1, width, height)
    return figure, grid[0]


def canvases(rows: int, columns: int, width: float, height: float, *, share_x: bool = False) -> tuple[Any, list[Any]]:
    """An empty figure of this size in inches, and its axes row by row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    with rc_context(_STYLE):
        figure = Canvas(figsize=(width, height), layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False, sharex=share_x).ravel())


def to_svg(figure: Any) -> str:
    """The figure as SVG text, without date, creator or links."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = re.sub(r"^.*?(?=<svg)", "", text, flags=re.DOTALL)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
