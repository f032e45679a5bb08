"""Draw mAP against false co-activation from tables of benchmarks/context_shift.py: up and to the left is better.

    python benchmarks/tradeoff.py runs/tied/table.json runs/tied-curve/table.json --out docs/tradeoff.svg

Rows ``FedMPT, entropy E`` are joined to a curve, and so are a row and the same with soft ties; all others are points.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from fedmpt.files import read_json
from fedmpt.report.plots import BLUE, GREY, ORANGE, write_plot
from fedmpt.types import InputError

CURVE = "FedMPT, entropy "
SOFT = (", soft ties 0.5", ", soft ties 1")
X, Y = "false co-activation", "mAP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=float, default=75.0, help="rows below this mAP are left out")
    options = parser.parse_args()
    try:
        rows = {name: row for table in options.tables for name, row in read_json(table)["rows"].items()}
        points = {name: point for name, row in rows.items() if (point := _point(row)) and point[1] >= options.least}
        write_plot(options.out, lambda figure: draw(figure, points))
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")


def _point(row: dict[str, Any]) -> tuple[float, float] | None:
    """Means over seeds; None for a row without a value, as where no test image shows a class of a pair alone."""
    x, y = ([value for value in row["scores"][column] if value is not None] for column in (X, Y))
    return (statistics.mean(x), statistics.mean(y)) if x and y else None


def draw(figure: Any, points: dict[str, tuple[float, float]]) -> None:
    figure.set_size_inches(6.4, 4.2)
    axes = figure.subplots()
    curve = sorted((float(name.removeprefix(CURVE)), point) for name, point in points.items() if _is_curve(name))
    if curve:
        axes.plot(*zip(*(point for _, point in curve), strict=True), "o-", color=BLUE, markersize=3, linewidth=1)
        for entropy, point in curve:
            axes.annotate(f"{entropy:g}", point, xytext=(3, 4), textcoords="offset points", color=BLUE, fontsize=6)
    for name, point in points.items():
        if "entropy" in name or "mix" in name or name.endswith(SOFT):
            continue
        color = BLUE if name.startswith("FedMPT") else GREY
        axes.plot(*point, "s" if name == "FedMPT" else "o", color=color, markersize=5)
        axes.annotate(name, point, xytext=(6, -2), textcoords="offset points", fontsize=7)
        softer = [point, *(points[name + suffix] for suffix in SOFT if name + suffix in points)]
        if len(softer) > 1:
            axes.plot(*zip(*softer, strict=True), "--", color=ORANGE, linewidth=0.8, marker=".", markersize=4)
    axes.set_xlabel("false co-activation, % (lower is better)")
    axes.set_ylabel("mAP, % (higher is better)")
    axes.grid(alpha=0.3)
    axes.margins(0.12)
    axes.set_title("blue line: FedMPT over the entropy; dashed: soft ties 0.5 and 1", loc="left", fontsize=7)


def _is_curve(name: str) -> bool:
    return name.startswith(CURVE) and "," not in name.removeprefix(CURVE)


if __name__ == "__main__":
    main()
