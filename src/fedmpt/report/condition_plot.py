"""Scores of conditions as a picture: the gate's use of them, how far they are apart, and mAP with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmpt.report.plots import BLUE, GREY, ORANGE, shortened, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _MAX_HEIGHT = 0.3, 6.5
"""Inches of a condition, and of each of the three at most."""


def plot_condition_scores(path: Path, report: Mapping[str, Any]) -> None:
    """Draw what `fedmpt conditions score --json` prints, in the format of the name's end; errors as `write_plot`."""
    write_plot(path, lambda figure: _draw(figure, report))


def _draw(figure: Figure, report: Mapping[str, Any]) -> None:
    names = [shortened(name) for name in report["conditions"]]
    height = min(1.2 + _ROW * len(names), _MAX_HEIGHT)
    figure.set_size_inches(8, 3 * height)
    figure.set_layout_engine("constrained")
    gate, differences, fewer = figure.subplots(3, 1)

    use = report["use"]["per_condition"].values()
    mean, spread, lowest, highest = ([each[key] for each in use] for key in ("mean", "std", "min", "max"))
    gate.barh(names, mean, xerr=spread, color=GREY, alpha=0.55)
    for values in (lowest, highest):
        gate.scatter(values, names, s=6, color=BLUE, zorder=3)
    gate.axvline(1 / len(names), color=ORANGE, linewidth=0.8, linestyle="--")
    gate.invert_yaxis()
    gate.set(title="weight in the gate", xlabel="bar mean, whisker std, dots min and max, line even")

    points = 100 * np.array(report["difference"]["absolute"])
    image = differences.imshow(points, cmap="Blues", vmin=0, aspect="auto")
    differences.set_xticks(range(len(names)), names, rotation=90)
    differences.set_yticks(range(len(names)), names)
    differences.set_title("mean difference of predictions")
    figure.colorbar(image, ax=differences, label="points of probability")

    steps, full, tolerance = report["elimination"], report["full"]["mAP"], report["tolerance"]
    fewest = len(steps) - len(report["suggestions"]["drop"]["conditions"])
    dropped = (f"{shortened(step['dropped'])} dropped, {step['num']} left" for step in steps[1:])
    fewer.axvspan(full - tolerance, full, color=BLUE, alpha=0.12, linewidth=0)
    fewer.plot([step["mAP"] for step in steps], range(len(steps)), color=BLUE, marker="o", markersize=4)
    fewer.plot(steps[fewest]["mAP"], fewest, color=ORANGE, marker="o", markersize=9, fillstyle="none")
    fewer.set_yticks(range(len(steps)), [f"all {len(steps)}", *dropped])
    fewer.invert_yaxis()
    title = f"mAP with fewer conditions; band: within {tolerance:g} of all, ring: the fewest"
    fewer.set(title=title, xlabel="mAP, percent")
