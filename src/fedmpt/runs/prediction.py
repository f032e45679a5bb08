"""How a checkpoint predicts, in its small files: prediction.json, calibration.json and the counts of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch

from fedmpt.conditions.labels.counts import LabelCounts, SiteCounts, check_alike, read_counts, write_counts
from fedmpt.conditions.labels.ties import Ties
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import Prediction
from fedmpt.federated.checkpoint import INDEX
from fedmpt.files import read_json, write_json
from fedmpt.types import InputError

PREDICTION, CALIBRATION, COUNTS = "prediction.json", "calibration.json", "counts.json"
GIVEN = "counts-"
"""How names of counts begin that a user gave after the run."""
ROW = ("threshold", "scale", "bias")
"""What calibration.json has of a class: the fields of `Calibration`, in their order."""


@dataclass(frozen=True)
class Stored:
    """How a checkpoint predicts. ``calibration`` is None where training has not come to its end; ``counts`` is the name
    of the file with the labels' counts, which checkpoints of before there was one do not have."""

    options: Prediction
    calibration: Calibration | None
    counts: str


def save_prediction(
    folder: Path,
    options: Prediction,
    calibration: Calibration,
    class_names: Sequence[str],
    *,
    counts: LabelCounts | str = COUNTS,
) -> None:
    """Store how the checkpoint in ``folder`` predicts from now on; ``counts`` are new ones, or a file's name there.

    Files belong together, and a kill may come between them: prediction.json says which counts hold, and has the
    calibration too until calibration.json is the new one.
    """
    table = torch.stack([calibration.thresholds, calibration.scale, calibration.bias], dim=1).tolist()
    rows = {name: dict(zip(ROW, row, strict=True)) for name, row in zip(class_names, table, strict=True)}
    if isinstance(counts, LabelCounts):
        counts = save_given_counts(folder, counts, class_names)
    words: dict[str, Any] = asdict(options) | ({} if counts == COUNTS else {"counts": counts})
    write_json(folder / PREDICTION, {**words, "calibration": rows})
    write_json(folder / CALIBRATION, rows)
    write_json(folder / PREDICTION, words)
    for path in folder.glob(f"{GIVEN}*.json"):
        if path.name != counts:
            path.unlink(missing_ok=True)


def save_given_counts(folder: Path, counts: LabelCounts, class_names: Sequence[str]) -> str:
    """Write counts that were not the run's own; the name of the file, which no file of other counts has."""
    parts = (torch.tensor([counts.num_images]), counts.singles, counts.pairs.flatten(), counts.known.flatten())
    name = f"{GIVEN}{hashlib.sha256(torch.cat(parts).numpy().tobytes()).hexdigest()[:12]}.json"
    save_counts(folder / name, counts, class_names)
    return name


def load_prediction(folder: Path, class_names: Sequence[str], *, otherwise: Prediction | None = None) -> Stored:
    """How a checkpoint predicts. One without prediction.json, whose run has not ended or is older, predicts as the run
    will: ``otherwise``, or as it was trained. Raises InputError if a file is damaged or of other classes."""
    path, calibration = folder / PREDICTION, folder / CALIBRATION
    if not path.exists():
        return Stored(otherwise or Prediction(), _calibration(calibration, None, class_names), COUNTS)
    words = read_json(path)
    try:
        options = Prediction(mix=float(words["mix"]), soft_ties=float(words["soft_ties"]))
        options.check()
        counts = words.get("counts", COUNTS)
        if Path(counts).name != counts:
            raise ValueError(f"{counts!r} is no file of that folder")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not say how to predict ({error!r}); restore it, or delete it and fit anew: fedmpt calibrate"
        ) from error
    return Stored(options, _calibration(calibration, words.get("calibration"), class_names), counts)


def _calibration(path: Path, words: Any, class_names: Sequence[str]) -> Calibration | None:
    """By ``words``, or where they are None by the file."""
    if words is None and not path.exists():
        return None
    words = read_json(path) if words is None else words
    try:
        return Calibration(*(torch.tensor([float(words[name][key]) for name in class_names]) for key in ROW))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the calibration of these classes ({error!r}); delete it or restore it"
        ) from error


def save_counts(path: Path, counts: LabelCounts, class_names: Sequence[str]) -> None:
    """Write the summed counts of all clients' labels."""
    write_counts(path, SiteCounts("all clients", tuple(class_names), counts, noise=None))


def keep_counts(folder: Path, counts: LabelCounts | None, class_names: Sequence[str]) -> None:
    """Write a run's counts, if it has any, where its checkpoint does not have them yet: a run that has not ended may
    have soft ties, too. Call it before the first checkpoint is stored, as a run that goes on takes them from there.

    Counts without a checkpoint are those of a run that was stopped before its first round was stored.
    """
    if counts is not None and not ((folder / COUNTS).exists() and (folder / INDEX).exists()):
        folder.mkdir(parents=True, exist_ok=True)
        save_counts(folder / COUNTS, counts, class_names)


def summed_counts(paths: Sequence[Path], class_names: Sequence[str]) -> LabelCounts:
    """The sum of files of counts. Raises InputError if one is missing, damaged, given twice or of other classes."""
    sites = [read_counts(path) for path in paths]
    check_alike(sites, paths)
    counted = sites[0].class_names
    if counted != tuple(class_names):
        odd = next(iter(sorted(set(counted) ^ set(class_names))), None)
        what = f"{odd!r} is only in one of the lists" if odd else "they are in another order"
        raise InputError(f"{paths[0]} counts other classes than the checkpoint has: {what}; count those at all sites")
    return reduce(add, (site.counts for site in sites))


def load_ties(path: Path, class_names: Sequence[str]) -> Ties:
    """What a checkpoint's counts say of classes together. Raises InputError if the file is missing or of no use."""
    if not path.exists():
        raise InputError(
            f"{path} is missing, and soft ties are made of it; count labels at each site with fedmpt conditions count "
            "and give the files to fedmpt calibrate --counts, or go without: --soft-ties 0"
        )
    return Ties.of(summed_counts([path], class_names))
