"""``fedmpt conditions attributes``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.conditions.pipeline.options import AttributeOptions
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
    from fedmpt.cli.conditions.asking import saying_how_to_go_on

    _check(options)
    with saying_how_to_go_on([*PROG.split(), *words], is_fresh=options.model.fresh):
        _generate(options, Console(stderr=True, highlight=False, soft_wrap=True))


def _check(options: AttributesCommand) -> None:
    """What can be said before any work."""
    from fedmpt.cli.conditions.names import check_one
    from fedmpt.conditions.document import TEXT, is_text, shortened
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    options.texts.check()
    check_one(options.classes, options.data)
    check_writable(options.out, kind="file")
    if not is_text(_name(options)):
        raise InputError(f"--name is {shortened(_name(options))}; expected {TEXT}")
    if options.classes is not None and options.out.resolve() == options.classes.resolve():
        raise InputError(f"--out {options.out} is a file that is read; give another one")


def _name(options: AttributesCommand) -> str:
    return options.out.stem if options.name is None else options.name


def _generate(options: AttributesCommand, console: Console) -> None:
    from fedmpt.cli.conditions.asking import asker_of, open_chosen
    from fedmpt.cli.conditions.names import class_names_of
    from fedmpt.cli.conditions.progress import TerminalAsking, counted, print_usage
    from fedmpt.conditions.pipeline.describe_classes import generate_attributes, write_attributes

    # Opened first, as a wrong key is found sooner than data are loaded; how much is needed shows then.
    model, limits = open_chosen(options.model, max_requests=options.max_requests)
    class_names = class_names_of(options.classes, options.data, cache=cache_folder(options.cache))
    num_requests = -(-len(class_names) // options.texts.batch)
    most = 2 * num_requests + 4 if options.max_requests is None else options.max_requests
    options.out.parent.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{len(class_names)} classes in {counted(num_requests, 'request')}, at most {most} with repairs", markup=False
    )
    watcher = TerminalAsking(console, total=num_requests)
    asker = asker_of(model, replace(limits, max_requests=most), cache=options.cache, watcher=watcher)
    try:
        with watcher, asker:
            found = generate_attributes(
                class_names,
                asker,
                options.texts,
                name=_name(options),
                date=datetime.now(UTC).date().isoformat(),
            )
    finally:
        print_usage(asker.usage, console)
    write_attributes(options.out, found)
    console.print(f"{class_names[0]}: {'; '.join(found.attributes[class_names[0]])}", markup=False)
    console.print(f"this and {len(class_names) - 1} more written to {options.out}", markup=False)
    file = shlex.quote(str(options.out))
    console.print(f"train with it: fedmpt train --method fedmvp --attributes {file}", markup=False)
