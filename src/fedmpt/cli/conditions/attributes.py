"""``fedmpt conditions attributes``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.conditions.names import check_one, class_names_of
from fedmpt.conditions.pipeline.options import AttributeOptions
from fedmpt.llm.load import open_model
from fedmpt.llm.options import LLMOptions, check_installed

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


def attributes(arguments: list[str]) -> None:
    options = tyro.cli(AttributesCommand, args=arguments, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    check_installed()
    # Imported late: they need what was checked.
    from fedmpt.cli.conditions.asking import asking, checked_name, saying_how_to_go_on, stderr
    from fedmpt.conditions.pipeline.attributes import generate_attributes, write_attributes

    texts, out, console = options.texts, options.out, stderr()
    texts.check()
    check_one(options.classes, options.data)
    name = checked_name(out, options.name, [options.classes])
    with saying_how_to_go_on([*PROG.split(), *arguments], is_fresh=options.model.fresh):
        model = open_model(options.model)  # First: a wrong key is found sooner than data are loaded.
        classes = class_names_of(options.classes, options.data, cache=cache_folder(options.cache))
        total = -(-len(classes) // texts.batch)
        most = 2 * total + 4 if options.max_requests is None else options.max_requests
        out.parent.mkdir(parents=True, exist_ok=True)
        console.print(f"classes: {len(classes)}, requests: {total}, at most {most} with repairs")
        with asking(model, options.model, total=total, max_requests=most, cache=options.cache) as asker:
            found = generate_attributes(classes, asker, texts, name=name)
        write_attributes(out, found)
    console.print(f"{classes[0]}: {'; '.join(found.attributes[classes[0]])}")
    console.print(f"this and {len(classes) - 1} more written to {out}")
    console.print(f"train with it: fedmpt train --method fedmvp --attributes {shlex.quote(str(out))}")
