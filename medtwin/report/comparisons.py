"""Plots of two sides, real and synthetic, as SVG text: scatter, small multiples, curves, timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.report.plots import COLOURS, canvas, canvases, to_svg

REAL, SYNTHETIC = COLOURS[2], COLOURS[1]
NUM_BARS = 28
LABEL_STEP = 0.035
"""Distance of two names in a scatter plot, as a share of its height."""


def scatter_plot(
    x: Sequence[float],
    y: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    names: Mapping[int, str] | None = None,
    limits: tuple[float, float] = (1e-3, 1.0),
) -> str:
    """Points on logarithmic axes around the diagonal, with a band of twice and half.

    Args:
        x: (points,) positive; smaller ones than the lower limit are drawn on the edge.
        y: The same.
        x_label: What x is.
        y_label: What y is.
        names: Points that bear their name.
        limits: Of both axes.
    """
    figure, axes = canvas(6.2, 5.2)
    low, high = limits
    line = np.array([low, high])
    axes.fill_between(line, line / 2, line * 2, color="#e8eef2", linewidth=0, label="within a factor of 2")
    axes.plot(line, line, color="#5c6773", linewidth=1)
    first, second = (np.clip(np.asarray(values, dtype=float), low, high) for values in (x, y))
    axes.plot(first, second, "o", color=COLOURS[0], markersize=4.5, alpha=0.65, markeredgewidth=0)
    _name_points(axes, first, second, names or {}, np.log(high / low) * LABEL_STEP)
    axes.set(xscale="log", yscale="log", xlim=(low * 0.85, high * 1.2), ylim=(low * 0.85, high * 1.2))
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return to_svg(figure)


def agreement_plot(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, limits: tuple[float, float]
) -> str:
    """Real against synthetic numbers on linear axes around the diagonal, one small plot per group.

    Args:
        groups: Title to (real, synthetic) values.
        limits: Of all axes.
    """
    figure, grid = canvases(1, len(groups), 3.2 * len(groups), 3.2)
    for axes, (title, (real, synthetic)) in zip(grid, groups.items(), strict=True):
        axes.plot(limits, limits, color="#5c6773", linewidth=1)
        axes.plot(real, synthetic, "o", color=COLOURS[0], markersize=3.5, alpha=0.55, markeredgewidth=0)
        axes.set(xlim=limits, ylim=limits)
        axes.set_title(f"{title} ({len(real):,})", fontsize=9, loc="left")
        axes.set_xlabel("reference", fontsize=8)
        axes.set_ylabel("twins", fontsize=8)
        axes.tick_params(labelsize=7.5)
    return to_svg(figure)


def _name_points(
    axes: Any, x: NDArray[np.float64], y: NDArray[np.float64], names: Mapping[int, str], step: float
) -> None:
    """Writes names away from the diagonal, each a step of log height apart from the next on its side."""
    for is_above in (True, False):
        side = sorted((i for i in names if (y[i] >= x[i]) == is_above), key=lambda i: y[i], reverse=not is_above)
        height = -np.inf if is_above else np.inf
        for i in side:
            axes.plot(x[i], y[i], "o", color=COLOURS[1], markersize=5.5, markeredgewidth=0)
            height = max(np.log(y[i]), height + step) if is_above else min(np.log(y[i]), height - step)
            place = (x[i] / 1.12, np.exp(height)) if is_above else (x[i] * 1.12, np.exp(height))
            axes.text(*place, names[i], fontsize=7.5, ha="right" if is_above else "left", va="center")


@dataclass(frozen=True)
class Panel:
    """One distribution of a plot of small multiples: cumulative shares of both sides at the points of a support."""

    title: str
    label: str
    support: Sequence[float]
    cdf_real: Sequence[float]
    cdf_synthetic: Sequence[float]
    note: str = ""
    is_log: bool = False


def histogram_multiples(panels: Sequence[Panel], *, columns: int = 4, height: float = 1.75) -> str:
    """A small plot per distribution: the real one filled, the synthetic one as a line over it."""
    rows = -(-len(panels) // columns)
    figure, grid = canvases(rows, columns, 2.6 * columns, height * rows + 0.35)
    for axes, panel in zip(grid, panels, strict=False):
        _histogram(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    return to_svg(figure)


def _histogram(axes: Any, panel: Panel) -> None:
    support = np.asarray(panel.support, dtype=float)
    curves = [np.asarray(curve, dtype=float) for curve in (panel.cdf_real, panel.cdf_synthetic)]
    if len(support) < 2:
        axes.set_visible(False)
        return
    edges = _edges(support, curves[0], is_log=panel.is_log)
    where = np.searchsorted(support, edges, side="right") - 1
    for side, (curve, name) in enumerate(zip(curves, ("real", "synthetic"), strict=True)):
        heights = np.diff(np.where(where >= 0, curve[np.maximum(where, 0)], 0.0))
        if side == 0:
            axes.stairs(heights, edges, fill=True, color=REAL, alpha=0.45, linewidth=0, label=name)
        else:
            axes.stairs(heights, edges, color=SYNTHETIC, linewidth=1.6, label=name)
    if panel.is_log:
        axes.set_xscale("log")
    axes.set_title(panel.title, fontsize=8.5, loc="left")
    axes.set_xlabel(panel.label, fontsize=7.5, labelpad=1)
    axes.tick_params(labelsize=7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if panel.note:
        axes.annotate(
            panel.note, (1, 0.98), xycoords="axes fraction", fontsize=7, ha="right", va="top", color="#5c6773"
        )


def _edges(support: NDArray[np.float64], curve: NDArray[np.float64], *, is_log: bool) -> NDArray[np.float64]:
    """Edges of bars over the middle 99 % of the real values; between the values where there are few of them."""
    low, high = (support[min(int(np.searchsorted(curve, share)), len(support) - 1)] for share in (0.005, 0.995))
    inside = support[(support >= low) & (support <= high)]
    if len(inside) <= NUM_BARS and not is_log and len(inside) > 1:
        step = float(np.median(np.diff(inside)))
        return np.asarray(np.r_[inside[0] - step / 2, (inside[1:] + inside[:-1]) / 2, inside[-1] + step / 2])
    if is_log:
        smallest = support[support > 0][0] if (support > 0).any() else 1e-3
        return np.geomspace(max(low, smallest) * 0.9, max(high, smallest) * 1.1, NUM_BARS)
    grain = float(np.diff(inside).min()) if len(inside) > 1 else 1.0
    width = max(np.ceil((high - low) / NUM_BARS / grain), 1) * grain  # whole numbers go by whole numbers into bars
    return np.asarray(np.arange(low - grain / 2, high + width, width))


@dataclass(frozen=True)
class Curves:
    """A plot of one curve per side."""

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    real: Sequence[float]
    synthetic: Sequence[float]
    is_step: bool = False
    limits: tuple[float, float] | None = None


def curve_multiples(panels: Sequence[Curves], *, columns: int = 3, height: float = 2.3) -> str:
    """A small plot per pair of curves."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = canvases(rows, columns, 3.4 * columns, height * rows + 0.35)
    for axes, panel in zip(grid, panels, strict=False):
        draw = axes.step if panel.is_step else axes.plot
        more = {"where": "post"} if panel.is_step else {}
        draw(panel.x, panel.real, color=REAL, linewidth=2.4, label="real", **more)
        draw(panel.x, panel.synthetic, color=SYNTHETIC, linewidth=1.6, label="synthetic", **more)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_xlabel(panel.x_label, fontsize=8)
        axes.set_ylabel(panel.y_label, fontsize=8)
        axes.tick_params(labelsize=7.5)
        if panel.limits is not None:
            axes.set_ylim(*panel.limits)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    return to_svg(figure)


@dataclass(frozen=True)
class Timeline:
    """The record of one subject: marks in lanes, and events worth their name.

    Attributes:
        title: Who it is.
        lanes: Times of the marks in each lane; all timelines of a figure have the same lanes.
        named: (time, name) of events that are told by name, in order.
        end: Time of death; None: alive at the end.
    """

    title: str
    lanes: Mapping[str, Sequence[float]]
    named: Sequence[tuple[float, str]] = field(default_factory=tuple)
    end: float | None = None


LANE_COLOURS = ("#1f6f8b", "#b3372f", "#5b8c5a", "#d9822b", "#8059a5", "#3f4a55", "#9a7b2c", "#7a8b99")
NAME_ROWS = 3


def timeline_plot(timelines: Sequence[Timeline], *, unit: str) -> str:
    """Swim lanes: a block per subject, a lane per kind of event, named events above them.

    Args:
        timelines: From top to bottom.
        unit: Of the times, such as `years since the first event`.
    """
    figure, grid = canvases(len(timelines), 1, 6.4, 1.85 * len(timelines) + 0.3, share_x=True)
    last = max((max((*times, 0.0)) for one in timelines for times in one.lanes.values()), default=1.0)
    for axes, one in zip(grid, timelines, strict=True):
        names = list(one.lanes)
        for row, times in enumerate(one.lanes.values()):
            y = len(names) - 1 - row
            axes.hlines(y, 0, last * 1.02, color="#e3e8ee", linewidth=0.7, zorder=0)
            colour = LANE_COLOURS[row % len(LANE_COLOURS)]
            axes.plot(times, [y] * len(times), "|", color=colour, markersize=6.5, markeredgewidth=1.1, alpha=0.8)
        _names(axes, one.named, len(names), last)
        if one.end is not None:
            axes.axvline(one.end, color="#1b2430", linewidth=1.2)
            axes.annotate("died", (one.end, -0.6), (3, 0), textcoords="offset points", fontsize=7, va="center")
        axes.set_yticks(range(len(names)), names[::-1], fontsize=7)
        axes.set_ylim(-0.9, len(names) + 0.75 * NAME_ROWS)
        axes.set_xlim(-last * 0.015, last * 1.03)
        axes.set_title(one.title, fontsize=8.5, loc="left", pad=2)
        axes.tick_params(length=0, labelsize=7)
        axes.spines["left"].set_visible(False)
    grid[-1].set_xlabel(unit, fontsize=8)
    return to_svg(figure)


def _names(axes: Any, named: Sequence[tuple[float, str]], top: int, last: float) -> None:
    """Writes names in `NAME_ROWS` rows, each where the row is free; what has no room stays unwritten."""
    free = [-np.inf] * NAME_ROWS
    for time, name in named:
        text = name if len(name) <= 34 else name[:32] + "\N{HORIZONTAL ELLIPSIS}"
        width = len(text) * last * 0.0125
        start = min(time, last * 1.03 - width)
        row = next((i for i, end in enumerate(free) if start >= end), None)
        if row is None:
            continue
        free[row] = start + width + last * 0.01
        y = top + 0.75 * (NAME_ROWS - 1 - row)
        axes.vlines(time, -0.4, y - 0.15, color="#b3372f", linewidth=0.6, alpha=0.45, zorder=0)
        axes.text(start, y, text, fontsize=6.8, color="#1b2430", va="center", clip_on=True)
