"""The commands: flags in, `fedmpt.run` and `fedmpt.predict` called, tables and JSON out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from fedmpt.config import PRESETS, RunConfig, preset
from fedmpt.data import load_data
from fedmpt.data.feature_store import open_features
from fedmpt.federated.evaluate import probabilities
from fedmpt.files import read_json, write_json
from fedmpt.predict import Label, load_trained
from fedmpt.predict import predict as predict_labels
from fedmpt.progress import TerminalWatcher
from fedmpt.run import score
from fedmpt.run import train as train_run
from fedmpt.types import InputError


def default_cache() -> Path:
    """Where features are kept: $FEDMPT_CACHE, else a folder of the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEDMPT_CACHE") or Path(base) / "fedmpt")


@dataclass(frozen=True)
class TrainOptions:
    """Train a method across clients and score it on the test set.

    Leaves in --out: config.json, rounds.jsonl, checkpoint/ and results.json. Examples:

    fedmpt train --data voc:VOCdevkit --out runs/a

    fedmpt train --data voc:VOCdevkit --method promptfl --num-context 4 --seed 1 --out runs/b

    fedmpt train --out runs/a --resume
    """

    out: Path
    """Folder for the run."""
    method: str = "fedmpt"
    """What to train: fedmpt, promptfl or zero-shot. Decides which method options there are below."""
    preset: Literal["default", "paper"] = "default"
    """Where options start from: what measured best here, or the paper's values."""
    resume: bool = False
    """Continue the run in --out after its last complete round; its options need not be repeated."""
    cache: Path = field(default_factory=default_cache)
    """Folder for computed features."""
    quiet: bool = False
    """Print nothing but errors."""
    run: RunConfig = tyro.MISSING


def train(words: list[str]) -> None:
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--method")
    chooser.add_argument("--preset", default="default", choices=PRESETS)
    chooser.add_argument("--out")
    chooser.add_argument("--resume", action="store_true")
    chosen, _ = chooser.parse_known_args(words)
    start = _starting_config(chosen)
    default = TrainOptions(out=tyro.MISSING, method=start.method.name, preset=chosen.preset, run=start)
    options = tyro.cli(
        TrainOptions, args=words, default=default, prog="fedmpt train", config=(tyro.conf.OmitArgPrefixes,)
    )
    console = Console(stderr=True, quiet=options.quiet)
    with TerminalWatcher(console) as watcher:
        results = train_run(
            options.run,
            out=options.out,
            resume=options.resume,
            cache=options.cache,
            watcher=watcher,
            show_progress=not options.quiet,
        )
    if not options.quiet:
        _print_scores(results)


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a checkpoint on the test part of a data set, and write the scores.

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
    cache: Path = field(default_factory=default_cache)
    """Folder for computed features."""


def evaluate(words: list[str]) -> None:
    options = tyro.cli(EvaluateOptions, args=words, prog="fedmpt evaluate")
    data = load_data(options.data)
    trained = load_trained(
        options.checkpoint, backbone=options.backbone, device=options.device, class_names=data.class_names
    )
    features = open_features(
        trained.backbone,
        data.test,
        cache=options.cache,
        store_dtype=trained.config.store_dtype,
        device=options.device,
        skip_corrupt=options.skip_corrupt,
    )
    found = probabilities(trained.method, features)
    scores = score(
        found,
        features,
        trained.class_names,
        calibration=trained.calibration,
        oracle=options.protocol == "oracle",
    )
    scores["skipped_images"] = [str(path) for path in features.skipped]
    out = options.out or options.checkpoint.resolve().parent / "evaluation.json"
    write_json(out, scores)
    _print_scores(scores)
    Console(stderr=True).print(f"written to {out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class PredictOptions:
    """Print the labels of images with their probabilities.

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
    if not options.images:
        raise InputError("give at least one image file")
    trained = load_trained(options.checkpoint, backbone=options.backbone, device=options.device)
    found = list(predict_labels(trained, options.images))
    if options.json:
        labels = [{"image": str(path), "labels": list(map(dataclasses.asdict, row))} for path, row in found]
        print(json.dumps(labels, indent=2))
    else:
        _print_labels(found, options.top)


def _starting_config(chosen: argparse.Namespace) -> RunConfig:
    """The stored config when resuming, else the preset; flags then override it."""
    if chosen.resume and chosen.out and (stored := Path(chosen.out) / "config.json").is_file():
        config = RunConfig.from_json(read_json(stored), source=str(stored))
        if chosen.method not in (None, config.method.name):
            raise InputError(f"{chosen.out} holds a run of {config.method.name}, not {chosen.method}")
        return config
    return preset(chosen.preset, chosen.method or "fedmpt", data=tyro.MISSING)


def _print_scores(results: Mapping[str, Any]) -> None:
    table = Table(title="test set, percent")
    for column in ("threshold", "mAP", "CF1", "OF1", "CF1_PR"):
        table.add_column(column, justify="left" if column == "threshold" else "right")
    names = {"test": "fixed 0.5", "test_calibrated": "calibrated by the clients"}
    for key, name in names.items():
        if key in results:
            table.add_row(name, *(f"{results[key][metric]:.2f}" for metric in ("mAP", "CF1", "OF1", "CF1_PR")))
    if "oracle" in results:
        best = [f"{results['oracle'][metric]['score']:.2f}" for metric in ("CF1", "OF1", "CF1_PR")]
        table.add_row("oracle: chosen on the test labels", "", *best)
    Console().print(table)


def _print_labels(found: list[tuple[Path, list[Label]]], top: int) -> None:
    console = Console(highlight=False)
    for path, labels in found:
        console.print(str(path), style="bold", soft_wrap=True, markup=False)
        shown = [label for rank, label in enumerate(labels) if label.present or rank < top]
        for label in shown:
            console.print(f"  {label.probability:6.1%}  {label.name}{'' if label.present else '  (below threshold)'}")
