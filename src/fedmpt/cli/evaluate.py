"""``fedmpt evaluate``: a checkpoint scored on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.tables import print_scores

RUN_FILES = ("config.json", "rounds.jsonl", "results.json")


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a checkpoint on the test part of a data set, and write the scores.

    For example:

    fedmpt evaluate --checkpoint runs/a/checkpoint --data voc:VOCdevkit

    fedmpt evaluate --checkpoint runs/a/checkpoint --data voc:VOCdevkit --soft-ties 1 --out soft.json
    """

    checkpoint: Path
    """Checkpoint folder of a run."""
    data: str
    """Data set, NAME:PATH; its classes must be those the checkpoint was trained for."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    soft_ties: float | None = None
    """Hold back classes in doubt so strongly, 0 or more, this time; as stored with the checkpoint unless given. Another
    value than the stored one has no thresholds of its own: fedmpt calibrate fits and stores them."""
    protocol: Literal["fixed", "oracle"] = "fixed"
    """oracle also gives the best F1 over nine thresholds chosen on the test labels, as published tables do."""
    out: Path | None = None
    """File for the scores; evaluation.json beside the checkpoint unless given."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def evaluate(arguments: list[str]) -> None:
    options = tyro.cli(EvaluateOptions, args=arguments, prog="fedmpt evaluate")
    from fedmpt.data import load_data
    from fedmpt.data.pairs import measured_pairs
    from fedmpt.evaluation.scoring import score
    from fedmpt.files import write_json
    from fedmpt.inference.tagger import load_trained
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    out = options.out or options.checkpoint.resolve().parent / "evaluation.json"
    check_writable(out, kind="file")
    if out.resolve().parent == options.checkpoint.resolve() or out.name in RUN_FILES:
        raise InputError(f"--out {out} would overwrite a file of the run; choose another name")
    cache = cache_folder(options.cache)
    data = load_data(options.data, cache=cache, progress=True)
    trained = load_trained(
        options.checkpoint,
        backbone=options.backbone,
        device=options.device,
        class_names=data.class_names,
        soft_ties=options.soft_ties,
    )
    features = trained.features(data.test, data=options.data, cache=cache, skip_corrupt=options.skip_corrupt)
    found = trained.model.probabilities(features)
    oracle = options.protocol == "oracle"
    pairs = measured_pairs(data, features.labels)
    scores = score(found, features, trained.class_names, calibration=trained.calibration, pairs=pairs, oracle=oracle)
    if trained.method.personal:
        scores["test_personal"] = trained.personal_scores(features)
    scores["notes"] = [*data.notes, *trained.notes]
    scores["skipped_images"] = [str(path) for path in features.skipped]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, scores)
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    for note in scores["notes"]:
        console.print(f"note: {note}", markup=False)
    for path in scores["skipped_images"]:
        console.print(f"left out, cannot be read: {path}", markup=False)
    print_scores(scores)
    console.print(f"written to {out}", markup=False)
