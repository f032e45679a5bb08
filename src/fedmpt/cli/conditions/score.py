"""`fedmpt conditions score`: what a trained model's conditions are worth, and how many the data support.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.conditions.scores.scores import ConditionScores
    from fedmpt.data.features.store import FeatureSet
    from fedmpt.inference.predict import Trained
    from fedmpt.methods.fedmpt import FedMPTConfig
    from fedmpt.runs.config import RunConfig
    from fedmpt.types import ImageData, Split

# Share of the training images that the suggested training holds out, where the run held out none.
VALIDATION = 0.2


@dataclass(frozen=True)
class ScoreOptions:
    """Measure how much FedMPT's gate uses each condition, how their predictions differ, and what is lost without each.

    From that a number of conditions is suggested, and the command to train with them. Choose it on training images,
    or better on images the run held out (--split validation). Chosen on test images, the number would know the test
    labels, and the test score reported for it would be too good.

    For example:

    fedmpt conditions score --checkpoint runs/a/checkpoint --data voc:VOCdevkit

    fedmpt conditions score --checkpoint runs/a/checkpoint --data voc:VOCdevkit --split validation --plot scores.png
    """

    checkpoint: Path
    """Checkpoint folder of a run of fedmpt."""
    data: str
    """Data set, NAME:PATH; its classes must be those the checkpoint was trained for."""
    split: Literal["train", "validation", "test"] = "train"
    """Images to score on. train: those the run was trained on, with the labels it saw; validation: those it held out
    (train --validation); test: to look at, not to choose by."""
    by: Literal["drop", "gate"] = "drop"
    """What the suggestion goes by. drop: the fewest conditions whose mAP is within --tolerance of all; gate: the
    effective number of the gate's mean weights, rounded up."""
    tolerance: float = 0.2
    """Points of mAP that fewer conditions may cost."""
    images: int | None = None
    """Score on so many images, drawn once and for all, instead of on all. Predictions take 4 bytes of memory for each
    image, condition and class, at most 4 GiB."""
    out: Path | None = None
    """File (JSON) for everything, the tables of all pairs too."""
    plot: Path | None = None
    """Picture (.png, .svg or .pdf): the gate's use, differences, mAP by number. Needs fedmpt[report]."""
    json: bool = False
    """Everything as JSON, for machines."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def score(words: list[str]) -> None:
    options = tyro.cli(ScoreOptions, args=words, prog="fedmpt conditions score")
    _check(options)
    from fedmpt.cli.conditions.score_tables import print_scores
    from fedmpt.conditions.scores.parts import condition_parts, with_conditions
    from fedmpt.conditions.scores.scores import score_conditions
    from fedmpt.data import load_data
    from fedmpt.inference.predict import load_trained
    from fedmpt.types import InputError

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    data = load_data(options.data, cache=cache_folder(options.cache), progress=True)
    trained = load_trained(
        options.checkpoint, backbone=options.backbone, device=options.device, class_names=data.class_names
    )
    method = with_conditions(trained.method)
    if options.by == "gate" and not method.config.gate:
        raise InputError("this run has no gate: its weights are all the same; use --by drop")
    features = _features(options, trained, data)
    console.print(f"scoring {method.config.num_conditions} conditions on {len(features):,} images", markup=False)
    parts = condition_parts(method, features)
    scores = score_conditions(parts, tolerance=options.tolerance, has_gate=method.config.gate)
    report = _report(options, trained, method.config, scores, features)
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_scores(scores, report)
    for path in report["skipped_images"]:
        console.print(f"left out, cannot be read: {path}", markup=False)
    _write(options, scores, report, console)


def _check(options: ScoreOptions) -> None:
    """What can be said before any work."""
    from fedmpt.report.plots import check_plot
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    if not 0 <= options.tolerance < math.inf:
        raise InputError(f"--tolerance must be in points of mAP, 0 or more; got {options.tolerance}")
    if options.images is not None and options.images < 1:
        raise InputError(f"--images must be positive, got {options.images}")
    if options.out is not None:
        check_writable(options.out, kind="file")
    if options.plot is not None:
        check_plot(options.plot)


def _features(options: ScoreOptions, trained: Trained, data: ImageData) -> FeatureSet:
    import torch

    from fedmpt.data.features.store import open_features
    from fedmpt.seeding import generator

    features = open_features(
        trained.backbone,
        _split(options, trained.config, data),
        cache=cache_folder(options.cache),
        store_dtype=trained.config.store_dtype,
        device=options.device,
        skip_corrupt=options.skip_corrupt,
        data=options.data,
        views=trained.method.views,
    )
    if options.images is None or options.images >= len(features):
        return features
    order = torch.randperm(len(features), generator=generator(0, "condition scores"))
    return features.subset(order[: options.images].sort().values)


def _split(options: ScoreOptions, config: RunConfig, data: ImageData) -> Split:
    """The images that were asked for, held out and with hidden labels as in the run."""
    from fedmpt.runs.partition import hide_labels, hold_out
    from fedmpt.types import InputError

    if options.split == "test":
        return data.test
    if options.split == "validation" and not config.validation:
        raise InputError("the run held no images out; use --split train, or train with --validation 0.2")
    data = hold_out(config, data)
    return data.test if options.split == "validation" else hide_labels(config, data.train)


def _report(
    options: ScoreOptions, trained: Trained, method: FedMPTConfig, scores: ConditionScores, features: FeatureSet
) -> dict[str, Any]:
    """What --json prints and --out holds."""
    kept = [scores.parts.names[index] for index in scores.suggested(options.by).kept]
    is_all = len(kept) == scores.parts.num_conditions
    return {
        "checkpoint": str(options.checkpoint),
        "data": options.data,
        "split": options.split,
        **scores.to_json(trained.class_names),
        "suggestion": {
            "by": options.by,
            "num": len(kept),
            "conditions": kept,
            "train": None if is_all else _train_again(options, trained.config, method, kept),
        },
        "notes": _notes(options, trained.config, method, features),
        "skipped_images": [str(path) for path in features.skipped],
    }


def _notes(options: ScoreOptions, run: RunConfig, method: FedMPTConfig, features: FeatureSet) -> list[str]:
    notes = [
        "a model trained without a condition makes up for some of its loss, so the losses here are, as a rule, upper "
        "bounds"
    ]
    if options.split == "test":
        notes.append("these are test images: do not choose by them and then report the test score of what was chosen")
    if options.split == "train":
        others = "--split validation has others" if run.validation else "train with --validation 0.2 to hold others out"
        notes.append(f"the run was trained on these images, so what it knows of them by heart counts as use; {others}")
    if len(features) < len(features.split) - len(features.skipped):
        notes.append(f"a sample of {len(features):,} images, the same ones each time")
    if not method.condition_prompts:
        notes.append("this run's prompts do not name the conditions, which differ by their adapters alone")
    if not method.gate:
        notes.append("this run has no gate: the weights are all the same, and say nothing of use")
    return notes


def _train_again(options: ScoreOptions, run: RunConfig, method: FedMPTConfig, kept: Sequence[str]) -> str:
    """The command of a run that differs from ``run`` in its conditions, and in what it is scored on."""
    from fedmpt.cli.train_arguments import train_arguments

    wanted = dataclasses.replace(
        run,
        data=options.data,
        backbone=options.backbone or run.backbone,
        # Images cannot be held out of a partition that is of all of them.
        validation=run.validation or (0.0 if run.partition else VALIDATION),
        method=_with_names(method, tuple(kept)),
    )
    cache = ["--cache", str(options.cache)] if options.cache else []
    folder = options.checkpoint.parent if options.checkpoint.parent.name else options.checkpoint.resolve().parent
    return shlex.join(["fedmpt", "train", *train_arguments(wanted), *cache, "--out", f"{folder}-{len(kept)}"])


def _with_names(method: FedMPTConfig, names: tuple[str, ...]) -> FedMPTConfig:
    """The method with these conditions; with their hash only where a name alone would be taken for a set or a file."""
    from fedmpt.conditions.record import names_hash
    from fedmpt.types import InputError

    named = dataclasses.replace(method, conditions=names, conditions_hash="")
    try:
        is_clear = named.resolved().conditions == names
    except InputError:
        is_clear = False
    return named if is_clear else dataclasses.replace(named, conditions_hash=names_hash(names))


def _write(options: ScoreOptions, scores: ConditionScores, report: Mapping[str, Any], console: Console) -> None:
    from fedmpt.files import write_json
    from fedmpt.report.condition_plot import plot_condition_scores

    paths = [path for path in (options.out, options.plot) if path is not None]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.out is not None:
        write_json(options.out, report)
    if options.plot is not None:
        plot_condition_scores(scores, options.plot)
    for path in paths:
        console.print(f"written to {path}", markup=False)
