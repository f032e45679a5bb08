"""Options of ``fedmpt train`` and ``fedmpt tune``: where runs go, and the config of a run; and a config as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fedmpt.runs.config import RunConfig, flat, preset


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a method across clients and score it on the test set.

    Leaves in --out: config.json, rounds.jsonl, checkpoint/ and results.json.

    For example:

    fedmpt train --data voc:VOCdevkit --out runs/a

    fedmpt train --data voc:VOCdevkit --method promptfl --num-context 4 --seed 1 --out runs/b

    fedmpt train --out runs/a --resume
    """

    out: Annotated[Path, tyro.conf.arg(help_behavior_hint="(required)")]
    """Folder for the run."""
    method: str = "fedmpt"
    """What to train: see `fedmpt methods`. Decides which method options there are below."""
    preset: Literal["default", "paper"] = "default"
    """Where options start from: what measured best here, or the paper's values."""
    resume: bool = False
    """Continue the run in --out after its last complete round; its options need not be repeated."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    quiet: bool = False
    """Print nothing but errors."""
    engine: Literal["simulation", "flare"] = "simulation"
    """Who trains the clients: this process, or with flare as many as --nodes says, with the same results."""
    nodes: int | None = None
    """Processes that train the clients; only for --engine flare."""
    address: str | None = None
    """HOST:PORT under which nodes on other machines reach this one; without it they are started here. Only for --engine
    flare."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class TuneOptions(TrainOptions):
    """Find options of training for your own images, and print the fedmpt train command with them.

    Trains about seven times on a part of the training images, --validation, and scores the others; the test set is not
    read. Tries --learning-rate and, of FedMPT, --entropy; then --mix and --soft-ties on what was trained. The other
    options are those of fedmpt train.

    For example:

    fedmpt tune --data folder:photos --out runs/tune

    fedmpt tune --data voc:VOCdevkit --method promptfl --learning-rate 0.3 --rounds 5 --validation 0.3
    """

    out: Path = Path("runs/tune")
    """Folder for the runs and tune.json. The same command goes on with what was stopped."""
    resume: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = True
    engine: tyro.conf.Suppress[tyro.conf.Fixed[Literal["simulation", "flare"]]] = "simulation"
    nodes: tyro.conf.Suppress[tyro.conf.Fixed[int | None]] = None
    address: tyro.conf.Suppress[tyro.conf.Fixed[str | None]] = None


def train_arguments(config: RunConfig) -> list[str]:
    """The options of ``fedmpt train`` that give ``config``: the method, and all that are not the default."""
    start = flat(preset("default", config.method.name, data="").to_json())
    arguments = ["--method", config.method.name]
    for name, value in flat(config.to_json()).items():
        flag = name.rpartition(".")[2].replace("_", "-")
        if value == start[name]:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            # In one argument with the flag, a text may begin with a hyphen. Several texts cannot, here and on the line.
            given = [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
            arguments += ["=".join(given)] if isinstance(value, str) and value.startswith("-") else given
    return arguments
