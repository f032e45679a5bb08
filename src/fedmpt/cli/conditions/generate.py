"""``fedmpt conditions generate``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.conditions.source import Source, SourceOptions, find_source
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.llm.options import LLMOptions, check_installed, open_model

if TYPE_CHECKING:
    from fedmpt.conditions.record import ConditionSet
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
    source: Annotated[SourceOptions, tyro.conf.arg(name="")] = field(default_factory=SourceOptions)
    name: str | None = None
    """Name of the set; the name of the --out file unless given."""
    max_requests: int = 100
    """Answers to ask for at most, repairs included. Combinations that would need more are left out."""
    dry_run: bool = False
    """Say what would be asked, with the first request in full, and ask nothing; needs no --llm."""
    cache: Path | None = None
    """Folder for answers and data; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    # Not required: a dry run does without.
    model: Annotated[LLMOptions, tyro.conf.arg(name="")] = field(default_factory=lambda: LLMOptions(llm=""))
    texts: Annotated[GenerateOptions, tyro.conf.arg(name="")] = field(default_factory=GenerateOptions)


def generate(words: list[str]) -> None:
    options = tyro.cli(GenerateCommand, args=words, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    check_installed()
    from fedmpt.cli.conditions.asking import saying_how_to_go_on, stderr
    from fedmpt.conditions.pipeline.generate import prompts_preview

    _check(options)
    if options.dry_run:
        source = _source(options)
        print(*_introduction(source, options), sep="\n")
        print("\nnothing was asked; the first request would be:")
        for message in prompts_preview(source.class_names, source.combinations, options.texts):
            print(f"\n--- {message.role}\n{message.content}")
        return
    with saying_how_to_go_on([*PROG.split(), *words], is_fresh=options.model.fresh):
        model = open_model(options.model)
        source = _source(options)
        # Now, so that no answer is paid for that leads to nothing.
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for line in _introduction(source, options):
            stderr().print(line)
        _write(_found(source, options, model), options)


def _check(options: GenerateCommand) -> None:
    """What can be said before any work."""
    from fedmpt.cli.conditions.asking import check_out
    from fedmpt.conditions.pipeline.planning import fitting_combinations
    from fedmpt.types import InputError

    fitting_combinations(options.max_requests, options.texts)
    options.source.check()
    check_out(options.out, options.name, [options.source.classes, *options.source.counts])
    if options.out.suffix.lower() != ".json":
        raise InputError(f"--out {options.out} must end in .json: --conditions takes any other word for a condition")


def _source(options: GenerateCommand) -> Source:
    from fedmpt.conditions.pipeline.planning import fitting_combinations

    budget = min(options.source.budget, fitting_combinations(options.max_requests, options.texts))
    return find_source(options.source, budget=budget, seed=options.texts.seed, cache=cache_folder(options.cache))


def _introduction(source: Source, options: GenerateCommand) -> list[str]:
    from fedmpt.conditions.labels.combinations import in_words
    from fedmpt.conditions.pipeline.planning import plan

    num_classes = len(source.class_names)
    return [
        f"{num_classes} classes; combinations: {in_words(source.combinations, num_classes)}",
        *(f"note: {note}" for note in source.notes),
        f"plan: {plan(len(source.combinations), options.texts, options.max_requests).words}",
    ]


def _found(source: Source, options: GenerateCommand, model: LanguageModel) -> ConditionSet:
    from fedmpt.cli.conditions.asking import asking
    from fedmpt.conditions.pipeline.generate import generate as find
    from fedmpt.conditions.pipeline.planning import plan

    total = plan(len(source.combinations), options.texts, options.max_requests).total
    with asking(model, options.model, total=total, max_requests=options.max_requests, cache=options.cache) as asker:
        return find(
            source.class_names,
            source.combinations,
            asker,
            options.texts,
            name=options.out.stem if options.name is None else options.name,
            combinations_from=source.where,
            date=datetime.now(UTC).date().isoformat(),
        )


def _write(found: ConditionSet, options: GenerateCommand) -> None:
    from fedmpt.cli.conditions.asking import stderr
    from fedmpt.cli.conditions.show import print_conditions
    from fedmpt.conditions.checks.findings import check_conditions
    from fedmpt.conditions.record import write_conditions

    write_conditions(options.out, found)
    print_conditions(found)
    console, file = stderr(), shlex.quote(str(options.out))
    for note in found.provenance["left_out"]:
        console.print(f"left out: {note['number']} {note['what']} to {note['stage']}: {note['why']}")
    for problem in check_conditions(found, class_names=found.provenance["classes"]).problems:
        console.print(f"look at this: {problem}")
    console.print(f"written to {options.out}")
    console.print(f"train with it: fedmpt train --conditions {file}")
    console.print(f"what a text tower makes of it: fedmpt conditions check {file} --backbone MODEL")
