"""What `fedmpt conditions score` reports: scores, what they mean for this run, and the command to train with fewer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.conditions.score import ScoreOptions
from fedmpt.cli.train_options import train_arguments
from fedmpt.conditions.record import looks_like_a_set, names_hash
from fedmpt.conditions.scores.scores import score_conditions
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.inference.explain import condition_parts
from fedmpt.inference.tagger import Tagger
from fedmpt.methods.fedmpt import FedMPT, FedMPTConfig
from fedmpt.runs.config import RunConfig
from fedmpt.runs.partition import hide_labels, hold_out
from fedmpt.seeding import generator
from fedmpt.types import ImageData, InputError, Split

VALIDATION = 0.2
"""Share of the training images that the suggested training holds out, where the run held out none."""


def report_of(
    options: ScoreOptions, trained: Tagger, method: FedMPT, data: ImageData, console: Console
) -> dict[str, Any]:
    """What --json prints and --out holds."""
    features = _features(options, trained, data)
    console.print(f"scoring {method.config.num_conditions} conditions on {len(features):,} images", markup=False)
    scores = score_conditions(
        condition_parts(method, features),
        lambda probabilities, labels: multilabel_scores(probabilities, labels).to_json(trained.class_names),
        tolerance=options.tolerance,
        has_gate=method.config.gate,
    )
    kept = scores["suggestions"][options.by]["conditions"]
    is_all = len(kept) == len(scores["conditions"])
    return {
        "checkpoint": str(options.checkpoint),
        "data": options.data,
        "split": options.split,
        **scores,
        "suggestion": {
            "by": options.by,
            "num": len(kept),
            "conditions": kept,
            "train": None if is_all else _train_again(options, trained.config, method.config, kept),
        },
        "notes": _notes(options, trained.config, method.config, features),
        "skipped_images": [str(path) for path in features.skipped],
    }


def _features(options: ScoreOptions, trained: Tagger, data: ImageData) -> FeatureSet:
    split, cache = scored_split(options, trained.config, data), cache_folder(options.cache)
    features = trained.features(split, data=options.data, cache=cache, skip_corrupt=options.skip_corrupt)
    if options.images is None or options.images >= len(features):
        return features
    order = torch.randperm(len(features), generator=generator(0, "condition scores"))
    return features.subset(order[: options.images].sort().values)


def scored_split(options: ScoreOptions, config: RunConfig, data: ImageData) -> Split:
    """The images that were asked for, held out and with hidden labels as in the run."""
    if options.split == "test":
        return data.test
    if options.split == "validation" and not config.validation:
        raise InputError("the run held no images out; use --split train, or train with --validation 0.2")
    data = hold_out(config, data)
    return data.test if options.split == "validation" else hide_labels(config, data.train)


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
        # Images cannot be held out of a partition that is of all of them.
        validation=run.validation or (0.0 if run.partition else VALIDATION),
        method=replace(method, conditions=tuple(kept), conditions_hash=digest),
    )
    cache = ["--cache", str(options.cache)] if options.cache else []
    folder = options.checkpoint.parent if options.checkpoint.parent.name else options.checkpoint.resolve().parent
    return shlex.join(["fedmpt", "train", *train_arguments(wanted), *cache, "--out", f"{folder}-{len(kept)}"])
