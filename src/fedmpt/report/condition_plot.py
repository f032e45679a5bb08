"""Scores of conditions as a picture: the gate's use of them, how far they are apart, and mAP with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmpt.report.plots import BLUE, GREY, ORANGE, labelled, shortened, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches. Cells of the heat map shrink until it is as high as a page takes; then its numbers and some names go.
_CELL, _MIN_SIDE, _MAX_SIDE = 0.42, 1.9, 8.0
_BARS_WIDTH, _GAP = 2.4, 0.25
_MIN_NUMBERED = 0.36


def plot_condition_scores(path: Path, report: Mapping[str, Any]) -> None:
    """Draw what `fedmpt conditions score --json` prints: weights, differences, and mAP by the number of conditions.

    The format is that of the name's end: .png, .svg or .pdf. Needs matplotlib, of the extra ``report``.

    Raises:
        InputError: if the name has another end, matplotlib is missing, or the file cannot be written.
    """
    write_plot(path, lambda figure: _draw(figure, report))


def _draw(figure: Figure, report: Mapping[str, Any]) -> None:
    """Axes are placed in inches from the corner of the bars; `savefig` then cuts the picture to what was drawn."""
    names = [shortened(name) for name in report["conditions"]]
    side = min(max(_CELL * len(names), _MIN_SIDE), _MAX_SIDE)
    width = _BARS_WIDTH + _GAP + side
    figure.set_size_inches(width, side)

    def place(x: float, y: float, across: float, up: float) -> Axes:
        return figure.add_axes((x / width, y / side, across / width, up / side))

    bars = place(0, 0, _BARS_WIDTH, side)
    cells = place(_BARS_WIDTH + _GAP, 0, side, side)
    image = _draw_differences(cells, report, cell=side / len(names))
    _draw_use(bars, report)
    shown = labelled(len(names), side)
    bars.set_yticks(shown, [names[index] for index in shown])
    bars.set_ylim(cells.get_ylim())
    cells.set_yticks([])
    cells.set_xticks(shown, [names[index] for index in shown], rotation=90)
    bar = figure.colorbar(image, cax=place(width + 0.1, 0, 0.1, side))
    bar.set_label("points of probability")
    _draw_steps(place(0, side + 0.9, width, side), report, height=side)


def _draw_use(axes: Axes, report: Mapping[str, Any]) -> None:
    """Bars for the means, whiskers of a standard deviation, dots for the least and largest weight."""
    use = list(report["use"]["per_condition"].values())
    mean, spread, lowest, highest = ([each[key] for each in use] for key in ("mean", "std", "min", "max"))
    rows = range(len(use))
    axes.barh(rows, mean, height=0.7, color=GREY, alpha=0.55, label="mean")
    axes.errorbar(mean, rows, xerr=spread, fmt="none", ecolor="#3c4048", elinewidth=1, capsize=2)
    for values in (lowest, highest):
        axes.scatter(values, rows, s=6, color=BLUE, linewidths=0, zorder=3)
    axes.axvline(1 / len(use), color=ORANGE, linewidth=0.8, linestyle="--")
    axes.set_xlim(0, min(1.05 * max(highest), 1.02))
    axes.set_xlabel("bar mean, whisker std,\ndots min and max, line even")
    axes.set_title("weight in the gate")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)


def _draw_differences(axes: Axes, report: Mapping[str, Any], *, cell: float) -> Any:
    points = 100 * np.array(report["difference"]["absolute"])
    largest = max(float(points.max()), 1e-6)
    image = axes.imshow(points, cmap="Blues", vmin=0, vmax=largest, interpolation="nearest")
    axes.set_title("mean difference of predictions")
    axes.tick_params(length=0)
    if cell >= _MIN_NUMBERED:
        for (row, column), value in np.ndenumerate(points):
            colour = "white" if value > 0.6 * largest else "black"
            text = "" if row == column else f"{value:.2g}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    return image


def _draw_steps(axes: Axes, report: Mapping[str, Any], *, height: float) -> None:
    """mAP of backward elimination, downwards: each step has the name of the condition that went."""
    steps, full, tolerance = report["elimination"], report["full"]["mAP"], report["tolerance"]
    axes.axvspan(full - tolerance, full, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot([step["mAP"] for step in steps], range(len(steps)), color=BLUE, marker="o", markersize=4)
    at = len(steps) - len(report["suggestions"]["drop"]["conditions"])
    axes.plot(steps[at]["mAP"], at, color=ORANGE, marker="o", markersize=9, fillstyle="none", linestyle="none")
    dropped = (f"{shortened(step['dropped'])} dropped, {step['num']} left" for step in steps[1:])
    words = [f"all {len(steps)}", *dropped]
    shown = labelled(len(steps), height)
    axes.set_yticks(shown, [words[row] for row in shown])
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_title(f"mAP with fewer conditions; band: within {tolerance:g} of all, ring: the fewest")
    axes.set_xlabel("mAP, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
