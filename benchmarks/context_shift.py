"""Does a tie in training make a method report b wherever a is? Every row, every seed, tied and untied.

    python benchmarks/context_shift.py --data voc:VOCdevkit --backbone backbone.py:load --out runs/tied
    python benchmarks/context_shift.py --data scenes --backbone scenes-clip --out runs/tied-scenes

For every seed a row is trained three times: on tied data (``--data ...,ties=0.95``, see docs/data.md), and on two
untied controls of as many images, each of which gets half of the moved images back. The *excess* is the false
co-activation on the moved images after tied training, minus that after untied training; there each moved image is
scored by the control that has not seen it. The excess of a pair is taken first, then the mean over pairs.

Runs that are complete in --out are not repeated. With --validation nothing is scored on the data's own test images, so
options can be chosen by it. Prints a Markdown table and writes it, with the values of every pair, to --out/table.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comparison
from rich.console import Console
from run import markdown, score_at, slug

from fedmpt.cli.progress import TerminalWatcher
from fedmpt.files import default_cache, write_json
from fedmpt.methods import METHODS
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.run import train
from fedmpt.types import InputError

COLUMNS = {
    "mAP": ("test", "mAP"),
    "CF1": ("test", "CF1"),
    "exclusive AP": ("context_shift", "exclusive"),
    "co-occurring AP": ("context_shift", "cooccurring"),
    "false co-activation": ("context_shift", "false_coactivation"),
    "the same, balanced": ("context_shift", "false_coactivation_balanced"),
    "the same, moved images": ("context_shift", "moved", "false_coactivation"),
}
"""Scores after tied training. The excess comes last."""

CONTROLS = (1, 2)
RUNS = {"tied": "", **{f"control{half}": f",ties_control={half}" for half in CONTROLS}}
"""The runs of a row and a seed, and what they add to the data's options."""


def rows(data: str) -> dict[str, RunConfig]:
    """The rows that run unless --methods names others."""
    found = comparison.rows(data)
    del found["PromptFL, 16 random tokens"]  # Ruins small models; see benchmarks/comparison.py for it.
    return found


def all_rows(data: str) -> dict[str, RunConfig]:
    """Those of `rows`, and every method by its name with the default preset."""
    return rows(data) | {name: preset("default", name, data) for name in METHODS}


def measure(name: str, config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all seeds, by column and, for the excess, by pair."""
    outcomes = []
    with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
        for seed in options.seeds:
            outcomes.append({})
            for kind, control in RUNS.items():
                federation = replace(config.federation, rounds=options.rounds, eval_every=options.rounds)
                run = replace(
                    config,
                    data=tied_data(options, seed=seed) + control,
                    backbone=options.backbone,
                    t=options.t,
                    seed=seed,
                    validation=options.validation,
                    federation=federation,
                )
                out = options.out / slug(name) / f"seed{seed}" / kind
                outcomes[-1][kind] = train(run, out=out, resume=True, cache=options.cache, watcher=watcher)
    pairs = [excess(outcome) for outcome in outcomes]
    scores = {column: [score_at(outcome["tied"], path) for outcome in outcomes] for column, path in COLUMNS.items()}
    scores["excess"] = [mean(pair["excess"] for pair in found.values()) for found in pairs]
    line = "  ".join(f"{column} {statistics.mean(v):.1f}" for column, v in scores.items() if None not in v)
    print(f"{name}: {line}", file=sys.stderr, flush=True)
    tied = [outcome["tied"] for outcome in outcomes]
    return {
        "scores": scores,
        "pairs": {pair: [found[pair] for found in pairs] for pair in pairs[0]},
        "params": tied[0]["params"],
        "seconds": [results["time"]["rounds_s"] for results in tied],
    }


def tied_data(options: argparse.Namespace, *, seed: int) -> str:
    """The data set with its tie; the seed of a run also says which images move."""
    words = [f"ties={options.ties}", f"ties_cut={options.cut}", f"ties_pairs={options.pairs}", f"ties_seed={seed}"]
    return f"{options.data}{',' if ':' in options.data else ':'}{','.join(words)}"


def excess(outcome: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """False co-activation on moved images, by pair: tied, untied and the difference; None where no image tells.

    An image counts once in the untied value, as in the tied one: controls are weighed by their images of a alone.
    """
    moved = {kind: results["context_shift"]["moved"]["per_pair"] for kind, results in outcome.items()}
    found = {}
    for pair, scores in moved["tied"].items():
        halves = [moved[kind][pair] for kind in RUNS if kind != "tied"]
        halves = [half for half in halves if half["false_coactivation"] is not None]
        num = sum(half["num_context_only"] for half in halves)
        tied, untied = scores["false_coactivation"], None
        if num:
            untied = sum(half["false_coactivation"] * half["num_context_only"] for half in halves) / num
        difference = None if tied is None or untied is None else tied - untied
        found[pair] = {"tied": tied, "untied": untied, "excess": difference, "images": scores["num_context_only"]}
    return found


def mean(values: Sequence[float | None] | Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="without options of ties")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ties", type=float, default=0.95)
    parser.add_argument("--cut", choices=("context", "both"), default="context")
    parser.add_argument("--pairs", default="8", help="a number, or names: 'bus:person+dining table:chair'")
    parser.add_argument("--methods", nargs="+", help="rows to run, or methods with their default preset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--t", type=float, default=0.5)
    parser.add_argument("--validation", type=float, default=0.0, help="share of training images to score on instead")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    known = all_rows(options.data)
    if unknown := set(options.methods or ()) - known.keys():
        sys.exit(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(known)}")
    try:
        table = {name: measure(name, known[name], options) for name in options.methods or rows(options.data)}
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    names = ("data", "backbone", "ties", "cut", "pairs", "seeds", "rounds", "t", "validation")
    write_json(options.out / "table.json", {**{name: getattr(options, name) for name in names}, "rows": table})
    print(markdown(table))


if __name__ == "__main__":
    main()
