"""What `fedmpt conditions score` reports: scores, what they mean for this run, and the command to train with fewer."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.train_options import train_arguments
from fedmpt.conditions.record import looks_like_a_set, names_hash
from fedmpt.conditions.scores import score_conditions
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.inference.explain import condition_parts, with_conditions
from fedmpt.inference.tagger import load_trained
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.runs.config import RunConfig
from fedmpt.runs.partition import hide_labels, hold_out
from fedmpt.seeding import generator
from fedmpt.types import ImageData, InputError, Split

if TYPE_CHECKING:
    from fedmpt.cli.conditions.score import ScoreOptions


def report_of(options: ScoreOptions) -> dict[str, Any]:
    """What --json prints and --out holds."""
    cache = cache_folder(options.cache)
    data = load_data(options.data, cache=cache, progress=True)
    trained = load_trained(
        options.checkpoint, backbone=options.backbone, device=options.device, class_names=data.class_names
    )
    method = with_conditions(trained.method)
    if options.by == "gate" and not method.config.gate:
        raise InputError("this run has no gate: its weights are all the same; use --by drop")
    split = scored_split(options, trained.config, data)
    features = trained.features(split, data=options.data, cache=cache, skip_corrupt=options.skip_corrupt)
    if options.images is not None and options.images < len(features):
        order = torch.randperm(len(features), generator=generator(0, "condition scores"))
        features = features.subset(order[: options.images].sort().values)
    print(f"scoring {method.config.num_conditions} conditions on {len(features):,} images", file=sys.stderr)
    scores = score_conditions(
        condition_parts(method, features),
        lambda probabilities, labels: multilabel_scores(probabilities, labels).to_json(trained.class_names),
        tolerance=options.tolerance,
        has_gate=method.config.gate,
    )
    kept = scores["suggestions"][options.by]["conditions"]
    has_fewer = len(kept) < len(scores["conditions"])
    train = _train_again(options, trained.config, method.config, kept) if has_fewer else None
    return {
        "checkpoint": str(options.checkpoint),
        "data": options.data,
        "split": options.split,
        **scores,
        "suggestion": {"by": options.by, "num": len(kept), "conditions": kept, "train": train},
        "notes": _notes(options, trained.config, method.config, features),
        "skipped_images": [str(path) for path in features.skipped],
    }


def scored_split(options: ScoreOptions, config: RunConfig, data: ImageData) -> Split:
    """The images that were asked for, held out and with hidden labels as in the run."""
    if options.split == "test":
        return data.test
    if options.split == "validation" and not config.validation:
        raise InputError("the run held no images out; use --split train, or train with --validation 0.2")
    data = hold_out(config, data)
    return data.test if options.split == "validation" else hide_labels(config, data)


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
    # A name that alone would be taken for a set or a file needs its hash.
    digest = names_hash(kept) if len(kept) == 1 and looks_like_a_set(kept[0]) else ""
    wanted = replace(
        run,
        data=options.data,
        backbone=options.backbone or run.backbone,
        # A fifth of the images is held out where the run held out none, but for a partition, which is of all of them.
        validation=run.validation or (0.0 if run.partition else 0.2),
        method=replace(method, conditions=tuple(kept), conditions_hash=digest),
    )
    cache = ["--cache", str(options.cache)] if options.cache else []
    folder = options.checkpoint.parent if options.checkpoint.parent.name else options.checkpoint.resolve().parent
    return shlex.join(["fedmpt", "train", *train_arguments(wanted), *cache, "--out", f"{folder}-{len(kept)}"])


def print_scores(report: Mapping[str, Any]) -> None:
    """What a reader needs of the command's JSON: use and worth of each condition, mAP with fewer, what is suggested."""
    console, chosen = Console(highlight=False, soft_wrap=True, emoji=False), report["suggestion"]
    table = Table("condition", "weight", "differs", "alone", "without", "loss", "95% of losses")
    for name, use in report["use"]["per_condition"].items():
        without, (low, high) = report["dropped"][name], report["dropped"][name]["interval"]
        points = 100 * report["difference"]["from_mixture"][name]["absolute"]
        numbers = [use["mean"], points, report["alone"][name]["mAP"]]
        cells = [f"{number:.3f}" for number in (*numbers, without["mAP"], without["loss"])]
        table.add_row(Text(name), *cells, "-" if low is None else f"{low:.2f} to {high:.2f}")
    console.print(table)
    lines = [
        "weight: mean in the gate; differs: mean from the mixture's, in points of probability; alone, without: mAP "
        "with this condition only, and with the others; 95% of losses: over images drawn anew"
    ]
    for step in report["elimination"]:
        gone = "of all" if step["dropped"] is None else f"without {step['dropped']}"
        lines.append(f"{step['num']} left: mAP {step['mAP']:.2f} {gone}")
    lines.append("which one goes is chosen on the images it is scored on, so gains on the way may be chance")
    effective = report["use"]["effective_number"]
    lines += [
        f"effective number for the mean weights: {effective['of_mean']:.2f}, in an image: {effective['per_image']:.2f}",
        *(f"note: {note}" for note in report["notes"]),
    ]
    for by, kept in report["suggestions"].items():
        if kept is not None:
            lines.append(f"by {by}: {len(kept['conditions'])} ({', '.join(kept['conditions'])}), mAP {kept['mAP']:.2f}")
    num = "all" if chosen["train"] is None else f"{chosen['num']} of"
    lines.append(f"suggestion (by {chosen['by']}): keep {num} {len(report['conditions'])}")
    if chosen["train"] is not None:
        lines.append(f"train anew with them, and compare on images held out (--validation):\n  {chosen['train']}")
    for line in lines:
        console.print(line, markup=False)
