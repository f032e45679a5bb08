"""``fedmpt conditions generate``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.conditions.show import print_conditions
from fedmpt.cli.conditions.source import SourceOptions, find_source
from fedmpt.conditions.checks import check_conditions
from fedmpt.conditions.labels.combinations import in_words
from fedmpt.conditions.pipeline.options import GenerateOptions, plan
from fedmpt.conditions.record import write_conditions
from fedmpt.llm.load import open_model
from fedmpt.llm.options import LLMOptions, check_installed
from fedmpt.types import InputError

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


def generate(arguments: list[str]) -> None:
    options = tyro.cli(GenerateCommand, args=arguments, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    check_installed()
    # Imported late: they need what was checked.
    from fedmpt.cli.conditions.asking import asking, checked_name, saying_how_to_go_on, stderr
    from fedmpt.conditions.pipeline.generate import generate as find
    from fedmpt.conditions.pipeline.generate import named_combinations
    from fedmpt.conditions.pipeline.prompts import describe_request

    # All that can be said before any work.
    most, texts, source, out = options.max_requests, options.texts, options.source, options.out
    source.check()
    budget = plan(source.budget, texts, most).num_combinations
    name = checked_name(out, options.name, [source.classes, *source.counts])
    if out.suffix.lower() != ".json":
        raise InputError(f"--out {out} must end in .json: --conditions takes any other word for a condition")
    console = stderr()
    with saying_how_to_go_on([*PROG.split(), *arguments], is_fresh=options.model.fresh):
        model = None if options.dry_run else open_model(options.model)
        classes, combinations, where, notes = find_source(
            source, budget, seed=texts.seed, cache=cache_folder(options.cache)
        )
        planned = plan(len(combinations), texts, most)
        total = planned.describe + planned.summarise
        introduction = [
            f"{len(classes)} classes; combinations: {in_words(combinations, len(classes))}",
            *(f"note: {note}" for note in notes),
            f"plan: {planned.num_combinations:,} combinations, requests to describe them: {planned.describe}, to "
            f"summarise: {planned.summarise}, for repairs: up to {most // 4}",
        ]
        if model is None:
            print(*introduction, "\nnothing was asked; the first request would be:", sep="\n")
            for message in describe_request(named_combinations(classes, combinations[: texts.batch]), texts).messages:
                print(f"\n--- {message.role}\n{message.content}")
            return
        # Now, so that no answer is paid for that leads to nothing.
        out.parent.mkdir(parents=True, exist_ok=True)
        for line in introduction:
            console.print(line)
        with asking(model, options.model, total=total, max_requests=most, cache=options.cache) as asker:
            found = find(classes, combinations, asker, texts, name=name, combinations_from=where)
        write_conditions(out, found)
    print_conditions(found)
    for left in found.provenance["left_out"]:
        console.print(f"left out: {left['number']} {left['what']} to {left['stage']}: {left['why']}")
    for problem in check_conditions(found, class_names=classes).problems:
        console.print(f"look at this: {problem}")
    file = shlex.quote(str(out))
    console.print(f"written to {out}\ntrain with it: fedmpt train --conditions {file}")
    console.print(f"what a text tower makes of it: fedmpt conditions check {file} --backbone MODEL")
