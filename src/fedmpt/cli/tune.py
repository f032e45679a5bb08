"""``fedmpt tune``: options in, `fedmpt.runs.tune.tune` called; a table of trials and the command to use out.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

from fedmpt.cli.cache import cache_folder
from fedmpt.cli.train import first_look, from_preset

if TYPE_CHECKING:
    from fedmpt.cli.train_options import TuneOptions
    from fedmpt.runs.tune import Trial, Tuned

DEFAULT_VALIDATION = 0.2


def tune(arguments: list[str]) -> None:
    from fedmpt.cli.tune_progress import TuneProgress
    from fedmpt.files import write_json
    from fedmpt.runs.tune import tune as find

    options = _options(arguments)
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True, emoji=False)
    try:
        with TuneProgress(console) as watcher:
            tuned = find(
                options.run,
                out=options.out,
                cache=cache_folder(options.cache),
                watcher=watcher,
                show_progress=not options.quiet,
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("; complete rounds are stored, the same command goes on") from stop
    command = _command(options, tuned.best)
    write_json(options.out / "tune.json", _record(options, tuned, command))
    if not options.quiet:
        _print_table(tuned)
        _print_command(command, tuned)


def _options(arguments: list[str]) -> TuneOptions:
    from fedmpt.cli.train_options import TuneOptions
    from fedmpt.types import InputError

    chosen, wants_help = first_look(arguments)
    if chosen.data is None and not wants_help:
        raise InputError("give a data set with --data, for example --data folder:photos")
    start = replace(from_preset(chosen, data=chosen.data or ""), validation=DEFAULT_VALIDATION)
    default = TuneOptions(method=start.method.name, preset=chosen.preset or "default", run=start)
    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(TuneOptions, args=arguments, default=default, prog="fedmpt tune", config=config)


def _command(options: TuneOptions, best: Trial) -> str:
    """``fedmpt train`` with the best options, on all training images."""
    from fedmpt.cli.train_options import train_arguments

    words = ["fedmpt", "train", *train_arguments(replace(best.config, validation=0.0))]
    cache = ["--cache", str(options.cache)] if options.cache else []
    return shlex.join([*words, "--out", str(options.out / "best"), *cache])


def _record(options: TuneOptions, tuned: Tuned, command: str) -> dict[str, Any]:
    return {
        "data": options.run.data,
        "method": options.run.method.name,
        "validation": options.run.validation,
        "seed": options.run.seed,
        "trials": [trial.to_json() for trial in tuned.trials],
        "best": tuned.best.to_json(),
        "with_soft_ties": tuned.soft.to_json() if tuned.soft else None,
        "command": command,
    }


def _print_table(tuned: Tuned) -> None:
    from fedmpt.runs.tune import tried_options

    table = Table(title="held-out training images, percent; the best in bold", title_justify="left")
    for name in tried_options(tuned.best.config):
        table.add_column(name.replace("_", " "), justify="right")
    is_cut = tuned.best.false_coactivation is not None
    for column in ("mAP", "balanced mAP", "CF1", *(["b reported, only a there"] if is_cut else []), "seconds"):
        table.add_column(column, justify="right")
    for trial in tuned.trials:
        scores = [trial.mAP, trial.balanced_mAP, trial.CF1, *([trial.false_coactivation] if is_cut else [])]
        cells = [
            *(f"{value:g}" for value in tried_options(trial.config).values()),
            *map(_shown, scores),
            _shown(trial.seconds),
        ]
        table.add_row(*cells, style="bold" if trial == tuned.best else None)
    Console().print(table)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _print_command(command: str, tuned: Tuned) -> None:
    console, best, soft = Console(highlight=False, soft_wrap=True, emoji=False), tuned.best, tuned.soft
    console.print(f"train on all training images with:\n{command}", markup=False)
    if soft is None:
        return
    change = f"mAP {_shown(best.mAP)} -> {_shown(soft.mAP)}"
    change += f", balanced mAP {_shown(best.balanced_mAP)} -> {_shown(soft.balanced_mAP)}"
    option = f"--soft-ties {soft.config.prediction.soft_ties:g}"
    console.print(
        f"with fewer reports of classes because of their usual company: add {option} ({change})", markup=False
    )
