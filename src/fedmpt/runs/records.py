"""The small files of a run's folder: rounds, what a checkpoint belongs to, calibration, versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

import fedmpt
from fedmpt.data.features.fingerprint import text_fingerprint
from fedmpt.data.features.store import FeatureSet, fingerprint
from fedmpt.evaluation.calibration import Calibration
from fedmpt.federated.simulate import Progress, Round
from fedmpt.files import read_json, write_atomically, write_json
from fedmpt.methods import Method
from fedmpt.runs.config import RunConfig
from fedmpt.types import Backbone, InputError

VERSIONED = ("torch", "transformers", "numpy", "scikit-learn", "safetensors", "pillow")


def check_writable(path: Path, *, kind: Literal["folder", "file"]) -> None:
    """Raises InputError if output cannot go to ``path``. Asked first, since training comes before writing."""
    if path.exists() and path.is_dir() != (kind == "folder"):
        raise InputError(f"--out {path} is a {'file' if kind == 'folder' else 'folder'}; give a {kind}")
    start = path.absolute() if kind == "folder" else path.absolute().parent
    existing = next(place for place in (start, *start.parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"--out {path}: {existing} is a file, not a folder; choose another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: {existing} may not be written to; choose another place")


class RoundLog:
    """rounds.jsonl: one line a round, on the disk before the round's checkpoint is.

    Opening it drops what stands behind round ``keep``, which a killed run may have left.
    """

    def __init__(self, path: Path, *, keep: int) -> None:
        self._path = path
        kept = [line for line in _complete_lines(path) if line["round"] <= keep]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.seconds = sum(line["seconds"] for line in kept)

    def append(self, done: Round) -> None:
        line: dict[str, Any] = {
            "round": done.index,
            "clients": list(done.clients),
            "loss": done.loss,
            "learning_rate": done.learning_rate,
            "seconds": round(done.seconds, 3),
        }
        if done.scores is not None:
            scores = done.scores
            line |= {"mAP": scores.mAP, "CF1": scores.CF1, "OF1": scores.OF1, "CF1_PR": scores.CF1_PR}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.seconds += line["seconds"]


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            lines.append({**line, "round": int(line["round"]), "seconds": float(line["seconds"])})
        except (ValueError, KeyError, TypeError):
            break  # A kill while writing leaves half a line, always the last.
    return lines


def checkpoint_record(
    config: RunConfig,
    backbone: Backbone,
    class_names: Sequence[str],
    *,
    sources: Mapping[str, str],
    client_names: Sequence[str],
    clients: Sequence[FeatureSet],
    test: FeatureSet,
) -> dict[str, Any]:
    """What a checkpoint's tensors belong to: enough to build it again, and to notice another backbone or other data."""
    return {
        "fedmpt": fedmpt.__version__,
        "config": config.to_json(),
        "class_names": list(class_names),
        "sources": dict(sources),
        "clients": list(client_names),
        "backbone": {
            "name": backbone.name,
            "fingerprint": fingerprint(backbone),
            "text_fingerprint": text_fingerprint(backbone, class_names),
        },
        "data": {"train": _digest(clients), "test": _digest([test])},
    }


def _digest(parts: Sequence[FeatureSet]) -> str:
    """Of images, model, labels and who has which: the store's key stands for the first two."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.store.facts.key.encode() + len(part).to_bytes(8, "little"))
        digest.update(part.rows.contiguous().numpy().tobytes() + part.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_unchanged(record: Mapping[str, Any], now: Mapping[str, Any], *, source: str) -> None:
    """Raises InputError if a run goes on with other images, labels or clients than it started with."""
    before = record.get("data")
    changed = [
        name for name, digest in now["data"].items() if not isinstance(before, dict) or before.get(name) != digest
    ]
    if changed:
        raise InputError(
            f"{source}: images, labels or clients ({', '.join(changed)}) have changed since the run started; "
            "restore them, or start a new run in another --out"
        )


def check_sources(record: Mapping[str, Any], sources: Mapping[str, str], *, source: str) -> None:
    """Raises InputError if what the method reads from files is not what it was trained with."""
    trained_with = record.get("sources", {})
    if not isinstance(trained_with, dict) or not all(isinstance(digest, str) for digest in trained_with.values()):
        raise InputError(
            f"{source}: 'sources' in the checkpoint's record is {trained_with!r}, not hashes by file; "
            "restore it from a copy"
        )
    if not trained_with:  # Checkpoints of before any method, or this one, named its sources.
        return
    if changed := [name for name, digest in sources.items() if digest not in trained_with.values()]:
        raise InputError(
            f"{source}: {changed[0]!r} is not what the run was trained with; restore the file, or train again"
        )


def client_names(record: Mapping[str, Any], method: Method, progress: Progress, *, source: str) -> tuple[str, ...]:
    """Names of the clients by number; may be none where no tensor is personal.

    Raises:
        InputError: if the record does not name every client that there may be personal tensors of.
    """
    # Checkpoints of before any method had personal tensors do not name the clients.
    names = record.get("clients", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{source}: 'clients' in the checkpoint's record is {names!r}, not a list of names; restore it from a copy"
        )
    if method.personal and not names:
        raise InputError(f"{source}: the checkpoint's record names no clients; restore it from a copy or train again")
    if nameless := sorted(client for client in progress.personal if not 0 <= client < len(names)):
        raise InputError(
            f"{source}: there are personal tensors of client {nameless[0]}, and 'clients' in the checkpoint's record "
            f"names {len(names)}; restore it from a copy"
        )
    return tuple(names)


def check_record(
    record: Mapping[str, Any], backbone: Backbone, class_names: Sequence[str] | None, *, source: str
) -> None:
    """Raises InputError if a checkpoint was trained for other classes (unless None) or on another backbone."""
    try:
        expected = list(record["class_names"])
        trained_on = record["backbone"]["name"]
        image_side, text_side = record["backbone"]["fingerprint"], record["backbone"]["text_fingerprint"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{source}: the checkpoint's record lacks {error}; restore it from a copy") from error
    if class_names is not None and list(class_names) != expected:
        odd = next(iter(sorted(set(class_names) ^ set(expected))), None)
        what = f"{odd!r} is only in one of them" if odd else "they are in another order"
        raise InputError(
            f"{source} was trained for {len(expected)} classes, the data has {len(class_names)}; {what}. "
            "Give data with the same class list"
        )
    if image_side != fingerprint(backbone) or text_side != text_fingerprint(backbone, expected):
        raise InputError(
            f"{source} was trained on backbone {trained_on!r}, which is not this {backbone.name!r} "
            "or has other weights, tokenizer, number format or preprocessing; give the same one with --backbone"
        )


def save_calibration(folder: Path, calibration: Calibration, class_names: Sequence[str]) -> None:
    rows = zip(
        class_names,
        calibration.thresholds.tolist(),
        calibration.scale.tolist(),
        calibration.bias.tolist(),
        strict=True,
    )
    words = {name: {"threshold": cut, "scale": scale, "bias": bias} for name, cut, scale, bias in rows}
    write_json(folder / "calibration.json", words)


def load_calibration(folder: Path, class_names: Sequence[str]) -> Calibration | None:
    """The calibration stored with a checkpoint; None where training has not come to its end.

    Raises:
        InputError: if the file is damaged or of other classes.
    """
    path = folder / "calibration.json"
    if not path.exists():
        return None
    words = read_json(path)
    try:
        columns = {
            key: torch.tensor([float(words[name][key]) for name in class_names])
            for key in ("threshold", "scale", "bias")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the calibration of these classes ({error!r}); delete it or restore it"
        ) from error
    return Calibration(thresholds=columns["threshold"], scale=columns["scale"], bias=columns["bias"])


def versions() -> dict[str, str]:
    return {"fedmpt": fedmpt.__version__, "python": platform.python_version()} | {
        name: version(name) for name in VERSIONED
    }
