"""Scores of conditions in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_PAIRS_SHOWN = 10
"""More than anybody reads; the file has all."""


def print_scores(report: Mapping[str, Any]) -> None:
    """Tables of the command's JSON, and what it suggests."""
    console = Console(highlight=False, soft_wrap=True)
    for title, columns, rows in _tables(report):
        table = Table(title=title)
        for column, form in columns.items():
            table.add_column(column, justify="right" if form else "left", overflow="fold")
        for row in rows:
            cells = zip(row, columns.values(), strict=True)
            table.add_row(*(Text("-" if value is None else f"{value:{form}}") for value, form in cells))
        console.print(table)
    for line in _closing_lines(report):
        console.print(line, markup=False)


def _tables(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], Sequence[Sequence[Any]]]]:
    """Title, columns with the format of their numbers, and rows."""
    names, full, difference = report["conditions"], report["full"], report["difference"]
    weights = dict.fromkeys(("mean", "std", "min", "max"), ".3f")
    yield (
        "weight in the gate, and images where it is the largest; difference from the mixture; mAP alone",
        {"condition": "", **weights, "largest": ".1%", "differs": ".3f", "alone": ".2f"},
        [
            [name, *use.values(), 100 * difference["from_mixture"][name]["absolute"], report["alone"][name]["mAP"]]
            for name, use in report["use"]["per_condition"].items()
        ],
    )
    dropped = [
        [name, one["mAP"], one["loss"], *one["interval"], one["CF1"], one["OF1"], one["decisions_changed"]]
        for name, one in report["dropped"].items()
    ]
    scores = dict.fromkeys(("mAP", "loss", "95% from", "to", "CF1", "OF1"), ".2f")
    yield (
        "without a condition, its weight given to the others; changed: decisions at 0.5",
        {"without": "", **scores, "changed": ".2%"},
        [[None, full["mAP"], None, None, None, full["CF1"], full["OF1"], None], *dropped],
    )
    # Those that differ least one condition could stand for.
    pairs = sorted(combinations(range(len(names)), 2), key=lambda pair: difference["absolute"][pair[0]][pair[1]])
    more = f", {MAX_PAIRS_SHOWN} of {len(pairs)}; --json has all" if len(pairs) > MAX_PAIRS_SHOWN else ""
    yield (
        f"most alike pairs{more}",
        {"condition": "", "and": "", "difference": ".3f", "correlation": ".3f", "prompts' cosine": ".4f"},
        [
            [
                *(names[one], names[other], 100 * difference["absolute"][one][other]),
                *(difference[key][one][other] for key in ("correlation", "text_cosine")),
            ]
            for one, other in pairs[:MAX_PAIRS_SHOWN]
        ],
    )
    fewest = len(report["suggestions"]["drop"]["conditions"])
    yield (
        f"one after the other, the cheapest first; {fewest} are the fewest within {report['tolerance']:g}",
        {"dropped": "", "left": "d", "mAP": ".2f", "loss": ".2f"},
        [[step["dropped"], step["num"], step["mAP"], full["mAP"] - step["mAP"]] for step in report["elimination"]],
    )


def _closing_lines(report: Mapping[str, Any]) -> Iterator[str]:
    num, effective, entropy = len(report["conditions"]), report["use"]["effective_number"], report["use"]["entropy"]
    yield "one after the other: chosen on the images it is scored on, so gains on the way may be chance"
    yield "differences: means over images and classes, in points of probability before calibration"
    yield (
        f"95% interval: of the loss, over {report['interval']['resamples']} resamples of the images; the model stays "
        "as it is"
    )
    yield (
        f"effective number of conditions: {effective['per_image']:.2f} in an image, {effective['of_mean']:.2f} for the "
        f"mean weights (entropy {entropy['per_image']:.3f} and {entropy['of_mean']:.3f} of log {num})"
    )
    yield from (f"note: {note}" for note in report["notes"])
    by_drop, by_gate, chosen = (*(report["suggestions"][by] for by in ("drop", "gate")), report["suggestion"])
    yield f"\nby drop: {_listed(by_drop, num)}, the fewest that cost at most {report['tolerance']:g} points"
    if by_gate is not None:
        yield f"by gate: {_listed(by_gate, num)}, the effective number for the mean weights"
    if chosen["train"] is None:
        yield f"suggestion (by {chosen['by']}): keep all {num}"
    else:
        yield (
            f"suggestion (by {chosen['by']}): {chosen['num']} of {num}. Train anew with them, and compare with all "
            f"{num} under the same options, on images held out of training (--validation):\n  {chosen['train']}"
        )


def _listed(suggestion: Mapping[str, Any], num: int) -> str:
    kept = suggestion["conditions"]
    words = f"all {num}" if len(kept) == num else f"{len(kept)} ({', '.join(kept)})"
    return f"{words}, mAP {suggestion['mAP']:.2f}"
