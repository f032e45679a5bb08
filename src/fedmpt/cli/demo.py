"""`fedmpt demo`: run the trials, print a table, write the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.report.demo.trials import Outcome


@dataclass(frozen=True)
class DemoOptions:
    """Train zero-shot CLIP, PromptFL and FedMPT on drawn pictures whose labels are tied together, and test them where
    the ties are cut. Needs no data, no weights and no network; writes one HTML page that explains what came out.

    For example:

    fedmpt demo --out runs/demo

    fedmpt demo --spurious 0.5 --seed 1 --out runs/demo-half
    """

    out: Path = Path("runs/demo")
    """Folder for the runs and the page. A demo that was stopped goes on."""
    rounds: int = 10
    """Communication rounds."""
    seed: int = 0
    """Seed of initial values and of the order of images."""
    spurious: float = 0.9
    """Chance in [0, 1] that the first thing of a pair brings its partner along in a training picture."""
    num_train: int = 2000
    """Training pictures, of all ten clients together."""
    num_test: int = 1000
    """Pictures of each of the two tests."""
    cache: Path | None = None
    """Folder for pictures and features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def demo(arguments: list[str]) -> None:
    options = tyro.cli(DemoOptions, args=arguments, prog="fedmpt demo")
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    began = time.perf_counter()
    _check_extra()
    from fedmpt.cli.progress import TerminalWatcher
    from fedmpt.report.demo.differences import compared, sentences
    from fedmpt.report.demo.page import write_page
    from fedmpt.report.demo.trials import TITLES, Trial, run_trial
    from fedmpt.runs.records import check_writable

    check_writable(options.out, kind="folder")
    given = {name: value for name, value in vars(options).items() if name not in ("out", "cache")}
    trial = Trial(**given)
    cache, page = cache_folder(options.cache), options.out / "index.html"
    outcomes = {}
    try:
        for name, title in TITLES.items():
            console.print(f"[bold]{title}[/bold]")
            with TerminalWatcher(console) as watcher:
                config = trial.config(name)
                outcomes[name] = run_trial(trial, config, out=options.out / name, cache=cache, watcher=watcher)
        found = compared(outcomes)
        write_page(page, trial, outcomes, found, cache=cache, began=began)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("; complete rounds are stored, the same command goes on") from stop
    _print_table(outcomes)
    for sentence in sentences(found, outcomes):
        print(sentence)
    console.print(f"written to {page}; open it in a browser", markup=False)


def _check_extra() -> None:
    """Asked first, so that nobody waits for runs whose page cannot be written."""
    from importlib.util import find_spec

    from fedmpt.types import InputError

    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise InputError(f"the page needs {' and '.join(missing)}; install them with: pip install 'fedmpt[report]'")


def _print_table(outcomes: Mapping[str, Outcome]) -> None:
    from fedmpt.report.demo.trials import TITLES

    table = Table("method", title="percent")
    scores = ("mAP natural", "mAP reversed", "CF1 natural", "CF1 reversed", "absent partner reported")
    for column in (*scores, "trained"):
        table.add_column(column, justify="right")
    for name, outcome in outcomes.items():
        natural, unseen = outcome.natural, outcome.reversed
        values = [natural["mAP"], unseen["mAP"], natural["CF1"], unseen["CF1"], unseen["shift"]["false_coactivation"]]
        trained = f"{outcome.results['params']['trainable']:,}"
        table.add_row(TITLES[name], *(f"{value:.1f}" for value in values), trained)
    Console().print(table)
