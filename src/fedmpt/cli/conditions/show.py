"""``fedmpt conditions show``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.conditions.pipeline.reading import printable
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
    if options.conditions is None:
        _list([find_conditions(name) for name in shipped_conditions()], as_json=options.json)
        return
    found = find_conditions(options.conditions)
    if options.json:
        print(json.dumps({**_facts(found), "provenance": found.provenance}, indent=2))
    else:
        print_conditions(found)


def _facts(found: ConditionSet) -> dict[str, object]:
    listed = [
        {"name": each.name, "description": each.description, "cues": list(each.cues)} for each in found.conditions
    ]
    return {"name": found.name, "hash": found.content_hash, "conditions": listed}


def _list(sets: list[ConditionSet], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_facts(found) for found in sets], indent=2))
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
    for key in ("method", "date"):
        if key in found.provenance:
            console.print(f"{key}: {printable(str(found.provenance[key]))}", markup=False)
    if "model" in found.provenance:
        model = found.provenance["model"]
        said = ", ".join(f"{key} {value}" for key, value in model.items()) if isinstance(model, dict) else model
        console.print(f"model: {printable(str(said))}", markup=False)
    if sentences := [text for described in sentences_of(found) for text in described.sentences]:
        console.print(f"sentences: {len(sentences):,}{_origin(found)}", markup=False)
    console.print(f"hash: {found.content_hash}")


def _origin(found: ConditionSet) -> str:
    """Where the combinations of classes come from, as far as the record says."""
    combinations = found.provenance.get("combinations")
    where = combinations.get("from") if isinstance(combinations, dict) else None
    return f", about combinations of classes from {printable(where)}" if isinstance(where, str) else ""
