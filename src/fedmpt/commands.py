"""The commands: flags in, `fedmpt.run` and `fedmpt.predict` called, tables and JSON out.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cache import default_cache

if TYPE_CHECKING:
    from fedmpt.config import RunConfig, TrainOptions
    from fedmpt.predict import Label


RUN_FILES = ("config.json", "rounds.jsonl", "results.json")


def train(words: list[str]) -> None:
    from fedmpt.progress import TerminalWatcher
    from fedmpt.run import is_finished
    from fedmpt.run import train as train_run

    options = _train_options(words)
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True)
    was_finished = is_finished(options.out)
    try:
        with TerminalWatcher(console) as watcher:
            results = train_run(
                options.run,
                out=options.out,
                resume=options.resume,
                cache=options.cache or default_cache(),
                watcher=watcher,
                show_progress=not options.quiet,
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(_how_to_continue(options)) from stop
    if was_finished:
        console.print(f"{options.out} was finished before; it is left as it is", markup=False)
    if not options.quiet:
        _print_scores(results)


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a checkpoint on the test part of a data set, and write the scores.

    For example:

    fedmpt evaluate --checkpoint runs/a/checkpoint --data voc:VOCdevkit
    """

    checkpoint: Path
    """Checkpoint folder of a run."""
    data: str
    """Data set, NAME:PATH; its classes must be those the checkpoint was trained for."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    protocol: Literal["fixed", "oracle"] = "fixed"
    """oracle also gives the best F1 over nine thresholds chosen on the test labels, as published tables do."""
    out: Path | None = None
    """File for the scores; evaluation.json beside the checkpoint unless given."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def evaluate(words: list[str]) -> None:
    options = tyro.cli(EvaluateOptions, args=words, prog="fedmpt evaluate")
    from fedmpt.data import load_data
    from fedmpt.data.biased_pairs import biased_pairs
    from fedmpt.data.feature_store import open_features
    from fedmpt.federated.evaluate import probabilities
    from fedmpt.files import write_json
    from fedmpt.predict import load_trained
    from fedmpt.records import check_writable
    from fedmpt.scoring import score
    from fedmpt.types import InputError

    out = options.out or options.checkpoint.resolve().parent / "evaluation.json"
    check_writable(out, kind="file")
    if out.resolve().parent == options.checkpoint.resolve() or out.name in RUN_FILES:
        raise InputError(f"--out {out} would overwrite a file of the run; choose another name")
    data = load_data(options.data, cache=options.cache or default_cache(), progress=True)
    trained = load_trained(
        options.checkpoint, backbone=options.backbone, device=options.device, class_names=data.class_names
    )
    features = open_features(
        trained.backbone,
        data.test,
        cache=options.cache or default_cache(),
        store_dtype=trained.config.store_dtype,
        device=options.device,
        skip_corrupt=options.skip_corrupt,
        data=options.data,
        views=trained.method.views,
    )
    found = probabilities(trained.method, features)
    oracle = options.protocol == "oracle"
    pairs = biased_pairs(data.train.labels, features.labels)
    scores = score(found, features, trained.class_names, calibration=trained.calibration, pairs=pairs, oracle=oracle)
    if trained.method.personal:
        scores["test_personal"] = trained.personal_scores(features)
    scores["notes"] = list(data.notes)
    scores["skipped_images"] = [str(path) for path in features.skipped]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, scores)
    _print_evaluation(scores, out)


@dataclass(frozen=True)
class PredictOptions:
    """Print the labels of images with their probabilities.

    For example:

    fedmpt predict --checkpoint runs/a/checkpoint photo.jpg

    fedmpt predict --checkpoint runs/a/checkpoint --json *.jpg > labels.json
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    checkpoint: Path
    """Checkpoint folder of a run."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    json: bool = False
    """One JSON list with every class of every image, for machines."""
    top: int = 3
    """Also show so many of the most probable classes when fewer are over their threshold."""


def predict(words: list[str]) -> None:
    options = tyro.cli(PredictOptions, args=words, prog="fedmpt predict")
    from fedmpt.predict import load_trained
    from fedmpt.predict import predict as predict_labels
    from fedmpt.types import InputError

    if not options.images:
        raise InputError("give at least one image file")
    if options.top < 0:
        raise InputError(f"--top must not be negative, got {options.top}")
    trained = load_trained(options.checkpoint, backbone=options.backbone, device=options.device)
    found = list(predict_labels(trained, options.images))
    if options.json:
        labels = [{"image": str(path), "labels": list(map(dataclasses.asdict, row))} for path, row in found]
        print(json.dumps(labels, indent=2))
    else:
        _print_labels(found, options.top)


def _train_options(words: list[str]) -> TrainOptions:
    """Parsed in two steps, since the method decides which options there are."""
    from fedmpt.config import TrainOptions
    from fedmpt.types import InputError

    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--method", "--preset", "--out", "--data"):
        chooser.add_argument(flag, nargs="?")  # A value may be missing: the second parser has the message for that.
    chooser.add_argument("--resume", action="store_true")
    chosen, _ = chooser.parse_known_args(words)
    wants_help = "-h" in words or "--help" in words
    if not chosen.out and not wants_help:
        raise InputError("give a folder for the run with --out, for example --out runs/a")
    out = Path(chosen.out or ".")
    start = _from_preset(chosen, data=chosen.data or "") if wants_help else _starting_config(chosen, out)
    default = TrainOptions(out=out, method=start.method.name, preset=chosen.preset or "default", run=start)
    return tyro.cli(TrainOptions, args=words, default=default, prog="fedmpt train", config=(tyro.conf.OmitArgPrefixes,))


def _starting_config(chosen: argparse.Namespace, out: Path) -> RunConfig:
    """The stored config when resuming, else the preset; flags then override it."""
    from fedmpt.config import RunConfig
    from fedmpt.files import read_json
    from fedmpt.types import InputError

    stored = out / "config.json"
    if chosen.resume and stored.is_file():
        config = RunConfig.from_json(read_json(stored), source=str(stored))
        if chosen.method not in (None, config.method.name):
            raise InputError(f"{out} holds a run of {config.method.name}, not {chosen.method}")
        # A preset that is named has to agree with the run, as all other flags have to.
        return config if chosen.preset is None else _from_preset(chosen, data=config.data)
    if chosen.data is None:
        nothing = f"{out} holds no run to continue; check --out, or " if chosen.resume else ""
        raise InputError(f"{nothing}give a data set with --data, for example --data voc:VOCdevkit")
    return _from_preset(chosen, data=chosen.data)


def _from_preset(chosen: argparse.Namespace, *, data: str) -> RunConfig:
    from fedmpt.config import preset

    return preset(chosen.preset or "default", chosen.method or "fedmpt", data=data)


def _how_to_continue(options: TrainOptions) -> str:
    if not (options.out / "config.json").is_file():
        return "; nothing was stored, give the same command to start again"
    words = ["fedmpt", "train", "--out", str(options.out), "--resume"]
    if options.cache:
        words += ["--cache", str(options.cache)]
    return f"; complete rounds are stored, continue with: {shlex.join(words)}"


def _print_evaluation(scores: Mapping[str, Any], out: Path) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for note in scores["notes"]:
        console.print(f"note: {note}", markup=False)
    for path in scores["skipped_images"]:
        console.print(f"left out, cannot be read: {path}", markup=False)
    _print_scores(scores)
    console.print(f"written to {out}", markup=False)


def _print_scores(results: Mapping[str, Any]) -> None:
    table = Table(title="test set, percent")
    for column in ("threshold", "mAP", "CF1", "OF1", "CF1_PR"):
        table.add_column(column, justify="left" if column == "threshold" else "right")
    names = {
        "test": "fixed 0.5",
        "test_calibrated": "calibrated by the clients",
        "test_personal": "fixed 0.5, mean of the clients' own models",
    }
    for key, name in names.items():
        if key in results:
            table.add_row(name, *(f"{results[key][metric]:.2f}" for metric in ("mAP", "CF1", "OF1", "CF1_PR")))
    if "oracle" in results:
        best = [f"{results['oracle'][metric]['score']:.2f}" for metric in ("CF1", "OF1", "CF1_PR")]
        table.add_row("oracle: chosen on the test labels", "", *best)
    Console().print(table)
    if "context_shift" in results:
        _print_shift(results["context_shift"])


def _print_shift(shift: Mapping[str, Any]) -> None:
    """The pairs that training shows together: is b found without a, and is it reported where there is only a?"""
    table = Table(title="context shift: pairs a -> b that training shows together, percent")
    table.add_column("pair")
    for column in ("lift", "b without a, AP", "b with a, AP", "b reported, only a there"):
        table.add_column(column, justify="right")
    columns = ("exclusive", "cooccurring", "false_coactivation")
    for name, pair in shift["per_pair"].items():
        table.add_row(Text(name), f"{pair['lift']:.1f}", *(_percent(pair[column]) for column in columns))
    table.add_section()
    table.add_row("mean", "", *(_percent(shift[column]) for column in columns), style="bold")
    Console().print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _print_labels(found: Iterable[tuple[Path, Sequence[Label]]], top: int) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for path, labels in found:
        console.print(str(path), style="bold", markup=False)
        shown = [label for rank, label in enumerate(labels) if label.present or rank < top]
        for label in shown:
            below = "" if label.present else "  (below threshold)"
            console.print(f"  {label.probability:6.1%}  {label.name}{below}", markup=False)
