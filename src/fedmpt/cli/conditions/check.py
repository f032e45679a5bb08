"""``fedmpt conditions check``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
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
    backbone = encode = None
    if options.backbone is not None:
        from fedmpt.backbone import load_backbone
        from fedmpt.backbone.text_tower import TextTower
        from fedmpt.methods.parts.prompts import hand_written_features

        backbone = load_backbone(options.backbone)
        encode = partial(hand_written_features, TextTower(backbone))
    findings = check_conditions(found, class_names=_class_names(options, found), backbone=backbone, encode=encode)
    if options.json:
        print(json.dumps(asdict(findings), indent=2))
    else:
        _print(found, findings)


def _class_names(options: CheckOptions, found: ConditionSet) -> tuple[str, ...] | None:
    from fedmpt.cli.conditions.names import class_names_of

    if options.classes is not None or options.data is not None:
        return class_names_of(options.classes, options.data, cache=cache_folder(options.cache))
    return tuple(found.provenance.get("classes", ())) or None


def _print(found: ConditionSet, findings: Findings) -> None:
    lengths, overlap, covered = findings.lengths, findings.overlap, findings.coverage
    table = Table(title=Text(f"conditions of {found.name}"), title_justify="left")
    table.add_column("condition", style="bold")
    rows = [[name] for name in found.names]
    lines = []
    if lengths is not None:
        table.add_column("tokens", justify="right")
        rows = [[*row, str(lengths["names"][row[0]])] for row in rows]
        lines.append(f"longest prompt: {lengths['longest']} of {lengths['limit']} tokens")
    if overlap is not None and overlap["difference"] is not None:
        moved = f"{overlap['difference']:.2%}"
        lines.append(f"prompts of a class under two conditions differ by {moved} of what two classes differ by")
    if covered is not None:
        table.add_column("sentences that speak of it", justify="right")
        rows = [[*row, f"{covered['shares'][row[0]]:.0%}"] for row in rows]
        lines.append(f"{covered['covered']:.0%} of {covered['num_sentences']} sentences speak of a condition")
    for row in rows:
        table.add_row(*map(Text, row))
    lines += [f"look at this: {problem}" for problem in findings.problems]
    if not findings.problems:
        more = "" if overlap else "; give --backbone to see what a text tower makes of the names"
        lines.append(f"nothing found against it{more}")
    console = Console(highlight=False)
    console.print(table)
    for line in lines:
        console.print(line, markup=False)
