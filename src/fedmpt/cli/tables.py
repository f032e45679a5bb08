"""Tables of scores, as train and evaluate print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

METRICS = ("mAP", "CF1", "OF1", "CF1_PR")


def print_scores(results: Mapping[str, Any]) -> None:
    table = Table("threshold", title="test set, percent")
    for column in METRICS:
        table.add_column(column, justify="right")
    names = {
        "test": "fixed 0.5",
        "test_calibrated": "calibrated by the clients",
        "test_personal": "fixed 0.5, mean of the clients' own models",
        "server_test": "fixed 0.5, images at the coordinator",
    }
    for key, name in names.items():
        if key in results:
            table.add_row(name, *(f"{results[key][metric]:.2f}" for metric in METRICS))
    if "oracle" in results:
        best = [f"{results['oracle'][metric]['score']:.2f}" for metric in METRICS[1:]]
        table.add_row("oracle: chosen on the test labels", "", *best)
    Console().print(table)
    if "context_shift" in results:
        _print_shift(results["context_shift"])


def print_sites(results: Mapping[str, Any]) -> None:
    """Each site's scores of the global model on what it keeps out of training."""
    if not results.get("sites"):
        return
    table = Table("site", "images", title="the global model at each site, fixed 0.5, percent")
    for column in METRICS:
        table.add_column(column, justify="right")
    for row in results["sites"]:
        table.add_row(Text(row["name"]), str(row["images"]), *(f"{row[metric]:.2f}" for metric in METRICS))
    Console().print(table)
    for alarm in results.get("site_labels", {}).get("alarms", ()):
        Console().print(f"labels differ: {alarm}", markup=False, highlight=False, soft_wrap=True)


def _print_shift(shift: Mapping[str, Any]) -> None:
    """The pairs that training shows together: is b found without a, and is it reported where there is only a?"""
    table = Table("pair", title="context shift: pairs a -> b that training shows together, percent")
    for column in ("lift", "b without a, AP", "b with a, AP", "b reported, only a there"):
        table.add_column(column, justify="right")
    columns = ("exclusive", "cooccurring", "false_coactivation")
    for name, pair in shift["per_pair"].items():
        table.add_row(Text(name), f"{pair['lift']:.1f}", *(_percent(pair[column]) for column in columns))
    table.add_section()
    table.add_row("mean", "", *(_percent(shift[column]) for column in columns), style="bold")
    if "moved" in shift:
        table.add_row("mean, moved", "", *(_percent(shift["moved"][column]) for column in columns))
    Console().print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
