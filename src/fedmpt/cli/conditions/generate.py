"""``fedmpt conditions generate``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.llm.load import LLMOptions

if TYPE_CHECKING:
    from fedmpt.cli.conditions.source import Source
    from fedmpt.conditions.record import ConditionSet
    from fedmpt.llm.asking import Limits
    from fedmpt.llm.model import LanguageModel

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

    fedmpt conditions generate --classes classes.txt --llm exchange:prompts --out c.json --per-request 40
    --max-tokens 8192 --context-tokens 65536
    """

    out: Path
    """File for the conditions; then use it as fedmpt train --conditions FILE."""
    classes: Path | None = None
    """File with a class name a line, or a JSON list. Combinations are then drawn."""
    data: str | None = None
    """Data set, NAME:PATH, as in fedmpt train: combinations come from the labels of its training images."""
    counts: tuple[Path, ...] = ()
    """Files that fedmpt conditions count wrote, one of each site; pairs, but no triples, come from them."""
    name: str | None = None
    """Name of the set; the name of the --out file unless given."""
    budget: int = 400
    """Combinations of classes to describe at most: single ones, frequent and surprising pairs and triples."""
    max_requests: int = 100
    """Answers to ask for at most, repairs included. Combinations that would need more are left out."""
    min_images: int = 5
    """Pairs and triples in fewer images than this are not sent: they might point at single people. Only with --data or
    --counts."""
    epsilon: float | None = None
    """Have each client of --data add noise to its counts, for differential privacy of its images; smaller is more
    private. Without it, whoever adds up the counts sees them exactly."""
    dry_run: bool = False
    """Say what would be asked, with the first request in full, and ask nothing; needs no --llm."""
    cache: Path | None = None
    """Folder for answers and data; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    # Not required: a dry run does without.
    model: Annotated[LLMOptions, tyro.conf.arg(name="")] = field(default_factory=lambda: LLMOptions(llm=""))
    texts: Annotated[GenerateOptions, tyro.conf.arg(name="")] = field(default_factory=GenerateOptions)


def generate(words: list[str]) -> None:
    options = tyro.cli(GenerateCommand, args=words, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    from fedmpt.cli.conditions.asking import open_chosen, saying_how_to_go_on

    _check(options)
    if options.dry_run:
        _print_plan(_source(options), options)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with saying_how_to_go_on([*PROG.split(), *words], is_fresh=options.model.fresh):
        model, limits = open_chosen(options.model, max_requests=options.max_requests)
        source = _source(options)
        # Now, so that no answer is paid for that leads to nothing.
        options.out.parent.mkdir(parents=True, exist_ok=True)
        _write(_found(source, options, model, limits, console), options, console)


def _check(options: GenerateCommand) -> None:
    """What can be said before any work."""
    from fedmpt.cli.conditions.source import check_source
    from fedmpt.conditions.document import TEXT, is_text, shortened
    from fedmpt.conditions.pipeline.generate import fitting_combinations
    from fedmpt.runs.records import check_writable
    from fedmpt.types import InputError

    options.texts.check()
    fitting_combinations(options.max_requests, options.texts)
    check_source(
        classes=options.classes,
        data=options.data,
        counts=options.counts,
        budget=options.budget,
        min_images=options.min_images,
        epsilon=options.epsilon,
    )
    check_writable(options.out, kind="file")
    if not is_text(_name(options)):
        raise InputError(f"--name is {shortened(_name(options))}; expected {TEXT}")
    inputs = [path.resolve() for path in (options.classes, *options.counts) if path is not None]
    if options.out.resolve() in inputs:
        raise InputError(f"--out {options.out} is a file that is read; give another one")
    if options.out.suffix.lower() != ".json":
        raise InputError(f"--out {options.out} must end in .json: --conditions takes any other word for a condition")


def _name(options: GenerateCommand) -> str:
    return options.out.stem if options.name is None else options.name


def _source(options: GenerateCommand) -> Source:
    from fedmpt.cli.conditions.source import find_source
    from fedmpt.conditions.pipeline.generate import fitting_combinations

    return find_source(
        classes=options.classes,
        data=options.data,
        counts=options.counts,
        budget=min(options.budget, fitting_combinations(options.max_requests, options.texts)),
        min_images=options.min_images,
        epsilon=options.epsilon,
        seed=options.texts.seed,
        cache=cache_folder(options.cache),
    )


def _found(
    source: Source, options: GenerateCommand, model: LanguageModel, limits: Limits, console: Console
) -> ConditionSet:
    from fedmpt.cli.conditions.asking import asker_of
    from fedmpt.cli.conditions.progress import TerminalAsking, print_usage
    from fedmpt.conditions.pipeline.generate import generate as find
    from fedmpt.conditions.pipeline.generate import plan

    planned = plan(len(source.combinations), options.texts, options.max_requests)
    for line in _introduction(source, options):
        console.print(line, markup=False)
    watcher = TerminalAsking(console, total=planned.total)
    asker = asker_of(model, limits, cache=options.cache, watcher=watcher)
    try:
        with watcher, asker:
            return find(
                source.class_names,
                source.combinations,
                asker,
                options.texts,
                name=_name(options),
                combinations_from=source.where,
                date=datetime.now(UTC).date().isoformat(),
            )
    finally:
        print_usage(asker.usage, console)


def _introduction(source: Source, options: GenerateCommand) -> list[str]:
    from fedmpt.conditions.pipeline.generate import plan

    planned = plan(len(source.combinations), options.texts, options.max_requests)
    return [
        f"{len(source.class_names)} classes; combinations: {source.in_words}",
        *(f"note: {note}" for note in source.notes),
        f"plan: {planned.words}",
    ]


def _write(found: ConditionSet, options: GenerateCommand, console: Console) -> None:
    from fedmpt.cli.conditions.show import print_conditions
    from fedmpt.conditions.checks import check_conditions
    from fedmpt.conditions.record import write_conditions

    write_conditions(options.out, found)
    print_conditions(found)
    for note in found.provenance["left_out"]:
        console.print(f"left out: {note['number']} {note['what']} to {note['stage']}: {note['why']}", markup=False)
    for problem in check_conditions(found, class_names=found.provenance["classes"]).problems:
        console.print(f"look at this: {problem}", markup=False)
    file = shlex.quote(str(options.out))
    console.print(f"written to {options.out}", markup=False)
    console.print(f"train with it: fedmpt train --conditions {file}", markup=False)
    console.print(f"what a text tower makes of it: fedmpt conditions check {file} --backbone MODEL", markup=False)


def _print_plan(source: Source, options: GenerateCommand) -> None:
    from fedmpt.conditions.pipeline.generate import prompts_preview

    print(*_introduction(source, options), sep="\n")
    print("\nnothing was asked; the first request would be:")
    for message in prompts_preview(source.class_names, source.combinations, options.texts):
        print(f"\n--- {message.role}\n{message.content}")
