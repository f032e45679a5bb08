"""``fedmpt conditions check``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.conditions.checks.findings import Findings
    from fedmpt.conditions.record import ConditionSet


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Look at conditions without a language model.

    Says which have a class in their name, how long prompts get, whether the text tower takes two conditions for the
    same or hardly sees a difference at all, and how many of the sentences speak of each.

    For example:

    fedmpt conditions check conditions.json

    fedmpt conditions check generic --data voc:VOCdevkit --backbone openai/clip-vit-base-patch16
    """

    conditions: tyro.conf.Positional[str]
    """Name of a shipped set or path of a file."""
    classes: Path | None = None
    """File with a class name a line, or a JSON list; the classes that the set was made for unless given."""
    data: str | None = None
    """Data set, NAME:PATH, for its list of classes."""
    backbone: str | None = None
    """Frozen model whose text tower is asked, as in fedmpt train."""
    json: bool = False
    """JSON, for machines."""
    cache: Path | None = None
    """Folder for data; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def check(words: list[str]) -> None:
    options = tyro.cli(CheckOptions, args=words, prog="fedmpt conditions check")
    from fedmpt.conditions.checks.findings import check_conditions
    from fedmpt.conditions.record import find_conditions

    found = find_conditions(options.conditions)
    class_names = _class_names(options, found)
    backbone = None
    if options.backbone is not None:
        from fedmpt.backbone import load_backbone

        backbone = load_backbone(options.backbone)
    findings = check_conditions(found, class_names=class_names, backbone=backbone)
    if options.json:
        print(json.dumps(findings.to_json(), indent=2))
    else:
        _print(found, findings)


def _class_names(options: CheckOptions, found: ConditionSet) -> tuple[str, ...] | None:
    from fedmpt.cli.conditions.names import class_names_of

    if options.classes is not None or options.data is not None:
        return class_names_of(options.classes, options.data, cache=cache_folder(options.cache))
    listed = found.provenance.get("classes")
    is_list = isinstance(listed, list) and all(isinstance(name, str) for name in listed)
    return tuple(listed) if is_list and listed else None


def _print(found: ConditionSet, findings: Findings) -> None:
    lengths, overlap, covered = findings.lengths, findings.overlap, findings.coverage
    table = Table(title=Text(f"conditions of {found.name}"), title_justify="left")
    table.add_column("condition", style="bold")
    rows = [[Text(name)] for name in found.names]
    if lengths is not None:
        table.add_column("tokens", justify="right")
        for row, name in zip(rows, found.names, strict=True):
            row.append(Text(str(lengths.names[name])))
    if covered is not None:
        table.add_column("sentences that speak of it", justify="right")
        for row, name in zip(rows, found.names, strict=True):
            row.append(Text(f"{covered.shares[name]:.0%}"))
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    if lengths is not None:
        console.print(f"longest prompt: {lengths.longest} of {lengths.limit} tokens", markup=False)
    if overlap is not None and overlap.difference is not None:
        console.print(
            f"prompts of a class under two conditions differ by {overlap.difference:.2%} of what two classes differ by",
            markup=False,
        )
    if covered is not None:
        console.print(f"{covered.covered:.0%} of {covered.num_sentences} sentences speak of a condition", markup=False)
    for problem in findings.problems:
        console.print(f"look at this: {problem}", markup=False)
    if not findings.problems:
        left = [] if overlap else ["--backbone to see what a text tower makes of the names"]
        console.print("nothing found against it" + (f"; give {left[0]}" if left else ""), markup=False)
