"""Does a tie in training make a method report b wherever a is? Every row, every seed, tied and untied.

    python benchmarks/context_shift.py --data voc:VOCdevkit --backbone backbone.py:load --out runs/tied
    python benchmarks/context_shift.py --data scenes --backbone scenes-clip --out runs/tied-scenes

For every seed a row is trained three times: on tied data (``--data ...,ties=0.95``, see docs/data.md), and on two
untied controls of as many images, each of which gets half of the moved images back. The *excess* is the false
co-activation on the moved images after tied training, minus that after untied training; there each moved image is
scored by the control that has not seen it. The excess of a pair is taken first, then the mean over pairs.

Every trained run also predicts in other ways (`ways_of`: mixed with its start, soft ties), each a row of its own.

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
from methods import from_words
from rich.console import Console
from run import markdown, score_at, slug

from fedmpt.cli.progress import TerminalWatcher
from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.pairs import measured_pairs
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.evaluation.scoring import score
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.client import LocalTraining
from fedmpt.files import default_cache, read_json, write_json
from fedmpt.methods import METHODS
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.prepare import prepare
from fedmpt.runs.run import train
from fedmpt.state import get_state
from fedmpt.types import InputError

COLUMNS = {
    "mAP": ("test", "mAP"),
    "CF1": ("test", "CF1"),
    "CF1 calibrated": ("test_calibrated", "CF1"),
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


def ways_of(own: Prediction) -> dict[str, Prediction]:
    """Ways to predict with what was trained, and what a row's name gets for each; first the run's own."""
    found = {
        "": own,
        "soft ties 0.5": replace(own, soft_ties=0.5),
        "soft ties 1": replace(own, soft_ties=1.0),
        "mix 0.7": Prediction(mix=0.7),
        "mix 0.7, soft ties 1": Prediction(mix=0.7, soft_ties=1.0),
    }
    return found if own.mix == 1 else found | {"mix 1": Prediction()}


ENTROPIES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


def rows(data: str) -> dict[str, RunConfig]:
    """The rows that run unless --methods names others."""
    found = comparison.rows(data)
    del found["PromptFL, 16 random tokens"]  # Ruins small models; see benchmarks/comparison.py for it.
    return found


def more_rows(data: str) -> dict[str, RunConfig]:
    """Other rows that --methods may name: what the default was before, its parts, and the curve over the entropy."""
    fedmpt = preset("default", "fedmpt", data)
    plain = replace(fedmpt, training=LocalTraining())
    before = {"text": "prompts", "csra": False, "model_rates": False, "entropy": 1.0}
    return {
        "FedMPT, the default before": comparison.with_method(replace(plain, prediction=Prediction()), **before),
        "FedMPT, not balanced": plain,
        "FedMPT, one reading": comparison.with_method(fedmpt, csra=False),
        "FedMPT, prompts": comparison.with_method(fedmpt, text="prompts"),
        "FedMPT, both": comparison.with_method(fedmpt, text="both"),
        "class-vectors, balanced": _balanced("class-vectors", data),
        "linear-probe, balanced": _balanced("linear-probe", data),
        **{f"FedMPT, entropy {e:g}": comparison.with_method(fedmpt, entropy=e) for e in ENTROPIES},
    }


def _balanced(name: str, data: str) -> RunConfig:
    return replace(preset("default", name, data), training=LocalTraining(balance=True))


def all_rows(data: str, rates: Path | None) -> dict[str, RunConfig]:
    """Those of `rows` and `more_rows`, and every method by its name: with the default preset, contexts from words, and
    the learning rate that ``rates`` names, a table of benchmarks/methods.py."""
    chosen = read_json(rates)["rows"] if rates else {}
    found = rows(data) | more_rows(data)
    for name in METHODS:
        config = from_words(preset("default", name, data))
        if swept := chosen.get(name, {}).get("rates"):
            config = replace(config, federation=replace(config.federation, learning_rate=float(next(iter(swept)))))
        found[name] = config
    return found


def measure(name: str, config: RunConfig, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Rows of one config, one for each way to predict: scores of all seeds by column, and the excess by pair."""
    kinds = RUNS if options.controls else {"tied": ""}
    outcomes: list[dict[str, dict[str, Any]]] = []
    with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
        for seed in options.seeds:
            outcomes.append({})
            for kind, control in kinds.items():
                run = _run(config, tied_data(options, seed=seed) + control, options, seed=seed)
                out = options.out / slug(name) / f"seed{seed}" / kind
                outcomes[-1][kind] = predictions(
                    run,
                    train(run, out=out, resume=True, cache=options.cache, watcher=watcher),
                    out=out,
                    cache=options.cache,
                )
    found = {}
    for way in outcomes[0]["tied"]:
        row = ", ".join(filter(None, (name, way)))
        found[row] = gathered([{kind: scores[way] for kind, scores in outcome.items()} for outcome in outcomes])
        line = "  ".join(f"{c} {statistics.mean(v):.1f}" for c, v in found[row]["scores"].items() if None not in v)
        print(f"{row}: {line}", file=sys.stderr, flush=True)
    return found


def _run(config: RunConfig, data: str, options: argparse.Namespace, *, seed: int) -> RunConfig:
    return replace(
        config,
        data=data,
        backbone=options.backbone,
        t=options.t,
        seed=seed,
        validation=options.validation,
        federation=replace(config.federation, rounds=options.rounds, eval_every=options.rounds),
    )


def predictions(run: RunConfig, results: dict[str, Any], *, out: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Scores of a finished run by `ways_of`, kept in its folder; zero-shot, which has no start, by one of each.

    What is kept there of other ways to predict, by an earlier version of this script, is replaced.
    """
    path, is_trained = out / "predictions.json", results["params"]["trainable"] > 0
    ways = {way: how for way, how in ways_of(run.prediction).items() if is_trained or how.mix == 1}
    if path.is_file() and (stored := read_json(path)).keys() == ways.keys():
        return dict(stored)
    prepared = prepare(run, cache=cache, show_progress=False)
    method, names = prepared.method, prepared.data.class_names
    start, kept = get_state(method), load_checkpoint(out / "checkpoint").progress.kept(run.federation)
    pairs, found = measured_pairs(prepared.data, prepared.test.labels), {}
    for way, how in ways.items():
        model = FinalModel.of(
            method,
            start,
            kept.state,
            kept.personal,
            options=how,
            ties=Ties.of(prepared.counts),
            source=str(out),
        )
        calibration = model.calibration(prepared.train)
        scores = score(model.probabilities(prepared.test), prepared.test, names, calibration=calibration, pairs=pairs)
        found[way] = {**scores, "params": results["params"], "time": results["time"]}
    write_json(path, found)
    return found


def gathered(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table from the results of its runs, one of each kind for every seed."""
    tied = [outcome["tied"] for outcome in outcomes]
    scores = {column: [score_at(results, path) for results in tied] for column, path in COLUMNS.items()}
    row = {"scores": scores, "params": tied[0]["params"], "seconds": [results["time"]["rounds_s"] for results in tied]}
    if len(outcomes[0]) > 1:
        pairs = [excess(outcome) for outcome in outcomes]
        scores["excess"] = [mean(pair["excess"] for pair in found.values()) for found in pairs]
        row["pairs"] = {pair: [found[pair] for found in pairs] for pair in pairs[0]}
    return row


def tied_data(options: argparse.Namespace, *, seed: int) -> str:
    """The data set with its tie; the seed of a run also says which images move."""
    words = [f"ties={options.ties}", f"ties_cut={options.cut}", f"ties_pairs={options.pairs}", f"ties_seed={seed}"]
    if options.joint:
        words.insert(2, f"ties_joint={options.joint}")
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
    parser.add_argument("--joint", type=float, default=0.0, help="share of images with a whole pair that moves, too")
    parser.add_argument("--pairs", default="8", help="a number, or names: 'bus:person+dining table:chair'")
    parser.add_argument("--methods", nargs="+", help="rows to run, or methods with their default preset")
    parser.add_argument("--rates", type=Path, help="table of benchmarks/methods.py, for rates of methods by their name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--t", type=float, default=0.5)
    parser.add_argument("--validation", type=float, default=0.0, help="share of training images to score on instead")
    parser.add_argument("--no-controls", dest="controls", action="store_false", help="tied runs only, no excess")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    known = all_rows(options.data, options.rates)
    if unknown := set(options.methods or ()) - known.keys():
        sys.exit(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(known)}")
    try:
        table: dict[str, Any] = {}
        for name in options.methods or rows(options.data):
            table |= measure(name, known[name], options)
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    names = ("data", "backbone", "ties", "cut", "joint", "pairs", "seeds", "rounds", "t", "validation")
    write_json(options.out / "table.json", {**{name: getattr(options, name) for name in names}, "rows": table})
    print(markdown(table))


if __name__ == "__main__":
    main()
