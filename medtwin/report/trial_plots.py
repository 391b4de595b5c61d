"""Plots of a trial for the report, as SVG text: flow of subjects, bounds, survival curves, power curve, durations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.report.plots import COLOURS, canvas, canvases, to_svg

Floats = NDArray[np.float64]
_BLUE, _ORANGE, _GREY, _GREEN = COLOURS[:4]


def flow_plot(steps: Sequence[tuple[str, int | None, int | None, int | None]]) -> str:
    """A CONSORT flow: a box for those who remain after each step, beside it those whom the step excluded.

    Args:
        steps: What was demanded, how many remain, how many it excluded, of them without the data; None: not told.
    """
    figure, axes = canvas(7.5, 0.75 * len(steps) + 0.1)
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(-len(steps) + 0.5, 0.5)
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _BLUE}
    side = {**box, "edgecolor": _ORANGE}
    arrow = {"arrowstyle": "-|>", "color": _GREY, "shrinkA": 0, "shrinkB": 0}
    for row, (demand, remaining, excluded, unknown) in enumerate(steps):
        text = demand if len(demand) <= 62 else demand[:60] + " …"
        axes.text(2.9, -row, f"{text}\nn = {_count(remaining)}", ha="center", va="center", bbox=box, fontsize=9)
        if row + 1 < len(steps):
            axes.annotate("", (2.9, -row - 0.68), (2.9, -row - 0.32), arrowprops=arrow)
        if excluded != 0:
            gap = f"\n({unknown:,} lacked the data)" if unknown else ""
            axes.text(
                8.3, -row + 0.5, f"excluded: {_count(excluded)}{gap}", ha="center", va="center", bbox=side, fontsize=9
            )
            axes.annotate("", (7.2, -row + 0.5), (2.9, -row + 0.5), arrowprops=arrow)
    return to_svg(figure)


def _count(number: int | None) -> str:
    return "not told" if number is None else f"{number:,}"


def bounds_plot(
    events: Sequence[int],
    efficacy: Sequence[float],
    futility: Sequence[float],
    paths: Floats,
    stopping: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    information: str = "events",
) -> str:
    """The bounds with some simulated trials' statistics, above the probability of stopping at each look.

    Args:
        events: (looks,) events at each.
        efficacy: (looks,) z bounds.
        futility: (looks,) z bounds, -inf for none.
        paths: (trials, looks) statistics of some trials; nan after the stop.
        stopping: What, (looks,) simulated shares, (looks,) analytical ones.
        information: What is counted at the looks.
    """
    figure, (above, below) = canvases(2, 1, 7.5, 6.0, share_x=True)
    for path in paths:
        above.plot(events, path, color=_GREY, linewidth=0.6, alpha=0.35, marker=".", markersize=3)
    above.plot([], [], color=_GREY, linewidth=0.8, label=f"{len(paths)} simulated trials")
    above.plot(events, efficacy, color=_BLUE, marker="o", linewidth=2, label="efficacy")
    low = np.asarray(futility)
    if np.isfinite(low[:-1]).any():
        above.plot(events, np.where(np.isfinite(low), low, np.nan), color=_ORANGE, marker="o", linewidth=2,
                   label="futility")  # fmt: skip
    for count, z in zip(events, efficacy, strict=True):
        above.annotate(f"{z:.2f}", (count, z), (0, 7), textcoords="offset points", ha="center", fontsize=9, color=_BLUE)
    above.set_ylabel("z")
    top = max(float(max(efficacy)), float(np.nanmax(paths, initial=0.0)))
    above.set_ylim(min(-1.0, float(np.nanmin(paths, initial=0.0)) - 0.3), top + 0.5)
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    span = (events[-1] - events[0]) / max(len(events) - 1, 1) if len(events) > 1 else 10.0
    width = 0.8 * span / max(len(stopping), 1) / 1.6
    for number, (name, simulated, analytical) in enumerate(stopping):
        x = np.asarray(events, dtype=np.float64) + (number - (len(stopping) - 1) / 2) * width
        colour = (_BLUE, _ORANGE, _GREEN, _GREY)[number % 4]
        below.bar(x, simulated, width * 0.92, color=colour, label=name)
        below.plot(x, analytical, "_", color="#1b2430", markersize=9, markeredgewidth=1.6)
    below.plot([], [], "_", color="#1b2430", markersize=9, markeredgewidth=1.6, label="analytical")
    below.set_ylabel("probability")
    below.set_xlabel(information)
    below.set_xticks(list(events), [f"{count:,}" for count in events])
    below.legend(loc="best", fontsize=8.5, frameon=False)
    return to_svg(figure)


def survival_plot(
    curves: Sequence[tuple[str, Floats, Floats, Floats, Floats]], at_risk: Sequence[Sequence[int]], ticks: Floats
) -> str:
    """Kaplan-Meier curves as steps with their bands, and the number at risk below.

    Args:
        curves: Name, (steps,) times, survival, low and high limits; the last step is where the curve ends.
        at_risk: For each curve, (ticks,) patients at risk.
        ticks: (ticks,) months on the axis.
    """
    figure, axes = canvas(7.5, 4.2)
    lowest = 1.0
    for number, (name, time, survival, low, high) in enumerate(curves):
        colour = (_ORANGE, _BLUE)[number % 2]
        x = np.concatenate([[0.0], time])
        y, down, up = (np.concatenate([[1.0], values]) for values in (survival, low, high))
        axes.fill_between(x, down, up, step="post", color=colour, alpha=0.18, linewidth=0)
        axes.step(x, y, where="post", color=colour, linewidth=1.8, label=name)
        lowest = min(lowest, float(np.nanmin(down)))
    axes.set_xlim(0, float(ticks[-1]))
    axes.set_ylim(max(0.0, lowest - 0.02), 1.005)
    axes.set_xticks(ticks)
    axes.set_ylabel("free of the event")
    axes.set_xlabel("months since randomisation")
    place: dict[str, Any] = {
        "xycoords": axes.get_xaxis_transform(),
        "textcoords": "offset points",
        "va": "top",
        "fontsize": 9,
    }
    for row, ((name, *_), counts) in enumerate(zip(curves, at_risk, strict=True)):
        colour = (_ORANGE, _BLUE)[row % 2]
        axes.annotate(name, (0, 0), (-26, -42 - 13 * row), ha="right", color=colour, **place)
        for tick, count in zip(ticks.tolist(), counts, strict=True):
            axes.annotate(f"{count:,}", (tick, 0), (0, -42 - 13 * row), ha="center", color=colour, **place)
    axes.legend(loc="lower left", frameon=False)
    return to_svg(figure)


def curve_plot(
    x: Floats, estimates: Floats, intervals: Floats, smooth: tuple[Floats, Floats], *, labels: tuple[str, str]
) -> str:
    """Estimates with Monte-Carlo intervals on a curve with its band.

    Args:
        x: (points,) of the estimates.
        estimates: (points,) their values.
        intervals: (points, 2) low and high.
        smooth: (many,) x and y of the analytical curve.
        labels: Of the axes.
    """
    figure, axes = canvas(7.5, 3.8)
    order = np.argsort(x)
    axes.plot(*smooth, color=_GREY, linewidth=1.6, label="analytical (all patients alike)")
    axes.fill_between(
        x[order], intervals[order, 0], intervals[order, 1], color=_BLUE, alpha=0.2, linewidth=0,
        label="95 % Monte-Carlo interval",
    )  # fmt: skip
    errors = np.abs(intervals[order] - estimates[order, None]).T
    axes.errorbar(x[order], estimates[order], errors, fmt="o", color=_BLUE, markersize=4, label="simulated")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.legend(loc="upper right", frameon=False)
    return to_svg(figure)
