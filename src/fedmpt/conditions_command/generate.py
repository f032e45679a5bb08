"""``fedmpt conditions generate``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from fedmpt.cache import default_cache
from fedmpt.conditions.options import GenerateOptions
from fedmpt.llm.load import LLMOptions

if TYPE_CHECKING:
    from fedmpt.conditions.record import ConditionSet
    from fedmpt.conditions_command.source import Source

PROG = "fedmpt conditions generate"


@dataclass(frozen=True, kw_only=True)
class GenerateCommand:
    """Find conditions for a set of classes with a language model, and write them with all that led to them.

    Classes, and which of them come together, are taken from --data, from --counts of several sites, or from --classes,
    a plain list. Nothing but class names and texts goes to the language model. Answers are kept: a second run, or one
    after a crash, asks only what is missing.

    For example:

    fedmpt conditions generate --data voc:VOCdevkit --llm gpt-4o-mini --out conditions.json

    fedmpt conditions generate --classes classes.txt --llm qwen2.5 --endpoint http://localhost:11434/v1 --out c.json

    fedmpt conditions generate --classes classes.txt --llm model.gguf --per-request 1 --budget 40 --out c.json

    fedmpt conditions generate --classes classes.txt --llm exchange:prompts --per-request 40 --out c.json
    """

    out: Path
    """File for the conditions; then use it as fedmpt train --conditions FILE."""
    classes: Path | None = None
    """File with a class name a line, or a JSON list. Combinations are then drawn."""
    data: str | None = None
    """Data set, NAME:PATH, as in fedmpt train: combinations come from the labels of its training images."""
    counts: tuple[Path, ...] = ()
    """Files that fedmpt conditions count wrote, one of each site."""
    name: str | None = None
    """Name of the set; the name of the --out file unless given."""
    budget: int = 400
    """Combinations of classes to describe at most: single ones, frequent and surprising pairs and triples."""
    max_requests: int = 100
    """Answers to ask for at most, repairs included."""
    min_images: int = 5
    """Pairs and triples in fewer images than this are not sent: they might point at single people. Only with --data or
    --counts."""
    epsilon: float | None = None
    """Have each client of --data add noise to its counts, for differential privacy of its images; smaller is more
    private. Without it, whoever adds up the counts sees them exactly."""
    dry_run: bool = False
    """Say what would be asked, with the first request in full, and ask nothing."""
    cache: Path | None = None
    """Folder for answers and data; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    model: Annotated[LLMOptions, tyro.conf.arg(name="")]
    texts: Annotated[GenerateOptions, tyro.conf.arg(name="")] = field(default_factory=GenerateOptions)


def generate(words: list[str]) -> None:
    options = tyro.cli(GenerateCommand, args=words, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    from fedmpt.conditions.pipeline import fitting_combinations
    from fedmpt.conditions_command.source import find_source
    from fedmpt.records import check_writable

    options.texts.check()
    check_writable(options.out, kind="file")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    budget = min(options.budget, fitting_combinations(options.max_requests, options.texts))
    source = find_source(
        classes=options.classes,
        data=options.data,
        counts=options.counts,
        budget=budget,
        min_images=options.min_images,
        epsilon=options.epsilon,
        seed=options.texts.seed,
        cache=options.cache or default_cache(),
    )
    if options.dry_run:
        _print_plan(source, options)
        return
    try:
        _write(_found(source, options, console), options, console)
    except KeyboardInterrupt as stop:
        again = shlex.join([*PROG.split(), *words])
        raise KeyboardInterrupt(f"; answers that came are kept, go on with: {again}") from stop


def _found(source: Source, options: GenerateCommand, console: Console) -> ConditionSet:
    from fedmpt.conditions.pipeline import generate as find
    from fedmpt.conditions.pipeline import plan
    from fedmpt.conditions_command.asking import open_asker
    from fedmpt.conditions_command.progress import TerminalAsking, print_usage

    planned = plan(len(source.combinations), options.texts, options.max_requests)
    console.print(f"{len(source.class_names)} classes; combinations: {source.in_words}", markup=False)
    for note in source.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"plan: {planned.words}", markup=False)
    with TerminalAsking(console, total=planned.total) as watcher:
        asker = open_asker(options.model, max_requests=options.max_requests, cache=options.cache, watcher=watcher)
        with asker:
            found = find(
                source.class_names,
                source.combinations,
                asker,
                options.texts,
                name=options.name or options.out.stem,
                combinations_from=source.where,
                date=datetime.now(UTC).date().isoformat(),
            )
    print_usage(asker.usage, console)
    return found


def _write(found: ConditionSet, options: GenerateCommand, console: Console) -> None:
    from fedmpt.conditions.checks import check_conditions
    from fedmpt.conditions.record import write_conditions
    from fedmpt.conditions_command.show import print_conditions

    write_conditions(options.out, found)
    print_conditions(found)
    for note in found.provenance.get("left_out", []):
        console.print(f"left out: {note}", markup=False)
    for problem in check_conditions(found, class_names=found.provenance["classes"]).problems:
        console.print(f"look at this: {problem}", markup=False)
    console.print(
        f"written to {options.out}; how a model's text tower sees them: fedmpt conditions check", markup=False
    )


def _print_plan(source: Source, options: GenerateCommand) -> None:
    from fedmpt.conditions.pipeline import plan, prompts_preview

    planned = plan(len(source.combinations), options.texts, options.max_requests)
    print(f"{len(source.class_names)} classes; combinations: {source.in_words}")
    for note in source.notes:
        print(f"note: {note}")
    print(f"plan: {planned.words}\n\nthe first request:")
    for message in prompts_preview(source.class_names, source.combinations, options.texts):
        print(f"\n--- {message.role}\n{message.content}")
