"""Scores of conditions as a picture: the gate's use of them, how far they are apart, and mAP with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmpt.report.plots import BLUE, GREY, ORANGE, shortened, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _MAX_HEIGHT = 0.3, 6.5
"""Inches of a condition, and of each of the three at most."""


def plot_condition_scores(path: Path, report: Mapping[str, Any]) -> None:
    """Draw what `fedmpt conditions score --json` prints: weights, differences, and mAP by the number of conditions.

    The format is that of the name's end: .png, .svg or .pdf. Needs matplotlib, of the extra ``report``.

    Raises:
        InputError: if the name has another end, matplotlib is missing, or the file cannot be written.
    """
    write_plot(path, lambda figure: _draw(figure, report))


def _draw(figure: Figure, report: Mapping[str, Any]) -> None:
    names = [shortened(name) for name in report["conditions"]]
    height = min(1.2 + _ROW * len(names), _MAX_HEIGHT)
    figure.set_size_inches(8, 3 * height)
    figure.set_layout_engine("constrained")
    use, differences, steps = figure.subplots(3, 1)
    _draw_use(use, names, report["use"]["per_condition"].values())
    points = 100 * np.array(report["difference"]["absolute"])
    image = differences.imshow(points, cmap="Blues", vmin=0, aspect="auto")
    differences.set_xticks(range(len(names)), names, rotation=90)
    differences.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=differences, label="points of probability")
    differences.set_title("mean difference of predictions")
    _draw_steps(steps, report)


def _draw_use(axes: Axes, names: list[str], use: Any) -> None:
    """Bars for the means, whiskers of a standard deviation, dots for the least and largest weight."""
    mean, spread, lowest, highest = ([each[key] for each in use] for key in ("mean", "std", "min", "max"))
    axes.barh(names, mean, xerr=spread, color=GREY, alpha=0.55)
    for values in (lowest, highest):
        axes.scatter(values, names, s=6, color=BLUE, zorder=3)
    axes.axvline(1 / len(names), color=ORANGE, linewidth=0.8, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlabel("bar mean, whisker std, dots min and max, line even")
    axes.set_title("weight in the gate")


def _draw_steps(axes: Axes, report: Mapping[str, Any]) -> None:
    """mAP of backward elimination, downwards: each step has the name of the condition that went."""
    steps, full, tolerance = report["elimination"], report["full"]["mAP"], report["tolerance"]
    axes.axvspan(full - tolerance, full, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot([step["mAP"] for step in steps], range(len(steps)), color=BLUE, marker="o", markersize=4)
    at = len(steps) - len(report["suggestions"]["drop"]["conditions"])
    axes.plot(steps[at]["mAP"], at, color=ORANGE, marker="o", markersize=9, fillstyle="none", linestyle="none")
    dropped = (f"{shortened(step['dropped'])} dropped, {step['num']} left" for step in steps[1:])
    axes.set_yticks(range(len(steps)), [f"all {len(steps)}", *dropped])
    axes.invert_yaxis()
    axes.set_title(f"mAP with fewer conditions; band: within {tolerance:g} of all, ring: the fewest")
    axes.set_xlabel("mAP, percent")
