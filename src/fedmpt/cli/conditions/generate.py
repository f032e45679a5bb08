"""``fedmpt conditions generate``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.conditions.show import print_conditions
from fedmpt.cli.conditions.source import SourceOptions, find_source
from fedmpt.conditions.checks import check_conditions
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.record import ConditionSet, write_conditions
from fedmpt.llm.options import LLMOptions, check_installed, open_model
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


def generate(words: list[str]) -> None:
    options = tyro.cli(GenerateCommand, args=words, prog=PROG, config=(tyro.conf.OmitArgPrefixes,))
    check_installed()
    # Imported late: they need what was checked.
    from fedmpt.cli.conditions.asking import asking, check_out, saying_how_to_go_on, stderr
    from fedmpt.conditions.pipeline.generate import generate as find
    from fedmpt.conditions.pipeline.generate import prompts_preview
    from fedmpt.conditions.pipeline.planning import fitting_combinations, plan

    # All that can be said before any work.
    most = options.max_requests
    budget = min(options.source.budget, fitting_combinations(most, options.texts))
    options.source.check()
    check_out(options.out, options.name, [options.source.classes, *options.source.counts])
    if options.out.suffix.lower() != ".json":
        raise InputError(f"--out {options.out} must end in .json: --conditions takes any other word for a condition")
    with saying_how_to_go_on([*PROG.split(), *words], is_fresh=options.model.fresh):
        model = None if options.dry_run else open_model(options.model)
        source = find_source(options.source, budget, seed=options.texts.seed, cache=cache_folder(options.cache))
        planned = plan(len(source.combinations), options.texts, most)
        introduction = (*source.lines(), f"plan: {planned.words}")
        if model is None:
            print(*introduction, "\nnothing was asked; the first request would be:", sep="\n")
            for message in prompts_preview(source.class_names, source.combinations, options.texts):
                print(f"\n--- {message.role}\n{message.content}")
            return
        # Now, so that no answer is paid for that leads to nothing.
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for line in introduction:
            stderr().print(line)
        with asking(model, options.model, total=planned.total, max_requests=most, cache=options.cache) as asker:
            found = find(
                source.class_names,
                source.combinations,
                asker,
                options.texts,
                name=options.out.stem if options.name is None else options.name,
                combinations_from=source.where,
                date=datetime.now(UTC).date().isoformat(),
            )
        write_conditions(options.out, found)
    print_conditions(found)
    _say_what_next(found, options.out, stderr())


def _say_what_next(found: ConditionSet, out: Path, console: Console) -> None:
    for note in found.provenance["left_out"]:
        console.print(f"left out: {note['number']} {note['what']} to {note['stage']}: {note['why']}")
    for problem in check_conditions(found, class_names=found.provenance["classes"]).problems:
        console.print(f"look at this: {problem}")
    file = shlex.quote(str(out))
    console.print(f"written to {out}")
    console.print(f"train with it: fedmpt train --conditions {file}")
    console.print(f"what a text tower makes of it: fedmpt conditions check {file} --backbone MODEL")
