"""Curves of the page, drawn as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedmpt.report.plots import BLUE, GREY, ORANGE, rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Mapping[str, str] = {"zero-shot": GREY, "promptfl": ORANGE, "fedmpt": BLUE}


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], *, flat: Mapping[str, float], names: Mapping[str, str], unit: str
) -> str:
    """Rounds with their values for each method, 0 before the first; ``flat`` ones do not train. An SVG element."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(3.7, 2.4)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for name, value in flat.items():
            axes.axhline(value, color=COLOURS[name], linestyle="--", label=names[name])
        for name, values in lines.items():
            axes.plot(*zip(*values, strict=True), color=COLOURS[name], marker="o", markersize=3, label=names[name])
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(axes.lines), frameon=False)

    text = rendered(draw, "svg", transparent=True).decode()
    return text[text.index("<svg") :]
