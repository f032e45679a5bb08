"""Partitions as JSON files, tied to the images and labels that they were made for."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NoReturn

import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from fedmpt.data.partition.clients import Partition
from fedmpt.data.partition.settings import OPTIONS
from fedmpt.files import read_json, write_atomically
from fedmpt.types import ImageData, InputError

FORMAT = "fedmpt partition"
VERSION = 1

# A row takes ten bytes or so; a client's name is the value of a cell.
_MAX_BYTES_PER_IMAGE = 1000
_OPTION_NAMES = {"column", *(name for names in OPTIONS.values() for name in names)} - {"groups"}


def save_partition(path: Path, partition: Partition, data: ImageData) -> None:
    """Write ``partition`` of the training images of ``data``, atomically; one client a line.

    Labels are to be those that the reader gives, before any are masked.

    Raises:
        InputError: if the file cannot be written.
    """
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
    header = json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}")
    text = header + ',\n  "clients": [\n    ' + ",\n    ".join(clients) + "\n  ]\n}\n"
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def load_partition(path: Path, data: ImageData) -> Partition:
    """The partition in ``path`` of the training images of ``data``, whose labels are not masked yet.

    Raises:
        InputError: if the file cannot be read, is no partition, is damaged, or was made for other images or labels.
    """
    record = _read(path, num_images=len(data.train))
    _check_data(path, record, data)
    setting, options, seed = _origin(path, record)
    clients = record.get("clients")
    if not isinstance(clients, list) or not clients:
        _refuse(path, "it has no list 'clients'")
    names = _names(path, clients)
    rows = [_rows(path, name, client, num_images=len(data.train)) for name, client in zip(names, clients, strict=True)]
    _check_disjoint_and_whole(path, names, rows, num_images=len(data.train))
    return Partition(setting, options, seed, names, tuple(part.sort().values for part in rows))


def _read(path: Path, *, num_images: int) -> dict[str, Any]:
    if not os.path.isfile(path):  # Not `Path.is_file`, which raises for some names.
        raise InputError(f"{path} is no file; give a partition that was saved before")
    if path.stat().st_size > 1_000_000 + _MAX_BYTES_PER_IMAGE * num_images:
        _refuse(path, f"it is far too large for a partition of {num_images} images")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path} is no saved partition; it must be a JSON object with format {FORMAT!r}")
    version = record.get("version")
    if not _is_int(version) or version != VERSION:
        raise InputError(f"{path} has version {version!r}, and this fedmpt reads {VERSION}; save the partition again")
    return record


def _check_data(path: Path, record: dict[str, Any], data: ImageData) -> None:
    made_for = f"{path} was made for other data ({record.get('dataset')!r})"
    again = "give the data it was made for, or make a new partition"
    count = record.get("num_images")
    if not _is_int(count):
        _refuse(path, f"num_images is {count!r}")
    if count != len(data.train):
        raise InputError(f"{made_for}: {count} training images, and {data.name!r} has {len(data.train)}; {again}")
    if record.get("images_sha256") != _hash_of_names(data.train.files):
        raise InputError(f"{made_for}: the names or the order of the images differ from {data.name!r}; {again}")
    if record.get("labels_sha256") != _hash_of_labels(data.train.labels):
        raise InputError(
            f"{made_for}: it has the images of {data.name!r} with other labels, say with other options of the reader; "
            f"{again}"
        )


def _origin(path: Path, record: dict[str, Any]) -> tuple[str, dict[str, float | str], int]:
    setting, options = record.get("setting"), record.get("options")
    if not isinstance(setting, str) or setting not in OPTIONS:
        _refuse(path, f"setting is {setting!r}, not one of {', '.join(OPTIONS)}")
    if not _is_int(record.get("seed")):
        _refuse(path, f"seed is {record.get('seed')!r}, no whole number")
    if not isinstance(options, dict):
        _refuse(path, "it has no object 'options'")
    for name, value in options.items():
        is_number = _is_int(value) or (isinstance(value, float) and math.isfinite(value))
        if name not in _OPTION_NAMES or not (is_number or isinstance(value, str)):
            _refuse(path, f"options has {name!r}: {value!r}")
    return setting, options, record["seed"]


def _names(path: Path, clients: Sequence[Any]) -> tuple[str, ...]:
    names: dict[str, int] = {}
    for number, client in enumerate(clients):
        name = client.get("name") if isinstance(client, dict) else None
        if not isinstance(name, str) or not name.strip():
            _refuse(path, f"client {number} has no name")
        if name in names:
            _refuse(path, f"clients {names[name]} and {number} are both named {name!r}")
        names[name] = number
    return tuple(names)


def _rows(path: Path, name: str, client: dict[str, Any], *, num_images: int) -> Int64[Tensor, "rows"]:
    rows = client.get("rows")
    if not isinstance(rows, list):
        _refuse(path, f"client {name!r} has no list 'rows'")
    if not rows:
        _refuse(path, f"client {name!r} has no image, and cannot train")
    # In Python's own numbers: 1.5 and true would become rows in a tensor, and a huge number an overflow.
    wrong = [row for row in rows if not _is_int(row) or not 0 <= row < num_images]
    if wrong:
        first = str(wrong[0])[:40]
        _refuse(path, f"client {name!r} has row {first}; rows are whole numbers from 0 to {num_images - 1}")
    return torch.tensor(rows, dtype=torch.int64)


def _check_disjoint_and_whole(
    path: Path, names: Sequence[str], rows: Sequence[Int64[Tensor, "_"]], *, num_images: int
) -> None:
    counts = torch.bincount(torch.cat(list(rows)), minlength=num_images)
    if (twice := (counts > 1).nonzero().flatten()).numel():
        row = int(twice[0])
        holders = ", ".join(repr(name) for name, part in zip(names, rows, strict=True) if (part == row).any())
        _refuse(path, f"{len(twice)} rows belong to more than one client, first {row} (of {holders})")
    if (missing := (counts == 0).nonzero().flatten()).numel():
        _refuse(path, f"{len(missing)} of {num_images} rows have no client, first {int(missing[0])}")


def _refuse(path: Path, what: str) -> NoReturn:
    raise InputError(f"{path} is damaged: {what}; make and save the partition again")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
