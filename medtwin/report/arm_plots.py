"""Scores of several ways to train a model, side by side, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medtwin.report.plots import COLOURS, canvases, to_svg


@dataclass(frozen=True)
class ArmPanel:
    """One score of every arm.

    Attributes:
        title: The score.
        values: By model: (arms,) value with low and high; None where there is none.
        marks: Vertical lines by name, such as the value of chance.
    """

    title: str
    values: Mapping[str, Sequence[tuple[float, float, float] | None]]
    marks: Mapping[str, float]


def arm_plot(arms: Sequence[str], panels: Sequence[ArmPanel]) -> str:
    """A panel per score: a line per arm, the first on top, a point with its interval per model.

    Args:
        arms: (arms,) what each is.
        panels: At least one; all with the same models.
    """
    figure, grid = canvases(1, len(panels), 3.6 + 2.6 * len(panels), 1.0 + 0.34 * len(arms))
    rows = list(range(len(arms)))[::-1]
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        for name, mark in panel.marks.items():
            axes.axvline(mark, color="#9aa5b1", linewidth=1, linestyle=":", label=name)
        for model, (name, values) in enumerate(panel.values.items()):
            shift = 0.14 - 0.28 * model
            known = [(row + shift, one) for row, one in zip(rows, values, strict=True) if one is not None]
            axes.hlines([y for y, _ in known], [v[1] for _, v in known], [v[2] for _, v in known], color=COLOURS[model])
            places = [v[0] for _, v in known], [y for y, _ in known]
            axes.plot(*places, "o", color=COLOURS[model], markersize=4, label=name)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_yticks(rows, arms if number == 0 else [""] * len(arms))
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.tick_params(labelsize=8)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(handles), fontsize=8, frameon=False)
    return to_svg(figure)
