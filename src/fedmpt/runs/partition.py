"""Who has which training images, and which labels they see: a config's federated setting applied to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.data.partial_labels import annotated_classes, mask_labels
from fedmpt.data.partition import Partition, Setting, load_partition, partition_split
from fedmpt.runs.config import RunConfig
from fedmpt.seeding import generator
from fedmpt.types import UNKNOWN, ImageData, InputError, Split

DEFAULT_T, DEFAULT_ALPHA = 0.5, 0.5


def hold_out(config: RunConfig, data: ImageData) -> ImageData:
    """The data with a part of its training images in place of the test set, where ``config`` asks for validation.

    Which images depends on their number and the share alone, so runs of all methods and seeds have the same ones. Where
    the data have a cut tie, images are held out of the training images before the cut, and the others are then cut: no
    image of the data's own test set is used.

    Raises:
        InputError: if either part would have no images.
    """
    if not config.validation:
        return data
    if data.uncut and data.recut:
        return data.recut(hold_out(config, data.uncut))
    num = len(data.train)
    size = round(config.validation * num)
    if not 0 < size < num:
        raise InputError(f"--validation {config.validation} of {num} training images is {size}; take another share")
    order = torch.randperm(num, generator=generator(0, "validation"))
    held, kept = sorted(order[:size].tolist()), sorted(order[size:].tolist())
    return replace(data, train=data.train.take(kept), test=data.train.take(held, name="validation"))


def partition_clients(config: RunConfig, data: ImageData) -> Partition:
    """The training images of ``data`` divided among clients, by labels as the reader gives them. Raises InputError if
    an option does not fit the data, the images do not suffice, or a partition file is of others."""
    if config.partition is not None:
        return load_partition(Path(config.partition).expanduser(), data)
    setting = setting_of(config, data)
    if setting == "heterogeneous":
        return partition_split(data.train, setting=setting, t=DEFAULT_T if config.t is None else config.t)
    if setting == "natural":
        if not (column := config.by or data.client_column):
            known = ", ".join(sorted(data.train.columns)) or "none"
            raise InputError(
                f"--setting natural needs --by, a column of {data.name} that says whose an image is: {known}"
            )
        return partition_split(data.train, setting=setting, column=column)
    alpha = config.alpha
    if setting == "dirichlet" and alpha is None:
        alpha = DEFAULT_ALPHA
    return partition_split(data.train, setting=setting, num_clients=config.clients, alpha=alpha, seed=config.seed)


def held_out_rows(
    rows: Sequence[Int64[Tensor, "_"]], share: float
) -> tuple[list[Int64[Tensor, "_"]], Int64[Tensor, "_"]]:
    """The images that each client trains on, and those that all keep out of training, both in the order of ``rows``.

    Each client keeps out ``share`` of its own, in (0, 1): at least one and never all where it has two. They depend on
    the client's number and how many images it has, so runs of all methods and seeds have the same ones.
    """
    parts = [held_out_of(own, share, client=client) for client, own in enumerate(rows)]
    return [kept for kept, _ in parts], torch.cat([held for _, held in parts])


def held_out_of(own: Int64[Tensor, "_"], share: float, *, client: int) -> tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]:
    """One client's images as `held_out_rows` divides them."""
    size = min(max(1, round(share * len(own))), len(own) - 1)
    order = torch.randperm(len(own), generator=generator(0, "held-out", client))
    return own[order[size:].sort().values], own[order[:size].sort().values]


def setting_of(config: RunConfig, data: ImageData) -> Setting:
    """The setting, which data that come from several sites decide where the config does not."""
    if config.setting is not None:
        return config.setting
    is_natural = config.by is not None or (data.client_column is not None and config.t is None)
    return "natural" if is_natural else "heterogeneous"


def hide_labels(config: RunConfig, data: ImageData, partition: Partition | None = None) -> Split:
    """The training images with the labels that ``config`` leaves of them.

    ``partition`` is that of `partition_clients`, which is called where it is needed and not given. It is by all labels
    before, so it is the same whatever is hidden.
    """
    train, kind = data.train, config.partial_labels
    if kind is None:
        return train
    if kind != "missing-classes":
        labels = mask_labels(train.labels, kind=kind, fraction=config.partial_fraction, seed=config.seed)
        return replace(train, labels=labels)
    assert config.classes_per_client is not None, "see RunConfig.check"
    rows = (partition or partition_clients(config, data)).rows
    annotated = annotated_classes(len(rows), len(data.class_names), each=config.classes_per_client, seed=config.seed)
    labels = train.labels.clone()
    for own, known in zip(rows, annotated, strict=True):
        labels[own] = labels[own].masked_fill(~known, UNKNOWN)
    return replace(train, labels=labels)
