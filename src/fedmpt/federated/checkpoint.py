"""Checkpoints: the trained tensors as safetensors, all else as JSON, complete or not there at all.

A checkpoint is a folder with ``checkpoint.json``, which names the files that hold the tensors and their hashes. New
tensors are written beside the old ones, then the JSON is replaced in one step, then the old tensors are deleted: a
kill at any moment leaves the old checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from fedmpt.federated.simulate import Progress
from fedmpt.files import read_json, write_atomically, write_json
from fedmpt.types import InputError, State

INDEX = "checkpoint.json"
FORMAT = 2
# Format 1 had no memory of the server.
READABLE = (1, FORMAT)


@dataclass(frozen=True)
class Checkpoint:
    """Where a federation stands, with the record of what it trains (method, options, classes, backbone)."""

    progress: Progress
    record: Mapping[str, Any]


def save_checkpoint(folder: Path, progress: Progress, record: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint by this one. ``record`` has to be JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    state_file = _write_tensors(folder, f"state-{progress.rounds_done:05d}", progress.state)
    personal = {f"{client}/{name}": t for client, state in progress.personal.items() for name, t in state.items()}
    personal_file = _write_tensors(folder, f"personal-{progress.rounds_done:05d}", personal) if personal else None
    memory = progress.memory
    memory_file = _write_tensors(folder, f"memory-{progress.rounds_done:05d}", memory) if memory else None
    index = {
        "format": FORMAT,
        "rounds_done": progress.rounds_done,
        "state": state_file,
        "personal": personal_file,
        "memory": memory_file,
        "record": dict(record),
    }
    write_json(folder / INDEX, index)
    kept = {file["name"] for file in (state_file, personal_file, memory_file) if file}
    leftovers = folder.glob(".*.tmp")  # Of a run that was killed while it wrote.
    for path in [*folder.glob("*.safetensors"), *leftovers]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, verifying that it is complete and undamaged. Nothing is unpickled.

    Raises:
        InputError: if it is missing, of a newer format, truncated or changed.
    """
    index_path = folder / INDEX
    if not index_path.is_file():
        raise InputError(f"{folder} holds no checkpoint ({INDEX} is missing); give a run's 'checkpoint' folder")
    index = read_json(index_path)
    try:
        if index["format"] not in READABLE:
            raise InputError(
                f"{index_path}: format {index['format']}, this version reads {' and '.join(map(str, READABLE))}; "
                "update fedmpt"
            )
        state = _read_tensors(folder, index["state"])
        personal: dict[int, dict[str, Any]] = {}
        if index["personal"]:
            for key, tensor in _read_tensors(folder, index["personal"]).items():
                client, name = key.split("/", 1)
                personal.setdefault(int(client), {})[name] = tensor
        memory_file = index["memory"] if index["format"] > 1 else None
        memory = _read_tensors(folder, memory_file) if memory_file else {}
        rounds_done = index["rounds_done"]
        if not isinstance(rounds_done, int) or rounds_done < 0:
            raise ValueError(f"rounds_done is {rounds_done!r}")
        progress = Progress(rounds_done=rounds_done, state=state, personal=personal, memory=memory)
        return Checkpoint(progress, dict(index["record"]))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{index_path} is damaged ({error!r}); restore it from a copy or train again") from error


def _write_tensors(folder: Path, stem: str, tensors: State) -> dict[str, str]:
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    # The hash in the name: a round that is stored twice must not overwrite what the old index still names.
    path = folder / f"{stem}-{digest[:12]}.safetensors"
    write_atomically(path, content)
    return {"name": path.name, "sha256": digest}


def _read_tensors(folder: Path, file: Mapping[str, str]) -> State:
    name = file["name"]
    if Path(name).name != name:
        raise InputError(f"{folder / INDEX}: tensor file {name!r} must lie in the checkpoint's own folder")
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path} is missing from the checkpoint; copy the folder again, whole")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise InputError(f"{path} is truncated or changed ({len(content)} bytes); copy the checkpoint again or retrain")
    try:
        return load(content)
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error}); copy the checkpoint again or retrain") from error
