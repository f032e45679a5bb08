"""`fedmpt conditions score`: what a trained model's conditions are worth, and how many the data support."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class ScoreOptions:
    """Measure how much FedMPT's gate uses each condition, how their predictions differ, and what is lost without each.

    From that a number of conditions is suggested, and the command to train with them. Choose it on training images,
    or better on images the run held out (--split validation). Chosen on test images, the number would know the test
    labels, and the test score reported for it would be too good.

    For example:

    fedmpt conditions score --checkpoint runs/a/checkpoint --data voc:VOCdevkit

    fedmpt conditions score --checkpoint runs/a/checkpoint --data voc:VOCdevkit --split validation --plot scores.png
    """

    checkpoint: Path
    """Checkpoint folder of a run of fedmpt."""
    data: str
    """Data set, NAME:PATH; its classes must be those the checkpoint was trained for."""
    split: Literal["train", "validation", "test"] = "train"
    """Images to score on. train: those the run was trained on, with the labels it saw; validation: those it held out
    (train --validation); test: to look at, not to choose by."""
    by: Literal["drop", "gate"] = "drop"
    """What the suggestion goes by. drop: the fewest conditions whose mAP is within --tolerance of all; gate: the
    effective number of the gate's mean weights, rounded up."""
    tolerance: float = 0.2
    """Points of mAP that fewer conditions may cost."""
    images: int | None = None
    """Score on so many images, drawn once and for all, instead of on all. About 30 bytes of memory are needed for each
    image, condition and class."""
    out: Path | None = None
    """File (JSON) for everything, the tables of all pairs too."""
    plot: Path | None = None
    """Picture (.png, .svg or .pdf): the gate's use, differences, mAP by number. Needs fedmpt[report]."""
    json: bool = False
    """Everything as JSON, for machines."""
    backbone: str | None = None
    """Frozen model, if it is not where the run found it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def score(arguments: list[str]) -> None:
    options = tyro.cli(ScoreOptions, args=arguments, prog="fedmpt conditions score")
    # Imported late: help and mistyped options must not wait for torch.
    from fedmpt.cli.conditions.score_report import print_scores, report_of
    from fedmpt.files import write_json
    from fedmpt.report.condition_plot import plot_condition_scores
    from fedmpt.report.plots import check_plot
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    if not 0 <= options.tolerance < math.inf:
        raise InputError(f"--tolerance must be in points of mAP, 0 or more; got {options.tolerance}")
    if options.images is not None and options.images < 1:
        raise InputError(f"--images must be positive, got {options.images}")
    if options.out is not None:
        check_writable(options.out, kind="file")
    if options.plot is not None:
        check_plot(options.plot)
    report = report_of(options)
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_scores(report)
    lines = [f"left out, cannot be read: {path}" for path in report["skipped_images"]]
    for out, write in ((options.out, write_json), (options.plot, plot_condition_scores)):
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write(out, report)
            lines.append(f"written to {out}")
    for line in lines:
        print(line, file=sys.stderr)
