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


def show(arguments: list[str]) -> None:
    options = tyro.cli(ShowOptions, args=arguments, prog="fedmpt conditions show")
    if options.conditions is not None:
        found = find_conditions(options.conditions)
        if options.json:
            print(json.dumps(found.to_json(), indent=2))
        else:
            print_conditions(found)
        return
    sets = [find_conditions(name).to_json() for name in shipped_conditions()]
    if options.json:
        print(json.dumps([{key: each[key] for key in ("name", "hash", "conditions")} for each in sets], indent=2))
        return
    table = Table("name", "conditions")
    for each in sets:
        table.add_row(each["name"], ", ".join(condition["name"] for condition in each["conditions"]))
    Console(highlight=False).print(table)
    print("train with one: fedmpt train --conditions NAME; more of it: fedmpt conditions show NAME")


def print_conditions(found: ConditionSet) -> None:
    """The conditions, and where the set came from."""
    table = Table("condition", "what it is", "words that belong to it", title=Text(found.name), title_justify="left")
    for each in found.conditions:
        table.add_row(Text(each.name), Text(each.description), Text(", ".join(each.cues)), end_section=True)
    console = Console(highlight=False)
    console.print(table)
    for key in ("method", "date", "model"):
        if key in found.provenance:
            value = found.provenance[key]
            said = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else value
            console.print(f"{key}: {said}", markup=False)
    num_sentences = sum(len(described.sentences) for described in sentences_of(found))
    console.print(f"sentences: {num_sentences:,}\nhash: {found.content_hash}")
