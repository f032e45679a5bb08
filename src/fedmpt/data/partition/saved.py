"""Partitions as JSON files, tied to the images and labels that they were made for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.partition.settings import Partition
from fedmpt.files import read_json, write_atomically
from fedmpt.types import ImageData, InputError

FORMAT = "fedmpt partition"
VERSION = 1


def save_partition(path: Path, partition: Partition, data: ImageData) -> None:
    """Write ``partition`` of the training images of ``data``, one client a line; labels are not masked yet."""
    assert partition.num_images == len(data.train)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "dataset": data.name,
        "setting": partition.setting,
        "options": dict(partition.options),
        "seed": partition.seed,
        "num_images": len(data.train),
        "images_sha256": _hash_of_names(data.train.files),
        "labels_sha256": _hash_of_labels(data.train.labels),
    }
    clients = [
        json.dumps({"name": name, "rows": rows.tolist()})
        for name, rows in zip(partition.names, partition.rows, strict=True)
    ]
    header = json.dumps(record, indent=2).removesuffix("\n}")
    text = header + ',\n  "clients": [\n    ' + ",\n    ".join(clients) + "\n  ]\n}\n"
    write_atomically(path, text.encode())


def load_partition(path: Path, data: ImageData) -> Partition:
    """The partition in ``path`` of the training images of ``data``, whose labels are not masked yet.

    Raises InputError if the file cannot be read, is no partition, is damaged, or was made for other images or labels.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path} is no saved partition; it must be a JSON object with format {FORMAT!r}")
    if record.get("version") != VERSION:
        version = record.get("version")
        raise InputError(f"{path} has version {version!r}, and this fedmpt reads {VERSION}; save the partition again")
    _check_data(path, record, data)
    try:
        rows_of = {client["name"]: client["rows"] for client in record["clients"]}
        held = sorted(row for rows in rows_of.values() for row in rows)
        if held != list(range(len(data.train))) or not all(rows_of.values()):
            raise ValueError("its clients do not hold each image once, or one holds none")
        if not all(isinstance(name, str) and name.strip() for name in rows_of):
            raise ValueError("one of its clients has no name")
        rows = tuple(torch.tensor(sorted(rows), dtype=torch.int64) for rows in rows_of.values())
        return Partition(record["setting"], record["options"], int(record["seed"]), tuple(rows_of), rows)
    except (KeyError, TypeError, ValueError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is damaged: {what}; make and save the partition again") from error


def _check_data(path: Path, record: dict[str, Any], data: ImageData) -> None:
    count, why = record.get("num_images"), ""
    if count != len(data.train):
        why = f"{count} training images, and {data.name!r} has {len(data.train)}"
    elif record.get("images_sha256") != _hash_of_names(data.train.files):
        why = f"the names or the order of the images differ from {data.name!r}"
    elif record.get("labels_sha256") != _hash_of_labels(data.train.labels):
        why = f"it has the images of {data.name!r} with other labels, say with other options of the reader"
    if why:
        made_for = f"{path} was made for other data ({record.get('dataset')!r})"
        raise InputError(f"{made_for}: {why}; give the data it was made for, or make a new partition")


def _hash_of_names(files: Sequence[Path]) -> str:
    """Of the paths below the folder that all share, so that a data set may move."""
    texts = [os.path.abspath(file) for file in files]
    try:
        common = os.path.commonpath([os.path.dirname(text) for text in texts])
        names = [PurePath(text).relative_to(common).as_posix() for text in texts]
    except ValueError:  # Several drives of Windows share no folder.
        names = [file.name for file in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _hash_of_labels(labels: Int8[Tensor, "n C"]) -> str:
    digest = hashlib.sha256(json.dumps(list(labels.shape)).encode())
    digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()
