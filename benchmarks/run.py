"""Run a table: every row with every seed, then mean and 95% interval.

    python benchmarks/run.py comparison --data voc:VOCdevkit --backbone CLIP_FOLDER --out runs/comparison

Runs that are complete in --out are not repeated, so a killed table goes on where it was. Prints the table in Markdown
and writes it, with all scores, to --out/table.json.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.stats import t as student

from fedmpt.cli.progress import TerminalWatcher
from fedmpt.files import default_cache, write_json
from fedmpt.runs.config import RunConfig
from fedmpt.runs.run import train
from fedmpt.types import InputError

COLUMNS = {
    "mAP": ("test", "mAP"),
    "CF1": ("test", "CF1"),
    "OF1": ("test", "OF1"),
    "CF1 calibrated": ("test_calibrated", "CF1"),
    "OF1 calibrated": ("test_calibrated", "OF1"),
    "exclusive AP": ("context_shift", "exclusive"),
    "co-occurring AP": ("context_shift", "cooccurring"),
    "false co-activation": ("context_shift", "false_coactivation"),
}
"""Where a data set has no biased pairs with test images enough, its table has no columns of context shift."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("comparison", "ablation"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", help="only these; all unless given")
    parser.add_argument("--t", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    rows = importlib.import_module(options.table).rows(options.data)
    if unknown := set(options.rows or ()) - rows.keys():
        sys.exit(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(rows)}")
    rows = {name: config for name, config in rows.items() if name in (options.rows or rows)}
    try:
        table = {name: measure(name, config, options) for name, config in rows.items()}
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    facts = {"data": options.data, "backbone": options.backbone, "t": options.t, "rounds": options.rounds}
    write_json(options.out / "table.json", {**facts, "seeds": options.seeds, "rows": table})
    print(markdown(table))


def measure(name: str, config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all seeds, by column, and the facts that seeds share."""
    folder = options.out / slug(name)
    common = replace(
        config, backbone=options.backbone, t=options.t, federation=replace(config.federation, rounds=options.rounds)
    )
    results = []
    with TerminalWatcher(Console(stderr=True)) as watcher:
        for seed in options.seeds:
            out = folder / f"seed{seed}"
            run = replace(common, seed=seed)
            results.append(train(run, out=out, resume=True, cache=options.cache, watcher=watcher))
    scores = {
        column: [result[part][metric] for result in results]
        for column, (part, metric) in COLUMNS.items()
        if part in results[0]
    }
    return {"scores": scores, "params": results[0]["params"], "seconds": [r["time"]["rounds_s"] for r in results]}


def slug(name: str) -> str:
    """The folder of a row."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def score_at(results: Any, path: Sequence[str]) -> float | None:
    """A score in nested results; None where a bed or a method has no such score."""
    for key in path:
        if key not in results:
            return None
        results = results[key]
    return None if results is None else float(results)


def interval(values: list[float]) -> float:
    """Half the 95% confidence interval of the mean, by Student's t; 0 where all are the same."""
    if len(values) < 2:
        return math.nan
    return float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def cell(values: Sequence[float | None]) -> str:
    """Mean and half interval of the seeds that have a score."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    spread = f" ± {interval(numbers):.1f}" if len(set(numbers)) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{spread}"


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """Lines of a Markdown table, mean ± half interval; all rows have the same columns."""
    columns = list(next(iter(table.values()))["scores"])
    lines = [f"| | {' | '.join(columns)} | trained |", f"|---|{'---:|' * (len(columns) + 1)}"]
    for name, row in table.items():
        cells = [cell(values) for values in row["scores"].values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['params']['trainable']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
