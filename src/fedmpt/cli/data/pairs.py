"""``fedmpt data pairs``: the classes that training shows together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cli.cache import cache_folder


@dataclass(frozen=True)
class PairsOptions:
    """List the pairs of classes that training shows together more often than chance would, most biased first.

    They are what context shift is measured on: is b found without a, and is b reported where there is only a? Of data
    with a cut tie, the pairs that were cut.

    For example:

    fedmpt data pairs --data voc:VOCdevkit

    fedmpt data pairs --data voc:VOCdevkit,ties=0.95
    """

    data: str
    """Data set, NAME:PATH, as for train."""
    num_pairs: int = 10
    """Most pairs to list; of a cut tie all are listed."""
    min_joint: int = 15
    """Least number of training images that show both classes."""
    min_test: int = 5
    """Least number of test images of each kind: b alone, both, a alone."""
    json: bool = False
    """Everything as JSON, for machines."""
    cache: Path | None = None
    """Folder for drawn images of scenes; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def pairs(arguments: list[str]) -> None:
    options = tyro.cli(PairsOptions, args=arguments, prog="fedmpt data pairs")
    from fedmpt.data import load_data
    from fedmpt.data.pairs import biased_pairs, measured_pairs
    from fedmpt.types import InputError

    data = load_data(options.data, cache=cache_folder(options.cache), progress=True)
    limits = {name: getattr(options, name) for name in ("num_pairs", "min_joint", "min_test")}
    if data.pairs:
        if idle := [name for name, value in limits.items() if value != getattr(PairsOptions, name)]:
            raise InputError(
                f"--{idle[0].replace('_', '-')} has no effect: of a cut tie all pairs are listed that were cut; "
                "leave it out"
            )
        found = measured_pairs(data, data.test.labels)
    else:
        found = biased_pairs(data.train.labels, data.test.labels, **limits)
    if options.json:
        print(json.dumps(found.to_json(data.class_names), indent=2))
        return
    table = Table(title="pairs a -> b that training shows together")
    for column in ("a", "b", "lift", "train: both", "a alone", "b alone", "test: both", "a alone", "b alone"):
        table.add_column(column, justify="left" if len(table.columns) < 2 else "right", overflow="fold")
    for pair in found.per_pair:
        joint = pair.num_train_joint
        counts = (joint, pair.num_train_context - joint, pair.num_train_target - joint)
        tests = (pair.num_cooccurring, pair.num_context_only, pair.num_exclusive)
        names = (Text(data.class_names[pair.context]), Text(data.class_names[pair.target]))
        table.add_row(*names, f"{pair.lift:.2f}", *(f"{count:,}" for count in (*counts, *tests)))
    Console(soft_wrap=True).print(table)
    for note in data.notes:
        print(f"note: {note}")
    if not data.pairs:  # Those of a cut tie are given; none was looked for.
        print(f"{found.num_biased} pairs are biased, {found.num_measurable} of them have test images enough")
