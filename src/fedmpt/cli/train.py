"""``fedmpt train``: options in, `fedmpt.runs.run.train` called, scores out.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.tables import print_scores, print_sites

if TYPE_CHECKING:
    from fedmpt.cli.train_options import TrainOptions
    from fedmpt.runs.config import RunConfig
    from fedmpt.runs.run import Workers


def train(arguments: list[str]) -> None:
    from fedmpt.cli.progress import TerminalWatcher
    from fedmpt.runs.run import is_finished
    from fedmpt.runs.run import train as train_run

    options = _train_options(arguments)
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True, emoji=False)
    was_finished = is_finished(options.out)
    try:
        with TerminalWatcher(console) as watcher:
            results = train_run(
                options.run,
                out=options.out,
                resume=options.resume,
                cache=cache_folder(options.cache),
                watcher=watcher,
                show_progress=not options.quiet,
                workers=_workers(options, console),
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(_how_to_continue(options)) from stop
    if was_finished:
        console.print(f"{options.out} was finished before; it is left as it is", markup=False)
    if not options.quiet:
        print_scores(results)
        print_sites(results)


def _workers(options: TrainOptions, console: Console) -> Workers | None:
    """Processes for ``--engine flare``; None where this one trains."""
    from fedmpt.types import InputError

    if options.engine == "simulation":
        for name in ("nodes", "address"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} goes with --engine flare")
        return None
    if options.nodes is None or options.nodes < 1:
        raise InputError("--engine flare needs --nodes, at least 1: how many processes train the clients")
    from fedmpt.cli.engine import Engine
    from fedmpt.cli.federation import needs_engine

    needs_engine()
    engine = Engine(
        config=options.run,
        nodes=options.nodes,
        address=options.address,
        cache=cache_folder(options.cache),
        note=lambda text: console.print(text, markup=False),
    )
    engine.plan()  # What cannot be shows before the long work.
    return engine.workers


def _train_options(arguments: list[str]) -> TrainOptions:
    """Parsed in two steps, since the method decides which options there are."""
    from fedmpt.cli.train_options import TrainOptions
    from fedmpt.types import InputError

    chosen, wants_help = first_look(arguments)
    if not chosen.out and not wants_help:
        raise InputError("give a folder for the run with --out, for example --out runs/a")
    out = Path(chosen.out or ".")
    start = from_preset(chosen, data=chosen.data or "") if wants_help else _starting_config(chosen, out)
    default = TrainOptions(out=out, method=start.method.name, preset=chosen.preset or "default", run=start)
    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(TrainOptions, args=arguments, default=default, prog="fedmpt train", config=config)


def first_look(arguments: list[str]) -> tuple[argparse.Namespace, bool]:
    """The options that decide which others there are, and whether help is wanted."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--method", "--preset", "--out", "--data"):
        chooser.add_argument(flag, nargs="?")  # A value may be missing: the second parser has the message for that.
    chooser.add_argument("--resume", action="store_true")
    chosen, _ = chooser.parse_known_args(arguments)
    return chosen, "-h" in arguments or "--help" in arguments


def _starting_config(chosen: argparse.Namespace, out: Path) -> RunConfig:
    """The stored config when resuming, else the preset; flags then override it."""
    from fedmpt.files import read_json
    from fedmpt.runs.config import RunConfig
    from fedmpt.types import InputError

    stored = out / "config.json"
    if chosen.resume and stored.is_file():
        config = RunConfig.from_json(read_json(stored), source=str(stored))
        if chosen.method not in (None, config.method.name):
            raise InputError(f"{out} holds a run of {config.method.name}, not {chosen.method}")
        # A preset that is named has to agree with the run, as all other flags have to.
        return config if chosen.preset is None else from_preset(chosen, data=config.data)
    if chosen.data is None:
        nothing = f"{out} holds no run to continue; check --out, or " if chosen.resume else ""
        raise InputError(f"{nothing}give a data set with --data, for example --data voc:VOCdevkit")
    return from_preset(chosen, data=chosen.data)


def from_preset(chosen: argparse.Namespace, *, data: str) -> RunConfig:
    """The config that the chosen method and preset start from."""
    from fedmpt.runs.config import preset

    return preset(chosen.preset or "default", chosen.method or "fedmpt", data=data)


def _how_to_continue(options: TrainOptions) -> str:
    if not (options.out / "config.json").is_file():
        return "; nothing was stored, give the same command to start again"
    cache = ["--cache", str(options.cache)] if options.cache else []
    command = shlex.join(["fedmpt", "train", "--out", str(options.out), "--resume", *cache])
    return f"; complete rounds are stored, continue with: {command}"
