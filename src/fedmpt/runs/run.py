"""A training run: from a config to a folder of results, with resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fedmpt
from fedmpt.federated.balance import Balance
from fedmpt.federated.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalResult
from fedmpt.federated.rounds import Ask, Progress, Round
from fedmpt.federated.simulate import Simulation
from fedmpt.files import LOCK, default_cache, exclusive, read_json, write_json
from fedmpt.runs.config import RunConfig, differences
from fedmpt.runs.familiar import unfamiliar
from fedmpt.runs.finish import Pooled, Scorer, finish
from fedmpt.runs.prediction import keep_counts
from fedmpt.runs.prepare import Prepared, Ready, prepare
from fedmpt.runs.privacy import what_is_private
from fedmpt.runs.records import (
    RoundLog,
    check_record,
    check_revision,
    check_sources,
    check_unchanged,
    check_writable,
    fingerprints,
)
from fedmpt.runs.summed import WITHOUT_COUNTS, Here
from fedmpt.state import Update, get_state
from fedmpt.types import InputError, State


class Watcher:
    """Who is told how a run goes; this one does nothing with it. `fedmpt.cli.progress` has one for the terminal."""

    def started(self, config: RunConfig, prepared: Prepared, *, rounds_done: int) -> None:
        self.begin(config, prepared.ready, rounds_done=rounds_done)

    def begin(self, config: RunConfig, ready: Ready, *, rounds_done: int) -> None:
        """The same, of a run whose clients are anywhere."""

    def client_done(self, update: Update) -> None: ...

    def round_done(self, done: Round) -> None: ...

    def noted(self, note: str) -> None:
        """What a user should hear: of the model before the first round, and at the end of how it went."""


Updates = Callable[[Ask, State], Iterable[LocalResult]]
"""Has the clients of an `Ask` train, see `fedmpt.federated.simulate.Simulation`."""
Workers = Callable[[Prepared, Path], AbstractContextManager[Updates]]
"""Starts other processes for a prepared run in a folder, and ends them."""


def train(
    config: RunConfig,
    *,
    out: Path | str,
    resume: bool = False,
    cache: Path | str | None = None,
    watcher: Watcher | None = None,
    show_progress: bool = True,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Run a federation and write ``out``: config.json, rounds.jsonl, checkpoint/, results.json. Returns the results.

    Nothing is written before everything that was given has been checked. With ``resume``, an interrupted run goes
    on after its last complete round and ends with the same numbers; a finished one is left as it is. ``cache`` is the
    folder of computed features, the user's own unless given; ``watcher`` is told how it goes; ``show_progress`` shows
    bars for what comes before the first round. ``workers`` are processes that train the clients in place of this one.

    Raises:
        InputError: for wrong input, or if ``out`` holds another run.
    """
    out, watcher = Path(out), watcher or Watcher()
    config = replace(config, method=config.method.resolved())
    earlier(config, out, resume=resume)  # Asked before the long work, and again when the folder is ours.
    if resume and is_finished(out):
        return read_json(out / "results.json")
    prepared = prepare(config, cache=Path(cache or default_cache()), show_progress=show_progress)
    with held(out):
        checkpoint = earlier(config, out, resume=resume)
        with fresh_unless_stored(out), workers(prepared, out) if workers else nullcontext() as updates:
            return _train(config, prepared, checkpoint, updates=updates, out=out, watcher=watcher)


def _train(
    config: RunConfig,
    prepared: Prepared,
    checkpoint: Checkpoint | None,
    *,
    updates: Updates | None,
    out: Path,
    watcher: Watcher,
) -> dict[str, Any]:
    simulation = Simulation(
        method=prepared.method,
        clients=prepared.clients,
        test=prepared.test,
        held_out=prepared.held_out,
        federation=config.federation,
        training=config.training,
        aggregation=config.aggregation,
        privacy=config.privacy,
        balance=Balance.of(prepared.counts) if config.training.balance else None,
        seed=config.seed,
        mix=config.prediction.mix,
        updates=updates,
        on_update=watcher.client_done,
    )

    is_pooled = config.federation.scoring == "pooled"

    def begin(rounds_done: int) -> list[str]:
        notes = [*unfamiliar(config, prepared), *what_is_private(config)]
        if not (is_pooled or config.needs_counts or prepared.data.pairs):
            notes.append(WITHOUT_COUNTS)
        watcher.started(config, prepared, rounds_done=rounds_done)
        return notes

    return conduct(
        config,
        prepared.ready,
        checkpoint,
        rounds=simulation.rounds,
        scorer=Pooled(prepared) if is_pooled else Here.scorer(config, prepared),
        out=out,
        watcher=watcher,
        begin=begin,
    )


def conduct(
    config: RunConfig,
    ready: Ready,
    checkpoint: Checkpoint | None,
    *,
    rounds: Callable[[Progress | None], Iterator[Round]],
    scorer: Scorer,
    out: Path,
    watcher: Watcher,
    begin: Callable[[int], list[str]],
) -> dict[str, Any]:
    """A run in the folder ``out``, wherever its clients are: log and store its ``rounds``, then score what they led to.

    ``begin`` is told how many rounds are done before, once it is certain that the run can go on, and returns notes.

    Raises:
        InputError: if ``checkpoint`` is of other data, classes, texts or another backbone; from ``rounds``.
    """
    method, record = ready.method, record_of(config, ready)
    if checkpoint is not None:
        check_goes_on(checkpoint.record, record, ready, source=str(out / "checkpoint"))
    progress = checkpoint.progress if checkpoint else None
    rounds_done = progress.rounds_done if progress else 0
    start = get_state(method)
    write_json(out / "config.json", config.to_json())
    log = RoundLog(out / "rounds.jsonl", keep=rounds_done)
    notes = begin(rounds_done)
    if not rounds_done:
        _tell(watcher, notes)
    for done in rounds(progress) if method.is_trained else ():
        log.append(done)
        keep_counts(out / "checkpoint", ready.counts, ready.class_names)
        save_checkpoint(out / "checkpoint", done.progress, record)
        watcher.round_done(done)
        progress = done.progress
    if progress is None:  # Nothing to train: the checkpoint still says which method, classes and backbone.
        progress = Progress(rounds_done=0, state={}, personal={})
        save_checkpoint(out / "checkpoint", progress, record)
    results, fallen = finish(config, ready, progress, start, scorer=scorer, out=out, log=log, notes=notes)
    _tell(watcher, fallen)
    return results


def _tell(watcher: Watcher, notes: Sequence[str]) -> None:
    for note in notes:
        watcher.noted(note)


def check_goes_on(stored: Mapping[str, Any], now: Mapping[str, Any], ready: Ready, *, source: str) -> None:
    """Raises InputError if the ``stored`` record of a run, ``source``, is of another backbone, other classes, texts or
    data than the one that the same options have ``now``."""
    check_record(stored, ready.backbone, ready.class_names, source=source)
    check_revision(stored, now["revision"], source=source)
    check_sources(stored, ready.method.sources, source=source)
    check_unchanged(stored, now, source=source)


def record_of(config: RunConfig, ready: Ready) -> dict[str, Any]:
    """What a checkpoint's tensors belong to: enough to build it again, and to notice another backbone or other data."""
    names, backbone = ready.class_names, ready.backbone
    return {
        "fedmpt": fedmpt.__version__,
        "config": config.to_json(),
        "class_names": list(names),
        "sources": dict(ready.method.sources),
        "revision": config.method.revision,
        "clients": list(ready.client_names),
        "backbone": {"name": backbone.name, **fingerprints(backbone, names)},
        "data": dict(ready.digests),
    }


@contextmanager
def fresh_unless_stored(out: Path) -> Iterator[None]:
    """Where not one round succeeds, ``out`` is left as it was: the same command may be given again."""
    try:
        yield
    except BaseException:
        if not (out / "checkpoint").exists():
            for name in ("config.json", "rounds.jsonl"):
                (out / name).unlink(missing_ok=True)
        raise


def is_finished(out: Path) -> bool:
    """Whether ``out`` holds a run that came to its end."""
    return (out / "config.json").is_file() and (out / "results.json").is_file()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """``out`` as a folder of this process alone, without half-written files; gone at the end if new and empty."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(out):
            for leftover in (*out.glob(".*.tmp"), *out.glob("checkpoint/.*.tmp")):
                leftover.unlink(missing_ok=True)
            yield
    finally:
        with suppress(OSError):  # Of another process that has begun meanwhile, nothing is removed.
            if is_new and set(os.listdir(out)) <= {LOCK}:
                (out / LOCK).unlink(missing_ok=True)
                out.rmdir()


def earlier(config: RunConfig, out: Path, *, resume: bool) -> Checkpoint | None:
    """The checkpoint to continue from; None to start afresh."""
    check_writable(out, kind="folder")
    stored = out / "config.json"
    if not resume:
        if stored.exists() or (out / "checkpoint").exists():
            raise InputError(f"{out} already holds a run; continue it with --resume or choose another --out")
        return None
    if not stored.exists():
        return None
    different = differences(RunConfig.from_json(read_json(stored), source=str(stored)), config)
    if different:
        raise InputError(f"{out} was started with other options ({different}); repeat those or choose another --out")
    return load_checkpoint(out / "checkpoint") if (out / "checkpoint" / "checkpoint.json").exists() else None
