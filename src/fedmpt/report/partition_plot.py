"""A partition as a picture: clients by classes, their sizes, and how far each is from the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmpt.data.partition import PartitionStatistics
from fedmpt.report.plots import BLUE, GREY, ORANGE, labelled, shortened, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches. Cells shrink until the picture is as large as a page takes; then only some of them are labelled.
_CELL = 0.2
_MAX_GRID_HEIGHT, _MIN_GRID_HEIGHT = 11.0, 1.6
_MAX_GRID_WIDTH, _MIN_GRID_WIDTH = 12.0, 3.0
_SIDE_WIDTH = 1.4


def plot_partition(statistics: PartitionStatistics, class_names: Sequence[str], path: Path) -> None:
    """Draw clients as rows: shares of images with each class, sizes, distances of labels and of pairs from the whole.

    The format is that of the name's end: .png, .svg or .pdf. Needs matplotlib, of the extra ``report``.

    Raises:
        InputError: if the name has another end, matplotlib is missing, or the file cannot be written.
    """
    assert statistics.class_counts.shape[1] == len(class_names)
    names = [shortened(name) for name in class_names]
    write_plot(path, lambda figure: _draw(figure, statistics, names))


def _draw(figure: Figure, statistics: PartitionStatistics, class_names: Sequence[str]) -> None:
    """Axes are placed in inches from the corner of the grid; `savefig` then cuts the picture to what was drawn."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    width = min(max(_CELL * len(class_names), _MIN_GRID_WIDTH), _MAX_GRID_WIDTH)
    height = min(max(_CELL * len(statistics.names), _MIN_GRID_HEIGHT), _MAX_GRID_HEIGHT)
    figure.set_size_inches(width, height)

    def place(x: float, y: float, across: float, up: float) -> Axes:
        return figure.add_axes((x / width, y / height, across / width, up / height))

    shares = place(0, 0, width, height)
    whole = place(0, height + 0.1, width, _CELL)
    sizes = place(width + 0.2, 0, _SIDE_WIDTH, height)
    distances = place(width + _SIDE_WIDTH + 0.45, 0, _SIDE_WIDTH, height)
    image = _draw_shares(whole, shares, statistics, class_names, width=width)
    sizes.barh(range(len(statistics.names)), statistics.sizes.tolist(), height=0.8, color=GREY)
    sizes.set_title("images")
    sizes.locator_params(axis="x", nbins=3)
    sizes.grid(axis="x", alpha=0.25)
    _draw_distances(distances, statistics)
    shown = labelled(len(statistics.names), height)
    shares.set_yticks(shown, [shortened(statistics.names[row]) for row in shown])
    for axes in (sizes, distances):
        axes.set_ylim(shares.get_ylim())
        axes.set_yticks([])
        axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(image, cax=place(0, -0.3, _MIN_GRID_WIDTH, 0.1), orientation="horizontal")
    bar.set_label("share of a client's images that show the class")
    bar.locator = MaxNLocator(4)
    bar.formatter = PercentFormatter(1)
    middle = (width + 1.5 * _SIDE_WIDTH + 0.45) / width
    figure.legend(loc="upper center", bbox_to_anchor=(middle, -0.3 / height), ncols=2, frameon=False, handletextpad=0.1)
    for line, text in enumerate(reversed(_summary(statistics))):  # One by one: the distance of lines then is the same.
        figure.text((width + 0.2) / width, (height + 0.42 + 0.17 * line) / height, text)


def _draw_shares(
    whole: Axes, shares: Axes, statistics: PartitionStatistics, class_names: Sequence[str], *, width: float
) -> Any:
    from matplotlib.colors import PowerNorm

    table = statistics.class_counts / statistics.sizes[:, None]
    every = statistics.class_counts.sum(0, keepdim=True) / statistics.sizes.sum()
    # Square root: most classes are in a few images of a hundred, and would all look empty beside the commonest.
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(table.max()), 0.01))
    for axes, values in ((whole, every), (shares, table)):
        image = axes.imshow(values.numpy(), aspect="auto", cmap="Blues", norm=norm, interpolation="nearest")
        axes.tick_params(length=0)
    shown = labelled(len(class_names), width)
    whole.xaxis.tick_top()
    whole.set_xticks(shown, [class_names[column] for column in shown], rotation=90)
    whole.set_yticks([0], ["all clients"])
    shares.set_xticks([])
    return image


def _draw_distances(axes: Axes, statistics: PartitionStatistics) -> None:
    rows = range(len(statistics.names))
    size = 14 if len(rows) <= 60 else 5
    for values, name, colour, marker in (
        (statistics.label_distances, "labels", BLUE, "o"),
        (statistics.pair_distances, "pairs", ORANGE, "D"),
    ):
        axes.scatter(values.tolist(), rows, s=size, color=colour, marker=marker, label=name, linewidths=0, zorder=2)
    axes.set_xlim(0, 1)
    axes.set_title("distance from all")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(axis="x", alpha=0.25)


def _summary(statistics: PartitionStatistics) -> list[str]:
    means = [
        f"{name} {float(known.mean()):.2f}"
        for name, values in (("labels", statistics.label_distances), ("pairs", statistics.pair_distances))
        if len(known := values[~values.isnan()])
    ]
    return [
        f"{len(statistics.names)} clients, {int(statistics.sizes.sum()):,} images",
        f"Gini coefficient of sizes {statistics.gini:.2f}",
        f"mean distance: {', '.join(means) if means else 'there are no labels'}",
    ]
