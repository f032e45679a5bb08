"""``fedmpt conditions count``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from fedmpt.cli.cache import cache_folder

MAX_LABELS = 5


@dataclass(frozen=True, kw_only=True)
class CountOptions:
    """Count, at one site, how many images show each class and each pair of classes, for conditions that fit all sites.

    The file holds these numbers, those of images whose label of a class is known, and the names of the classes, nothing
    else. Whoever gets it learns them exactly, so a pair that is counted once says that this site has such an image;
    --epsilon adds noise.

    For example:

    fedmpt conditions count --data folder:photos --name "hospital A" --epsilon 2 --out hospital-a.json

    fedmpt conditions generate --counts hospital-a.json hospital-b.json --llm gpt-4o-mini --out conditions.json
    """

    data: str
    """Data set, NAME:PATH, as in fedmpt train: its training images are counted."""
    out: Path
    """File for the counts."""
    name: str | None = None
    """Name of the site; the name of the --out file unless given."""
    epsilon: float | None = None
    """Differential privacy of single images, by noise; smaller is more private. Each time the same images are counted
    costs as much again."""
    max_labels: int = MAX_LABELS
    """With --epsilon, so many classes of an image are counted at most, drawn at random; more need more noise."""
    cache: Path | None = None
    """Folder for data; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def count(arguments: list[str]) -> None:
    options = tyro.cli(CountOptions, args=arguments, prog="fedmpt conditions count")
    # Imported late: help and mistyped options must not wait for torch.
    from fedmpt.conditions.document import check_text
    from fedmpt.conditions.labels.counts import Noise, SiteCounts, count_labels, write_counts
    from fedmpt.data import load_data
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    if options.epsilon is None and options.max_labels != MAX_LABELS:
        raise InputError(f"--max-labels {options.max_labels} is for counts with noise; give --epsilon too")
    noise = None if options.epsilon is None else Noise(options.epsilon, options.max_labels)
    check_writable(options.out, kind="file")
    name = options.out.stem if options.name is None else options.name
    check_text("--name", name)
    data = load_data(options.data, cache=cache_folder(options.cache), progress=True)
    write_counts(options.out, SiteCounts(name, data.class_names, count_labels(data.train.labels, noise=noise), noise))
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    said = "exact numbers" if noise is None else f"numbers with noise (epsilon {noise.epsilon:g})"
    counted = f"{len(data.train)} images, {len(data.class_names)} classes"
    print(f"{counted}: {said} written to {options.out}", file=sys.stderr)
    if noise is None:
        exact = "a pair counted once says that one image here has both; --epsilon adds noise"
        print(f"note: whoever gets the file learns these numbers exactly: {exact}", file=sys.stderr)
