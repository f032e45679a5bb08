"""``fedmpt conditions attributes``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fedmpt.cache import default_cache
from fedmpt.conditions.options import AttributeOptions
from fedmpt.llm.load import LLMOptions

PROG = "fedmpt conditions attributes"


@dataclass(frozen=True, kw_only=True)
class AttributesCommand:
    """Describe classes with a language model, for FedMVP: a few phrases a class of what one sees of it.

    For example:

    fedmpt conditions attributes --classes classes.txt --llm gpt-4o-mini --out attributes.json

    fedmpt train --method fedmvp --attributes attributes.json --data folder:photos --out runs/a
    """

    out: Path
    """File for the attributes."""
    classes: Path | None = None
    """File with a class name a line, or a JSON list."""
    data: str | None = None
    """Data set, NAME:PATH, for its list of classes."""
    name: str | None = None
    """Name of the list; the name of the --out file unless given."""
    max_requests: int | None = None
    """Answers to ask for at most, repairs included; twice what is needed, and four more, unless given."""
    cache: Path | None = None
    """Folder for answers and data; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    model: Annotated[LLMOptions, tyro.conf.arg(name="")]
    texts: Annotated[AttributeOptions, tyro.conf.arg(name="")] = field(default_factory=AttributeOptions)


def attributes(words: list[str]) -> None:
    options = tyro.cli(AttributesCommand, args=words, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    from fedmpt.records import check_writable

    options.texts.check()
    check_writable(options.out, kind="file")
    try:
        _generate(options, Console(stderr=True, highlight=False, soft_wrap=True))
    except KeyboardInterrupt as stop:
        again = shlex.join([*PROG.split(), *words])
        raise KeyboardInterrupt(f"; answers that came are kept, go on with: {again}") from stop


def _generate(options: AttributesCommand, console: Console) -> None:
    from fedmpt.conditions.describe_classes import generate_attributes, write_attributes
    from fedmpt.conditions_command.asking import open_asker
    from fedmpt.conditions_command.names import class_names_of
    from fedmpt.conditions_command.progress import TerminalAsking, print_usage

    class_names = class_names_of(options.classes, options.data, cache=options.cache or default_cache())
    num_requests = -(-len(class_names) // options.texts.batch)
    most = 2 * num_requests + 4 if options.max_requests is None else options.max_requests
    console.print(f"{len(class_names)} classes in {num_requests} requests, at most {most} with repairs", markup=False)
    with TerminalAsking(console, total=num_requests) as watcher:
        asker = open_asker(options.model, max_requests=most, cache=options.cache, watcher=watcher)
        with asker:
            found = generate_attributes(
                class_names,
                asker,
                options.texts,
                name=options.name or options.out.stem,
                date=datetime.now(UTC).date().isoformat(),
            )
    print_usage(asker.usage, console)
    write_attributes(options.out, found)
    console.print(f"{len(class_names)} classes written to {options.out}", markup=False)
