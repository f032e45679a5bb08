"""The small files of a run's folder: rounds, versions; and whether a checkpoint fits what is there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import fedmpt
from fedmpt.data.features.fingerprint import text_fingerprint
from fedmpt.data.features.store import FeatureSet, fingerprint
from fedmpt.evaluation.metrics import METRICS
from fedmpt.federated.rounds import Round
from fedmpt.files import write_atomically
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
        self._scored = [line for line in kept if "mAP" in line]

    @property
    def mAP(self) -> dict[int, float]:
        """In percent, by round: of those that the same clients scored as the last one, on the same test images."""
        last = self._scored[-1].get("scored_by") if self._scored else None
        return {line["round"]: line["mAP"] for line in self._scored if line.get("scored_by") == last}

    def append(self, done: Round) -> None:
        line: dict[str, Any] = {
            "round": done.index,
            "clients": list(done.clients),
            "loss": done.loss,
            "learning_rate": done.learning_rate,
            "seconds": round(done.seconds, 3),
        }
        if done.scores is not None:
            line |= {metric: getattr(done.scores, metric) for metric in METRICS}
            self._scored.append(line)
        if done.scored_by is not None:
            line["scored_by"] = list(done.scored_by)
        if done.held_out_mAP is not None:
            line["held_out_mAP"] = done.held_out_mAP
        if done.epsilon is not None:
            line["epsilon"] = done.epsilon
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


def check_unchanged(record: Mapping[str, Any], now: Mapping[str, Any], *, source: str) -> None:
    """Raises InputError if a run goes on with other images, labels or clients than it started with."""
    if changed := [name for name, digest in now["data"].items() if record["data"][name] != digest]:
        raise InputError(
            f"{source}: images, labels or clients ({', '.join(changed)}) have changed since the run started; "
            "restore them, or start a new run in another --out"
        )


def check_trained_on(
    record: Mapping[str, Any], clients: Sequence[FeatureSet], held_out: FeatureSet | None, *, data: str, source: str
) -> None:
    """Raises InputError if a run was trained on other images, labels or clients than those that ``data`` gives."""
    if record["data"]["train"] != digest_of(clients, held_out):
        raise InputError(
            f"{source} was trained on other images, labels or clients than --data {data} gives; give those of the run, "
            f"as they were: --data {record['config']['data']}"
        )


def digest_of(parts: Sequence[FeatureSet], held_out: FeatureSet | None = None) -> str:
    """Of images, model, labels and who has which: the store's key stands for the first two."""
    digest = hashlib.sha256()
    for part in [*parts, *([] if held_out is None else [held_out])]:
        digest.update(part.store.facts.key.encode() + len(part).to_bytes(8, "little"))
        digest.update(part.rows.contiguous().numpy().tobytes() + part.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_sources(record: Mapping[str, Any], sources: Mapping[str, str], *, source: str) -> None:
    """Raises InputError if what the method reads from files is not what it was trained with."""
    trained_with = record.get("sources")  # Checkpoints of before any method, or this one, named its sources have none.
    if trained_with and (changed := [name for name in sources if sources[name] not in trained_with.values()]):
        raise InputError(
            f"{source}: {changed[0]!r} is not what the run was trained with; restore the file, or train again"
        )


def check_revision(record: Mapping[str, Any], revision: int, *, source: str) -> None:
    """Raises InputError if the method that made a checkpoint has changed since, see `MethodConfig.revision`."""
    if record.get("revision", 1) != revision:
        name = record["config"]["method"]["name"]
        raise InputError(f"{source}: the tensors of {name} mean something else in this version of fedmpt; train again")


def fingerprints(backbone: Backbone, class_names: Sequence[str]) -> dict[str, str]:
    """Of both sides of a backbone, as a checkpoint's record has them."""
    return {"fingerprint": fingerprint(backbone), "text_fingerprint": text_fingerprint(backbone, class_names)}


def check_record(
    record: Mapping[str, Any], backbone: Backbone, class_names: Sequence[str] | None, *, source: str
) -> None:
    """Raises InputError if a checkpoint was trained for other classes (unless None) or on another backbone."""
    expected, trained_on = list(record["class_names"]), record["backbone"]
    if class_names is not None and list(class_names) != expected:
        odd = next(iter(sorted(set(class_names) ^ set(expected))), None)
        what = f"{odd!r} is only in one of them" if odd else "they are in another order"
        raise InputError(
            f"{source} was trained for {len(expected)} classes, the data has {len(class_names)}; {what}. "
            "Give data with the same class list"
        )
    if any(trained_on[side] != now for side, now in fingerprints(backbone, expected).items()):
        raise InputError(
            f"{source} was trained on backbone {trained_on['name']!r}, which is not this {backbone.name!r} "
            "or has other weights, tokenizer, number format or preprocessing; give the same one with --backbone"
        )


def versions() -> dict[str, str]:
    own = {"fedmpt": fedmpt.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in VERSIONED}
