"""All methods after the same sweep of the learning rate on held-out training images: three seeds on the test set.

    python benchmarks/methods.py scenes --out runs/methods-scenes
    python benchmarks/methods.py photos --data voc:VOCdevkit --backbone backbone.py:load --out runs/methods-photos

Every method gets the same sweep: its own rate times 1/3, 1 and 3, and one step further as long as the best lies at an
edge, scored by mAP on a quarter of the training images that are held out. The test set is read with the rate chosen
there only. Contexts start from "a photo of a" with four tokens wherever a method has an option for it, since both small
models know short prompts; DualCoOp's negative context stays long and random, or its difference of prompts would say
nothing at the start. All else is at each method's defaults. FedMPT's defaults were chosen on photos and the demo's
settings on drawn pictures of another world, in sweeps of more options than a rate: the latter has a row of its own.
Runs that are complete in --out are not repeated, so several processes may share the work by --methods.
With --table, only what is complete is gathered: --out/table.json and a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from comparison import paper_values, with_method
from rich.console import Console
from run import cell, score_at, slug

from fedmpt.backbone.image_tower import shapes_of
from fedmpt.backbone.views import StrongView
from fedmpt.cli.progress import TerminalWatcher
from fedmpt.data.datasets.voc import CLASS_NAMES
from fedmpt.files import default_cache, read_json, write_json
from fedmpt.methods import METHODS
from fedmpt.report.demo.trials import CHOSEN, Trial, run_trial
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.run import is_finished, train
from fedmpt.types import InputError

FACTORS = (1 / 3, 1.0, 3.0)
FURTHEST = 3.0**4
HELD_OUT = 0.25
WORDS = "a photo of a"
# Both models were trained on short prompts, and random contexts of 16 tokens ruin the one for photos.
NUM_CONTEXT = 4

PHOTO_COLUMNS = {
    "mAP": ("test", "mAP"),
    "CF1": ("test", "CF1"),
    "OF1": ("test", "OF1"),
    "CF1 calibrated": ("test_calibrated", "CF1"),
    "exclusive AP": ("context_shift", "exclusive"),
    "false co-activation": ("context_shift", "false_coactivation"),
    "mAP, clients' own": ("test_personal", "mAP"),
}
SCENE_COLUMNS = {
    "mAP": ("natural", "mAP"),
    "mAP reversed": ("reversed", "mAP"),
    "CF1": ("natural", "CF1"),
    "OF1": ("natural", "OF1"),
    "CF1 calibrated": ("results", "test_calibrated", "CF1"),
    "exclusive AP": ("reversed", "shift", "exclusive"),
    "false co-activation": ("reversed", "shift", "false_coactivation"),
    "mAP, clients' own": ("results", "test_personal", "mAP"),
}


@dataclass(frozen=True)
class Bed:
    """Where methods are compared. ``trial`` is None for photos."""

    options: argparse.Namespace
    trial: Trial | None

    def start(self, config: RunConfig) -> RunConfig:
        """A method's config on this bed, at its own learning rate."""
        options, config = self.options, from_words(config)
        federation = replace(config.federation, rounds=options.rounds, eval_every=options.rounds)
        return replace(config, federation=federation, backbone=options.backbone, data=options.data, t=options.t)


def from_words(config: RunConfig) -> RunConfig:
    """The same with a context that starts from words, where the method has an option for it."""
    names = {field.name for field in fields(config.method)}
    if "context_init" not in names or getattr(config.method, "form", None) == "original":
        return config
    return with_method(config, context_init=WORDS, num_context=min(NUM_CONTEXT, config.method.num_context))


def rows(bed: Bed) -> dict[str, RunConfig]:
    """A config for every line of the table, before its learning rate is chosen."""
    found = {name: preset("default", name, bed.options.data) for name in METHODS}
    zero_shot, fedmpt = found.pop("zero-shot"), found["fedmpt"]
    heads = {f"zero-shot, {head}": with_method(zero_shot, head=head) for head in ("patches", "pooled", "csra")}
    found["fedmvp, reduced"] = with_method(found["fedmvp"], form="reduced")
    found["fedmpt, paper's values"] = paper_values(fedmpt)
    if bed.trial:
        found["fedmpt, settings of the demo"] = with_method(fedmpt, **CHOSEN["fedmpt"])
    return {name: bed.start(config) for name, config in (heads | found).items()}


def choose_rate(name: str, config: RunConfig, bed: Bed) -> dict[str, float]:
    """Validation mAP of every rate that was tried, best first."""
    own = config.federation.learning_rate
    scores: dict[float, float] = {}
    factors = list(FACTORS)
    while factors:
        for factor in factors:
            federation = replace(config.federation, learning_rate=own * factor)
            run = replace(config, federation=federation, validation=HELD_OUT, seed=0)
            scores[factor] = _score(run, bed.options.out / slug(name) / f"rate-{own * factor:.3g}", bed)
        best = max(scores, key=lambda factor: scores[factor])
        further = {min(scores): best / 3, max(scores): best * 3}.get(best)
        factors = [further] if further and 1 / FURTHEST <= further * 1.001 and further <= FURTHEST * 1.001 else []
    return {f"{own * factor:.6g}": scores[factor] for factor in sorted(scores, key=lambda f: -scores[f])}


def _score(config: RunConfig, out: Path, bed: Bed) -> float:
    """mAP on held-out images; 0 where a rate is too high to train at all."""
    failed = out.with_name(f"{out.name}-failed.json")
    if failed.exists() and read_json(failed)["config"] == json.loads(json.dumps(config.to_json())):
        return 0.0
    try:
        with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
            results = train(config, out=out, resume=True, cache=bed.options.cache, watcher=watcher)
    except InputError as error:
        if "lower learning rate" not in str(error) and "finite" not in str(error):
            raise
        write_json(failed, {"error": str(error), "config": config.to_json()})
        return 0.0
    return float(results["test"]["mAP"])


def measure(name: str, config: RunConfig, bed: Bed) -> None:
    """Choose the rate, then train and score every seed."""
    out = bed.options.out / slug(name)
    rates = choose_rate(name, config, bed) if is_trained(config) else {}
    if rates:
        best = float(next(iter(rates)))
        config = replace(config, federation=replace(config.federation, learning_rate=best))
    outcomes = [final(replace(config, seed=seed), out / f"seed{seed}", bed) for seed in bed.options.seeds]
    columns = SCENE_COLUMNS if bed.trial else PHOTO_COLUMNS
    scores = {column: [score_at(outcome, path) for outcome in outcomes] for column, path in columns.items()}
    results = outcomes[0]["results"]
    seconds = [outcome["results"]["time"]["rounds_s"] for outcome in outcomes]
    row = {
        "rates": rates,
        "scores": scores,
        "params": results["params"],
        "seconds": seconds,
        "seeds": bed.options.seeds,
    }
    write_json(out / "row.json", row)
    line = "  ".join(f"{column} {statistics.mean(v):.1f}" for column, v in scores.items() if None not in v)
    print(f"{name}: rate {next(iter(rates), '-')}  {line}", file=sys.stderr, flush=True)


def is_trained(config: RunConfig) -> bool:
    return config.method.name != "zero-shot"


def final(config: RunConfig, out: Path, bed: Bed) -> dict[str, Any]:
    with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
        if bed.trial is None:
            results = train(config, out=out, resume=True, cache=bed.options.cache, watcher=watcher)
            return {"results": results, **results}
        done = is_finished(out) and (out / "worlds.json").is_file()
        if done and RunConfig.from_json(read_json(out / "config.json"), source=str(out)) != config:
            raise InputError(f"{out} is a run with other options; give another --out, or delete it")
        if not done:
            outcome = run_trial(bed.trial, config, out=out, cache=bed.options.cache, watcher=watcher, every_round=False)
            write_json(out / "worlds.json", {"natural": outcome.natural, "reversed": outcome.reversed})
    return {"results": read_json(out / "results.json"), **read_json(out / "worlds.json")}


def gather(names: list[str], bed: Bed) -> dict[str, Any]:
    found = {}
    for name in names:
        path = bed.options.out / slug(name) / "row.json"
        if path.is_file():
            found[name] = read_json(path)
    return found


def markdown(table: dict[str, dict[str, Any]], speed: dict[str, dict[str, float]]) -> str:
    """Lines of a Markdown table, mean ± half the 95% interval, best mAP first; steps and memory where known."""
    columns = list(next(iter(table.values()))["scores"])
    facts = ["trained", "sent a round", "rate", *(["ms a step", "MiB more"] if speed else [])]
    lines = [f"| | {' | '.join([*columns, *facts])} |", f"|---|{'---:|' * (len(columns) + len(facts))}"]
    for name, row in sorted(table.items(), key=lambda item: -statistics.mean(item[1]["scores"]["mAP"])):
        cells = [cell(values) for values in row["scores"].values()]
        params = row["params"]
        sent = f"{params['sent_bytes_per_round'] / 1000:,.1f} kB"
        cells += [f"{params['trainable']:,}", sent, _rate(row)]
        if speed:
            step = speed[name]
            cells += [f"{step['ms']:.0f}", f"{step['more_mib']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(row: dict[str, Any]) -> str:
    return f"{float(next(iter(row['rates']))):.2g}" if row["rates"] else "-"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_bed_options(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", help="rows to run; all unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only gather what is complete")
    parser.add_argument("--speed", type=Path, help="what benchmarks/speed/methods.py wrote, for two more columns")
    options = parser.parse_args()
    check_bed_options(parser, options)
    return options


def add_bed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bed", choices=("photos", "scenes"))
    parser.add_argument("--data", help="photos only")
    parser.add_argument("--backbone", help="photos only")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--num-train", type=int, default=1000, help="scenes only")
    parser.add_argument("--num-test", type=int, default=2000, help="scenes only")
    parser.add_argument("--cache", type=Path, default=default_cache())


def check_bed_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.bed == "photos" and not (options.data and options.backbone):
        parser.error("photos need --data and --backbone")


def needs_tower(config: RunConfig) -> bool:
    """Whether a method puts tokens into the image tower, asked of it on shapes without weights."""
    method = config.method.build(shapes_of(), CLASS_NAMES, generator=torch.Generator())
    return any(not isinstance(view, StrongView) for view in method.views.values())


def make_bed(options: argparse.Namespace) -> Bed:
    if options.bed == "photos":
        options.t = 0.5
        return Bed(options, None)
    trial = Trial(options.rounds, 0, 0.9, num_train=options.num_train, num_test=options.num_test)
    start = trial.config("fedmpt")
    options.data, options.backbone, options.t = start.data, start.backbone, start.t
    return Bed(options, trial)


def main() -> None:
    options = _options()
    bed = make_bed(options)
    table = rows(bed)
    if unknown := set(options.methods or ()) - table.keys():
        sys.exit(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(table)}")
    try:
        for name in () if options.table else options.methods or table:
            if needs_tower(table[name]) and bed.trial is None:
                print(f"{name}: reads tokens within the image tower, which this plug-in does not open", file=sys.stderr)
            else:
                measure(name, table[name], bed)
    except InputError as error:
        sys.exit(str(error))
    found = gather(list(table), bed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "table.json", {"bed": options.bed, "rows": found})
    if found:
        print(markdown(found, read_json(options.speed)["rows"] if options.speed else {}))


if __name__ == "__main__":
    main()
