"""What comes before the first round: data, backbone, features, clients and the method, all of it checked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.conditions.labels.counts import LabelCounts, count_labels
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.data.partition import Partition
from fedmpt.federated.aggregate import check_fits
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import cohort_size
from fedmpt.methods import Method
from fedmpt.runs.config import DTYPES, RunConfig
from fedmpt.runs.partition import held_out_rows, hide_labels, hold_out, partition_clients
from fedmpt.runs.records import digest_of
from fedmpt.seeding import generator
from fedmpt.types import PRESENT, UNKNOWN, Backbone, ImageData, InputError


@dataclass(frozen=True)
class Ready:
    """What is known of a run before its first round, wherever its clients are.

    ``counts`` are the clients' counts of labels, summed; None where no one asked for them. ``client_images`` are how
    many images each trains on. ``digests`` stand for the data, by ``train`` and ``test``. ``skipped`` are images that
    cannot be read. ``min_clients`` is the number of updates without which a round does not count; None: all.
    """

    backbone: Backbone
    class_names: tuple[str, ...]
    method: Method
    counts: LabelCounts | None
    client_names: tuple[str, ...]
    client_images: tuple[int, ...]
    num_test: int
    num_held_out: int
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0
    min_clients: int | None = None


@dataclass(frozen=True)
class Prepared:
    """Everything a run in one process needs before its first round.

    ``train`` are the images of all clients. ``held_out`` are those that the ``clients`` do not train on, None where the
    config holds none out. ``counts`` are the clients' counts of labels, summed.
    """

    backbone: Backbone
    data: ImageData
    train: FeatureSet
    test: FeatureSet
    partition: Partition
    clients: list[FeatureSet]
    held_out: FeatureSet | None
    counts: LabelCounts
    method: Method
    seconds: float

    @cached_property
    def ready(self) -> Ready:
        """The same without the images."""
        return Ready(
            backbone=self.backbone,
            class_names=self.data.class_names,
            method=self.method,
            counts=self.counts,
            client_names=self.partition.names,
            client_images=tuple(map(len, self.clients)),
            num_test=len(self.test),
            num_held_out=0 if self.held_out is None else len(self.held_out),
            digests={"train": digest_of(self.clients, self.held_out), "test": digest_of([self.test])},
            notes=self.data.notes,
            skipped=tuple(str(path) for part in (self.train, self.test) for path in part.skipped),
            seconds=self.seconds,
        )


def prepare(config: RunConfig, *, cache: Path, show_progress: bool, must_train: bool = False) -> Prepared:
    """Load data and backbone, compute or open features, divide them among clients, build the method. Raises InputError
    for anything wrong with what the user gave, and with ``must_train`` for a method that has nothing to train."""
    began = time.perf_counter()
    config.check()
    data = hold_out(config, load_data(config.data, cache=cache, progress=show_progress))
    _check_labels(data.name, data.train.name, data.train.labels)
    _check_labels(data.name, data.test.name, data.test.labels)
    backbone = load_backbone(config.backbone, device=config.device, dtype=DTYPES[config.dtype])
    # Built before the features: what is wrong with a method's options shows at once.
    method = config.method.build(backbone, data.class_names, generator=generator(config.seed, "init"))
    if not method.is_trained:
        if must_train:
            raise InputError(f"{config.method.name} trains nothing, so there is nothing to tune; take another --method")
        config.check_untrained()
    # Before the tower runs, since it catches a wrong --t.
    partition = partition_clients(config, data)
    labelled = hide_labels(config, data, partition)
    _check_unknown(config.training, labelled.labels)
    check_fits(
        method,
        config.aggregation,
        cohort_size=cohort_size(len(partition.names), config.federation.participation),
        privacy=config.privacy,
        weighting=config.federation.weighting,
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
    train = opened(labelled, views={**method.views, **method.training_views})
    test = opened(data.test, views=method.views)
    if test.skipped:  # Asked again here: scores come after the training.
        _check_labels(data.name, f"{data.test.name} (as far as it can be read)", test.labels)
    partition, clients, held_out = shared_out(config, partition, train)
    if held_out is not None:
        _check_held_out(config.federation.held_out_share, held_out.labels)
    # What the clients would count of their labels adds up to the count of all.
    counts = count_labels(torch.cat([client.labels for client in clients]))
    seconds = time.perf_counter() - began
    return Prepared(backbone, data, train, test, partition, clients, held_out, counts, method, seconds)


def shared_out(
    config: RunConfig, partition: Partition, train: FeatureSet
) -> tuple[Partition, list[FeatureSet], FeatureSet | None]:
    """The partition of the images that can be read, those that each client trains on, and those that all hold out."""
    if train.skipped:
        partition = partition.keep(train.rows)
    rows, held_out = list(partition.rows), None
    if share := config.federation.held_out_share:
        rows, held = held_out_rows(rows, share)
        held_out = train.subset(held)
    return partition, [train.subset(own) for own in rows], held_out


def _check_held_out(share: float, labels: Tensor) -> None:
    if not (labels == PRESENT).any():
        raise InputError(
            f"--held-out {share} holds out {len(labels)} images, and none shows any of the classes, so they cannot be "
            "scored; hold out more, or use --keep last"
        )


def _check_unknown(training: LocalTraining, labels: Tensor) -> None:
    for flag, value in (("pseudo-labels", training.pseudo_labels), ("global-consistency", training.global_consistency)):
        if value and not (labels == UNKNOWN).any():
            raise InputError(f"--{flag} {value} has no effect: no training label is unknown; leave it out")


def _check_labels(data: str, split: str, labels: Tensor) -> None:
    if not len(labels):
        raise InputError(f"{data}: there are no {split} images; give a split that has some, or test_share below 1")
    if not (labels == PRESENT).any():
        raise InputError(f"{data}: no image of the {split} split shows any of the classes; check its annotations")
