"""Plots of a trial's course for the report, as SVG text: spending, expected events, distributions, representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.report.plots import COLOURS, canvas, canvases, to_svg

Floats = NDArray[np.float64]
_BLUE, _ORANGE, _GREY, _GREEN = COLOURS[:4]
_LINES = ((_BLUE, "-"), (_ORANGE, "--"), ("#1b2430", ":"))
_MAX_BINS = 40
_FEW_VALUES = 12  # as many different values or fewer are drawn as bars of their own


def spending_plot(curves: Sequence[tuple[str, Floats, Floats, Sequence[float], Sequence[float]]]) -> str:
    """Cumulative error spent by information fraction, and what is spent at each look.

    Args:
        curves: What is spent, (points,) fractions and error spent, (looks,) fractions and error spent at the looks.
    """
    figure, axes = canvas(7.5, 3.2)
    for (name, x, y, looks, spent), (colour, style) in zip(curves, _LINES, strict=False):
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=name)
        axes.plot(looks, spent, "o", color=colour, markersize=5)
        for fraction, error in zip(looks, spent, strict=True):
            axes.annotate(f"{error:.4f}", (fraction, error), (-4, 5), textcoords="offset points", ha="right",
                          fontsize=8.5, color=colour)  # fmt: skip
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.12 * max(float(y.max()) for _, _, y, _, _ in curves))
    axes.set_xlabel("information fraction (events seen / events of the last look)")
    axes.set_ylabel("cumulative error spent")
    axes.legend(loc="upper left", frameon=False)
    return to_svg(figure)


def timeline_plot(
    months: Floats, enrolled: Floats, events: Sequence[tuple[str, Floats]], looks: Sequence[tuple[int, float]]
) -> str:
    """Patients expected in the trial, above the events expected by calendar month, with the looks.

    Args:
        months: (points,) calendar months.
        enrolled: (points,) patients.
        events: Under what, (points,) events.
        looks: Events and expected month of each look, under the first of `events`.
    """
    figure, (above, below) = canvases(2, 1, 7.5, 5.0, share_x=True)
    above.plot(months, enrolled, color=_GREY, linewidth=1.8)
    above.set_ylabel("patients randomised")
    above.set_ylim(0, 1.08 * float(enrolled.max()))
    for (name, counts), (colour, style) in zip(events, _LINES, strict=False):
        below.plot(months, counts, color=colour, linestyle=style, linewidth=1.8, label=name)
    for number, (count, month) in enumerate(looks, start=1):
        below.vlines(month, 0, count, color=_BLUE, linewidth=0.8, alpha=0.6)
        below.plot([month], [count], "o", color=_BLUE, markersize=5)
        is_late = month > 0.5 * float(months[-1])
        place: dict[str, Any] = {"xytext": (-8, 7) if is_late else (6, -11), "ha": "right" if is_late else "left"}
        text = f"look {number}: {count:,} events, month {month:.1f}"
        below.annotate(text, (month, count), textcoords="offset points", fontsize=8.5, color=_BLUE, **place)
    below.set_xlim(0, float(months[-1]))
    below.set_ylim(0, 1.12 * max([*(float(counts.max()) for _, counts in events), *(count for count, _ in looks)]))
    below.set_xlabel("calendar months since the first patient could enter")
    below.set_ylabel("events expected")
    below.legend(loc="upper left", frameon=False)
    return to_svg(figure)


def distribution_plot(panels: Sequence[tuple[str, Sequence[tuple[str, Floats]]]]) -> str:
    """Histograms under each other, as shares of each group's trials; few different values are bars of their own.

    Args:
        panels: Of each, what is counted with its unit; name and (trials,) values of each group.
    """
    figure, every = canvases(len(panels), 1, 7.5, 2.1 * len(panels) + 0.4)
    for axes, (label, groups) in zip(every, panels, strict=True):
        _histogram(axes, groups)
        axes.set_xlabel(label)
        axes.set_ylabel("share of trials")
    handles = [
        every[0].fill_between([], [], [], color=colour, alpha=0.35 if style == "-" else 0.15, label=name,
                              linestyle=style, edgecolor=colour)
        for (name, _), (colour, style) in zip(panels[0][1], _LINES, strict=False)
    ]  # fmt: skip
    every[0].legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False)
    return to_svg(figure)


def _histogram(axes: Any, groups: Sequence[tuple[str, Floats]]) -> None:
    values = np.concatenate([each for _, each in groups])
    distinct = np.unique(values)
    if (values == np.round(values)).all():
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(distinct) <= _FEW_VALUES:
        span = float(distinct[-1] - distinct[0]) or 4.0
        width = 0.6 * min([span / 12, *np.diff(distinct).tolist()]) / max(len(groups), 1)
        for number, ((_, each), (colour, style)) in enumerate(zip(groups, _LINES, strict=False)):
            shares = [(each == value).mean() for value in distinct]
            shift = (number - (len(groups) - 1) / 2) * width
            axes.bar(distinct + shift, shares, width, color=(colour, 0.35 if style == "-" else 0.15), edgecolor=colour,
                     linestyle=style)  # fmt: skip
        axes.set_xlim(float(distinct[0]) - 0.1 * span, float(distinct[-1]) + 0.1 * span)
        return
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high, _MAX_BINS + 1)
    if (values == np.round(values)).all():  # whole numbers: bins that hold as many of them each
        step = max(1, int(np.ceil((high - low + 1) / _MAX_BINS)))
        edges = np.arange(low - 0.5, high + step + 0.5, step)
    for (_, each), (colour, style) in zip(groups, _LINES, strict=False):
        weights = np.full(len(each), 1 / len(each))
        axes.hist(each, edges.tolist(), weights=weights, histtype="stepfilled", facecolor=(colour, 0.35 if style == "-"
                  else 0.15), edgecolor=colour, linestyle=style, linewidth=1.2)  # fmt: skip


def representation_plot(
    rows: Sequence[tuple[str, str, float, float, float, float, float]],
) -> str:
    """The share of each group in the cohort, among the eligible, and in simulated trials with its spread.

    Args:
        rows: Division, group, shares of the cohort and of the eligible; mean, 5th and 95th percentile of the shares
            in trials. A division's rows follow each other.
    """
    heights, y = [], 0.0
    for number, row in enumerate(rows):
        y -= 1.0 if number == 0 or rows[number - 1][0] == row[0] else 1.6
        heights.append(y)
    figure, axes = canvas(7.5, 1.0 + 0.27 * -heights[-1])
    numbers = 100 * np.array([row[2:] for row in rows], dtype=np.float64)
    axes.hlines(heights, numbers[:, 3], numbers[:, 4], color=_BLUE, linewidth=2.4, alpha=0.5)
    axes.plot(numbers[:, 2], heights, "o", color=_BLUE, markersize=5, label="enrolled (line: 90 % of trials)")
    axes.plot(numbers[:, 1], heights, "s", markerfacecolor="none", color=_ORANGE, markersize=8, label="eligible")
    axes.plot(numbers[:, 0], heights, "|", color="#1b2430", markersize=12, markeredgewidth=2, label="cohort")
    axes.set_yticks(heights, [f"{division}: {group}" for division, group, *_ in rows])
    axes.set_ylim(heights[-1] - 0.7, heights[0] + 0.7)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#dde3ea", linewidth=0.6)
    axes.set_xlabel("share of subjects, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return to_svg(figure)
