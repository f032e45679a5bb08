"""``fedmpt predict``: labels of image files."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console


@dataclass(frozen=True)
class PredictOptions:
    """Print the labels of images with their probabilities.

    For example:

    fedmpt predict --checkpoint runs/a/checkpoint photo.jpg

    fedmpt predict --checkpoint runs/a/checkpoint --json *.jpg > labels.json

    fedmpt predict photo.jpg --checkpoint runs/a/checkpoint --add-classes zebra "traffic light"
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    checkpoint: Path
    """Checkpoint folder of a run."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    soft_ties: float | None = None
    """Hold back classes in doubt so strongly, 0 or more, this time; as stored with the checkpoint unless given. Another
    value than the stored one has no thresholds of its own: fedmpt calibrate fits and stores them."""
    add_classes: tuple[str, ...] = ()
    """Also tag with classes that training never saw, for example --add-classes zebra "traffic light"; give the images
    before. Their threshold is 0.5."""
    json: bool = False
    """One JSON list with every class of every image, for machines."""
    top: int = 3
    """Also show so many of the most probable classes when fewer are over their threshold."""


def predict(arguments: list[str]) -> None:
    options = tyro.cli(PredictOptions, args=arguments, prog="fedmpt predict")
    from fedmpt.inference.tagger import load_trained
    from fedmpt.types import InputError

    if not options.images:
        before = ", before --add-classes" if options.add_classes else ""
        raise InputError(f"give at least one image file{before}")
    if options.top < 0:
        raise InputError(f"--top must not be negative, got {options.top}")
    tagger = load_trained(
        options.checkpoint, backbone=options.backbone, device=options.device, soft_ties=options.soft_ties
    )
    if options.add_classes:
        tagger = tagger.with_classes(options.add_classes)
    for note in tagger.notes:
        print(f"note: {note}", file=sys.stderr)
    found = list(tagger.tag(options.images))
    if options.json:
        labels = [{"image": str(path), "labels": list(map(dataclasses.asdict, row))} for path, row in found]
        print(json.dumps(labels, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    for path, row in found:
        console.print(str(path), style="bold", markup=False)
        for label in (label for rank, label in enumerate(row) if label.present or rank < options.top):
            below = "" if label.present else "  (below threshold)"
            console.print(f"  {label.probability:6.1%}  {label.name}{below}", markup=False)
