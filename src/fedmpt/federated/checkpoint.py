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
from torch import Tensor

from fedmpt.federated.rounds import Best, Progress
from fedmpt.files import read_json, write_atomically, write_json
from fedmpt.types import InputError, State

INDEX = "checkpoint.json"
FORMAT = 3
# Format 1 had no memory of the server, format 2 no best round.
READABLE = (1, 2, FORMAT)
SHARED = "shared"
"""Whose the global model's tensors are in the file of the best round, beside the clients' by their numbers."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a federation stands, with the record of what it trains (method, options, classes, backbone)."""

    progress: Progress
    record: Mapping[str, Any]


def save_checkpoint(folder: Path, progress: Progress, record: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint by this one. ``record`` has to be JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"state": progress.state, "personal": _with_owners(progress.personal), "memory": progress.memory}
    files = {
        part: _write_tensors(folder, f"{part}-{progress.rounds_done:05d}", tensors)
        for part, tensors in parts.items()
        if tensors or part == "state"  # A method that trains nothing has a state too, an empty one.
    }
    index = {"format": FORMAT, "rounds_done": progress.rounds_done, **dict.fromkeys(parts), **files, "best": None}
    kept = {file["name"] for file in files.values()}
    if (best := progress.best) is not None:
        tensors = _with_owners({SHARED: best.state, **best.personal})
        file = _write_tensors(folder, f"best-{best.index:05d}", tensors)
        index["best"] = {"round": best.index, "mAP": best.mAP, "tensors": file}
        kept.add(file["name"])
    # JSON has no whole numbers for keys.
    index["participations"] = {str(client): rounds for client, rounds in progress.participations.items()}
    write_json(folder / INDEX, {**index, "record": dict(record)})
    leftovers = folder.glob(".*.tmp")  # Of a run that was killed while it wrote.
    for path in [*folder.glob("*.safetensors"), *leftovers]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, verifying that it is complete and undamaged. Nothing is unpickled. Raises InputError if it is
    missing, of a newer format, truncated or changed."""
    index_path = folder / INDEX
    if not index_path.is_file():
        raise InputError(f"{folder} holds no checkpoint ({INDEX} is missing); give a run's 'checkpoint' folder")
    index = read_json(index_path)
    try:
        if index["format"] not in READABLE:
            raise InputError(
                f"{index_path}: format {index['format']}, this version reads {READABLE[0]} to {FORMAT}; update fedmpt"
            )
        personal = _by_owner(_read_tensors(folder, index["personal"]))
        progress = Progress(
            rounds_done=int(index["rounds_done"]),
            state=_read_tensors(folder, index["state"]),
            personal={int(client): own for client, own in personal.items()},
            memory=_read_tensors(folder, index["memory"] if index["format"] > 1 else None),
            best=_read_best(folder, index["best"] if index["format"] > 2 else None),
            # Checkpoints of before there was differential privacy have none.
            participations={int(client): int(rounds) for client, rounds in index.get("participations", {}).items()},
        )
        return Checkpoint(progress, dict(index["record"]))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(f"{index_path} is damaged ({error!r}); restore it from a copy or train again") from error


def _read_best(folder: Path, words: Mapping[str, Any] | None) -> Best | None:
    if words is None:
        return None
    owners = _by_owner(_read_tensors(folder, words["tensors"]))
    state = owners.pop(SHARED, {})
    return Best(int(words["round"]), float(words["mAP"]), state, {int(client): own for client, own in owners.items()})


def _with_owners(states: Mapping[Any, State]) -> State:
    """Tensors of several owners by names such as ``7/offset``."""
    return {f"{owner}/{name}": tensor for owner, state in states.items() for name, tensor in state.items()}


def _by_owner(tensors: State) -> dict[str, dict[str, Tensor]]:
    """The inverse of `_with_owners`."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        owner, name = key.split("/", 1)
        states.setdefault(owner, {})[name] = tensor
    return states


def _write_tensors(folder: Path, stem: str, tensors: State) -> dict[str, str]:
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    # The hash in the name: a round that is stored twice must not overwrite what the old index still names.
    path = folder / f"{stem}-{digest[:12]}.safetensors"
    write_atomically(path, content)
    return {"name": path.name, "sha256": digest}


def _read_tensors(folder: Path, file: Mapping[str, str] | None) -> State:
    """The tensors of a file by its name and hash; none where there is no file."""
    if not file:
        return {}
    path = folder / file["name"]
    if Path(file["name"]).name != file["name"] or path.suffix != ".safetensors":
        raise InputError(f"{folder / INDEX} names {file['name']!r}, which is no file of tensors in that folder")
    if not path.is_file():
        raise InputError(f"{path} is missing from the checkpoint; copy the folder again, whole")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise InputError(f"{path} is truncated or changed ({len(content)} bytes); copy the checkpoint again or retrain")
    return load(content)
