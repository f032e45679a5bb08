"""A training run: from a config to a folder of results, with resume."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fedmpt
from fedmpt.backbone import load_backbone
from fedmpt.conditions.labels.counts import LabelCounts, SiteCounts, count_labels, write_counts
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.data.pairs import measured_pairs
from fedmpt.data.partition import Partition
from fedmpt.evaluation.calibration import calibrate, score_histograms
from fedmpt.evaluation.scoring import personal_scores, probabilities, score, set_global
from fedmpt.federated.aggregate import check_fits
from fedmpt.federated.balance import Balance
from fedmpt.federated.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fedmpt.federated.simulate import Progress, Round, Simulation, cohort_size
from fedmpt.files import LOCK, default_cache, exclusive, read_json, write_json
from fedmpt.methods import Method
from fedmpt.runs.config import DTYPES, RunConfig, differences
from fedmpt.runs.partition import hide_labels, hold_out, partition_clients
from fedmpt.runs.records import (
    RoundLog,
    check_record,
    check_sources,
    check_unchanged,
    check_writable,
    fingerprints,
    save_calibration,
    versions,
)
from fedmpt.seeding import generator
from fedmpt.state import Update, get_state, num_bytes, num_parameters
from fedmpt.types import PRESENT, Backbone, ImageData, InputError, State


class Watcher:
    """Who is told how a run goes; this one does nothing with it. `fedmpt.cli.progress` has one for the terminal."""

    def started(self, config: RunConfig, prepared: Prepared, *, rounds_done: int) -> None: ...

    def client_done(self, update: Update) -> None: ...

    def round_done(self, done: Round) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs before its first round."""

    backbone: Backbone
    data: ImageData
    train: FeatureSet
    test: FeatureSet
    partition: Partition
    clients: list[FeatureSet]
    counts: LabelCounts
    method: Method
    seconds: float


def prepare(config: RunConfig, *, cache: Path, show_progress: bool) -> Prepared:
    """Load data and backbone, compute or open features, divide them among clients, build the method. Raises InputError
    for anything wrong with what the user gave."""
    began = time.perf_counter()
    config.check()
    data = hold_out(config, load_data(config.data, cache=cache, progress=show_progress))
    _check_labels(data.name, data.train.name, data.train.labels)
    _check_labels(data.name, data.test.name, data.test.labels)
    backbone = load_backbone(config.backbone, device=config.device, dtype=DTYPES[config.dtype])
    # Built before the features: what is wrong with a method's options shows at once.
    method = config.method.build(backbone, data.class_names, generator=generator(config.seed, "init"))
    if not method.is_trained:
        config.check_untrained()
    # Before the tower runs, since it catches a wrong --t.
    partition = partition_clients(config, data)
    check_fits(
        method, config.aggregation, cohort_size=cohort_size(len(partition.names), config.federation.participation)
    )
    opened = partial(
        open_features,
        backbone,
        cache=cache,
        store_dtype=config.store_dtype,
        device=config.device,
        skip_corrupt=config.skip_corrupt,
        progress=show_progress,
        data=config.data,
    )
    train = opened(hide_labels(config, data.train), views={**method.views, **method.training_views})
    test = opened(data.test, views=method.views)
    if test.skipped:  # Asked again here: scores come after the training.
        _check_labels(data.name, f"{data.test.name} (as far as it can be read)", test.labels)
    if train.skipped:
        partition = partition.keep(train.rows)
    clients = [train.subset(rows) for rows in partition.rows]
    # What the clients would count of their labels adds up to the count of all.
    counts = count_labels(torch.cat([client.labels for client in clients]))
    return Prepared(backbone, data, train, test, partition, clients, counts, method, time.perf_counter() - began)


def _check_labels(data: str, split: str, labels: Tensor) -> None:
    if not len(labels):
        raise InputError(f"{data}: there are no {split} images; give a split that has some, or test_share below 1")
    if not (labels == PRESENT).any():
        raise InputError(f"{data}: no image of the {split} split shows any of the classes; check its annotations")


def train(
    config: RunConfig,
    *,
    out: Path | str,
    resume: bool = False,
    cache: Path | str | None = None,
    watcher: Watcher | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Run a federation and write ``out``: config.json, rounds.jsonl, checkpoint/, results.json. Returns the results.

    Nothing is written before everything that was given has been checked. With ``resume``, an interrupted run goes
    on after its last complete round and ends with the same numbers; a finished one is left as it is. ``cache`` is the
    folder of computed features, the user's own unless given; ``watcher`` is told how it goes; ``show_progress`` shows
    bars for what comes before the first round.

    Raises:
        InputError: for wrong input, or if ``out`` holds another run.
    """
    out, watcher = Path(out), watcher or Watcher()
    config = replace(config, method=config.method.resolved())
    _earlier(config, out, resume=resume)  # Asked before the long work, and again when the folder is ours.
    if resume and is_finished(out):
        return read_json(out / "results.json")
    prepared = prepare(config, cache=Path(cache or default_cache()), show_progress=show_progress)
    with _held(out):
        checkpoint = _earlier(config, out, resume=resume)
        try:
            return _train(config, prepared, checkpoint, out=out, watcher=watcher)
        except BaseException:
            if not (out / "checkpoint").exists():  # Not one round succeeded: the same command may be given again.
                for name in ("config.json", "rounds.jsonl"):
                    (out / name).unlink(missing_ok=True)
            raise


def _train(
    config: RunConfig, prepared: Prepared, checkpoint: Checkpoint | None, *, out: Path, watcher: Watcher
) -> dict[str, Any]:
    method, record = prepared.method, _record(config, prepared)
    if checkpoint is not None:
        source = str(out / "checkpoint")
        check_record(checkpoint.record, prepared.backbone, prepared.data.class_names, source=source)
        check_sources(checkpoint.record, method.sources, source=source)
        check_unchanged(checkpoint.record, record, source=source)
    progress = checkpoint.progress if checkpoint else None
    rounds_done = progress.rounds_done if progress else 0
    _, initial = method.split(get_state(method))
    write_json(out / "config.json", config.to_json())
    log = RoundLog(out / "rounds.jsonl", keep=rounds_done)
    watcher.started(config, prepared, rounds_done=rounds_done)
    simulation = Simulation(
        method=method,
        clients=prepared.clients,
        test=prepared.test,
        federation=config.federation,
        training=config.training,
        aggregation=config.aggregation,
        balance=Balance.of(prepared.counts) if config.training.balance else None,
        seed=config.seed,
        on_update=watcher.client_done,
    )
    for done in simulation.rounds(progress) if method.is_trained else ():
        log.append(done)
        save_checkpoint(out / "checkpoint", done.progress, record)
        watcher.round_done(done)
        progress = done.progress
    if progress is None:  # Nothing to train: the checkpoint still says which method, classes and backbone.
        progress = Progress(rounds_done=0, state={}, personal={})
        save_checkpoint(out / "checkpoint", progress, record)
    return _finish(prepared, progress, initial, out=out, log=log)


def _record(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """What a checkpoint's tensors belong to: enough to build it again, and to notice another backbone or other data."""
    names, backbone = prepared.data.class_names, prepared.backbone
    return {
        "fedmpt": fedmpt.__version__,
        "config": config.to_json(),
        "class_names": list(names),
        "sources": dict(prepared.method.sources),
        "clients": list(prepared.partition.names),
        "backbone": {"name": backbone.name, **fingerprints(backbone, names)},
        "data": {"train": _digest(prepared.clients), "test": _digest([prepared.test])},
    }


def _digest(parts: Sequence[FeatureSet]) -> str:
    """Of images, model, labels and who has which: the store's key stands for the first two."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.store.facts.key.encode() + len(part).to_bytes(8, "little"))
        digest.update(part.rows.contiguous().numpy().tobytes() + part.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_finished(out: Path) -> bool:
    """Whether ``out`` holds a run that came to its end."""
    return (out / "config.json").is_file() and (out / "results.json").is_file()


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """``out`` as a folder of this process alone, without half-written files; gone at the end if new and empty."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(out):
            for leftover in (*out.glob(".*.tmp"), *out.glob("checkpoint/.*.tmp")):
                leftover.unlink(missing_ok=True)
            yield
    finally:
        with suppress(OSError):  # Of another process that has begun meanwhile, nothing is removed.
            if is_new and set(os.listdir(out)) <= {LOCK}:
                (out / LOCK).unlink(missing_ok=True)
                out.rmdir()


def _earlier(config: RunConfig, out: Path, *, resume: bool) -> Checkpoint | None:
    """The checkpoint to continue from; None to start afresh."""
    check_writable(out, kind="folder")
    stored = out / "config.json"
    if not resume:
        if stored.exists() or (out / "checkpoint").exists():
            raise InputError(f"{out} already holds a run; continue it with --resume or choose another --out")
        return None
    if not stored.exists():
        return None
    different = differences(RunConfig.from_json(read_json(stored), source=str(stored)), config)
    if different:
        raise InputError(f"{out} was started with other options ({different}); repeat those or choose another --out")
    return load_checkpoint(out / "checkpoint") if (out / "checkpoint" / "checkpoint.json").exists() else None


def _finish(prepared: Prepared, progress: Progress, initial: State, *, out: Path, log: RoundLog) -> dict[str, Any]:
    """Calibrate, score on the test set, write the results. ``initial`` are the personal tensors as built."""
    method, class_names = prepared.method, prepared.data.class_names
    set_global(method, progress.state, initial=initial, source=str(out / "checkpoint"))
    # The clients' histograms add up to that of all images. Counted at once, text features are computed once.
    counts = score_histograms(probabilities(method, prepared.train), prepared.train.labels)
    calibration = calibrate([counts])
    save_calibration(out / "checkpoint", calibration, class_names)
    write_counts(out / "checkpoint" / "counts.json", SiteCounts("all clients", class_names, prepared.counts, None))
    pairs = measured_pairs(prepared.data, prepared.test.labels)
    scores = score(
        probabilities(method, prepared.test), prepared.test, class_names, calibration=calibration, pairs=pairs
    )
    if method.personal:
        scores["test_personal"] = personal_scores(
            method,
            progress.state,
            personal=progress.personal,
            initial=initial,
            client_names=prepared.partition.names,
            test=prepared.test,
        )
    results = {
        **scores,
        "params": {
            "trainable": num_parameters(get_state(method)),
            "sent_bytes_per_round": num_bytes(progress.state),
            "clients": len(prepared.clients),
        },
        "clients": [
            {"name": name, "images": len(client)}
            for name, client in zip(prepared.partition.names, prepared.clients, strict=True)
        ],
        "time": {"prepare_s": round(prepared.seconds, 3), "rounds_s": round(log.seconds, 3)},
        "sources": dict(method.sources),
        "notes": list(prepared.data.notes),
        "versions": versions(),
        "skipped_images": [str(path) for part in (prepared.train, prepared.test) for path in part.skipped],
    }
    write_json(out / "results.json", results)
    return results
