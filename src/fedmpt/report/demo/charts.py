"""Curves of the page, drawn by matplotlib as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

COLOURS: Mapping[str, str] = {"zero-shot": "#8a8f98", "promptfl": "#d9822b", "fedmpt": "#1f6fb2"}


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], *, flat: Mapping[str, float], names: Mapping[str, str], unit: str
) -> str:
    """Rounds with their values for each method, 0 before the first; ``flat`` ones do not train. An SVG element."""
    # Imported here: only the page needs it, and only its extra installs it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedmpt", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.subplots()
        for name, value in flat.items():
            axes.axhline(value, color=COLOURS[name], linestyle="--", label=names[name])
        for name, values in lines.items():
            axes.plot(*zip(*values, strict=True), color=COLOURS[name], marker="o", markersize=3, label=names[name])
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(axes.lines), frameon=False, fontsize=9)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
