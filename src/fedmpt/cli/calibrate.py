"""``fedmpt calibrate``: how a finished run predicts, changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder


@dataclass(frozen=True)
class CalibrateOptions:
    """Fit the thresholds and probabilities of a finished run anew, and store them in its checkpoint. From then on
    fedmpt evaluate, fedmpt predict and fedmpt.load use them.

    For example:

    fedmpt calibrate --checkpoint runs/a/checkpoint --data voc:VOCdevkit --soft-ties 1

    fedmpt calibrate --checkpoint runs/a/checkpoint --data voc:VOCdevkit --mix 0.7 --soft-ties 0
    """

    checkpoint: Path
    """Checkpoint folder of a finished run."""
    data: str
    """Data set of the run, NAME:PATH with the same options: its training images are scored, with labels hidden as in
    the run."""
    soft_ties: float | None = None
    """g, 0 or more: how strongly a class in doubt is held back where classes that come with it are likely; as stored
    unless given."""
    mix: float | None = None
    """M in (0, 1]: the trained tensors count M and those from which training started 1 - M; as stored unless given."""
    counts: tuple[Path, ...] = ()
    """Files that fedmpt conditions count wrote, one of each site, for soft ties; the counts that are stored with the
    checkpoint unless given."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def calibrate(arguments: list[str]) -> None:
    options = tyro.cli(CalibrateOptions, args=arguments, prog="fedmpt calibrate")
    # Imported late: help and mistyped options must not wait for torch.
    from fedmpt.conditions.labels.ties import Ties
    from fedmpt.data import load_data
    from fedmpt.federated.checkpoint import load_checkpoint
    from fedmpt.inference.tagger import load_trained
    from fedmpt.runs.partition import hide_labels, hold_out, partition_clients
    from fedmpt.runs.prediction import load_prediction, save_prediction, summed_counts
    from fedmpt.runs.prepare import shared_out
    from fedmpt.runs.records import check_trained_on
    from fedmpt.types import InputError

    cache = cache_folder(options.cache)
    data = load_data(options.data, cache=cache, progress=True)
    counts = summed_counts(options.counts, data.class_names) if options.counts else None
    trained = load_trained(
        options.checkpoint,
        backbone=options.backbone,
        device=options.device,
        class_names=data.class_names,
        mix=options.mix,
        soft_ties=options.soft_ties,
        ties=None if counts is None else Ties.of(counts),
    )
    stored = load_prediction(options.checkpoint, data.class_names)
    if stored.calibration is None:
        raise InputError(f"{options.checkpoint} is of a run that has not ended; finish it first: fedmpt train --resume")
    if counts is not None and not trained.options.soft_ties:
        raise InputError("--counts is for soft ties, which are 0 in this checkpoint; give --soft-ties too, such as 1")
    if options.mix not in (None, 1) and not trained.method.is_trained:
        raise InputError(f"--mix has no effect: {trained.config.method.name} trains nothing; leave it out")
    data = hold_out(trained.config, data)
    partition = partition_clients(trained.config, data)
    split = hide_labels(trained.config, data, partition)
    features = trained.features(split, data=options.data, cache=cache, skip_corrupt=options.skip_corrupt)
    _, clients, held_out = shared_out(trained.config, partition, features)
    record = load_checkpoint(options.checkpoint).record
    check_trained_on(record, clients, held_out, data=options.data, source=str(options.checkpoint))
    save_prediction(
        options.checkpoint,
        trained.options,
        trained.model.calibration(features),
        data.class_names,
        counts=counts or stored.counts,
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    for path in features.skipped:
        console.print(f"left out, cannot be read: {path}", markup=False)
    chosen = trained.options
    console.print(f"mix {chosen.mix:g}, soft ties {chosen.soft_ties:g}: fitted on {len(features)} images", markup=False)
    console.print(f"written to {options.checkpoint}", markup=False)
