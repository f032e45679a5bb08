"""``fedmpt conditions show``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.conditions.record import ConditionSet, find_conditions, sentences_of, shipped_conditions


@dataclass(frozen=True)
class ShowOptions:
    """List the sets of conditions that come with the package, or print one set and where it came from.

    For example:

    fedmpt conditions show

    fedmpt conditions show voc2007

    fedmpt conditions show conditions.json --json
    """

    conditions: tyro.conf.Positional[str | None] = None
    """Name of a shipped set or path of a file; all shipped ones unless given."""
    json: bool = False
    """JSON, for machines."""


def show(words: list[str]) -> None:
    options = tyro.cli(ShowOptions, args=words, prog="fedmpt conditions show")
    if options.conditions is not None:
        found = find_conditions(options.conditions)
        if options.json:
            print(json.dumps(found.to_json(), indent=2))
        else:
            print_conditions(found)
        return
    sets = [find_conditions(name) for name in shipped_conditions()]
    if options.json:
        listed = [{key: value for key, value in found.to_json().items() if key != "provenance"} for found in sets]
        print(json.dumps(listed, indent=2))
        return
    table = Table(title="shipped sets of conditions", title_justify="left")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("conditions")
    for found in sets:
        table.add_row(found.name, Text(", ".join(found.names)))
    console = Console(highlight=False)
    console.print(table)
    console.print("train with one: fedmpt train --conditions NAME")
    console.print("where it came from: fedmpt conditions show NAME")


def print_conditions(found: ConditionSet) -> None:
    """A table, and where the set came from."""
    table = Table(title=Text(found.name), title_justify="left", show_lines=True)
    table.add_column("condition", style="bold")
    table.add_column("what it is")
    table.add_column("words that belong to it", style="dim")
    for each in found.conditions:
        table.add_row(Text(each.name), Text(each.description), Text(", ".join(each.cues)))
    console = Console(highlight=False)
    console.print(table)
    for key in ("method", "date", "model"):
        if key in found.provenance:
            value = found.provenance[key]
            said = ", ".join(f"{key} {value}" for key, value in value.items()) if isinstance(value, dict) else value
            console.print(f"{key}: {said}", markup=False)
    if sentences := [text for described in sentences_of(found) for text in described.sentences]:
        combinations = found.provenance.get("combinations")
        where = combinations.get("from") if isinstance(combinations, dict) else None
        origin = f", about combinations of classes from {where}" if where else ""
        console.print(f"sentences: {len(sentences):,}{origin}", markup=False)
    console.print(f"hash: {found.content_hash}")
