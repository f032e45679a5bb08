"""Milliseconds of a local training step and peak memory of every row of benchmarks/methods.py, a process for each.

    python benchmarks/speed/methods.py scenes --out benchmarks/results/speed_methods_scenes.json
    python benchmarks/speed/methods.py photos --data voc:VOCdevkit --backbone backbone.py:load

A step is what a client does: read a batch of 32 stored images, loss, backward, optimiser; for zero-shot, which trains
nothing, to score them. The median of ``--steps`` steps after three that do not count. Memory is the process's peak
resident size. Python, libraries and the frozen model are most of it, so the table gives what lies above zero-shot.
Methods that put tokens into the image tower are left out where a plug-in does not open its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from methods import add_bed_options, check_bed_options, make_bed, needs_tower, rows

from fedmpt.files import write_json
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared, prepare

BATCH_SIZE, WARM_UP = 32, 3
FLOOR = "zero-shot, csra"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_bed_options(parser)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    check_bed_options(parser, options)
    bed = make_bed(options)
    table = rows(bed)
    if options.one:
        print(json.dumps(measure(table[options.one], options)))
        return
    found = {name: _in_process(name) for name, config in table.items() if bed.trial or not needs_tower(config)}
    floor = found[FLOOR]["peak_mib"]
    for row in found.values():
        row["more_mib"] = row["peak_mib"] - floor
    print("| | ms a step | peak memory, MiB | above zero-shot |\n|---|---:|---:|---:|")
    for name, row in found.items():
        print(f"| {name} | {row['ms']:.1f} | {row['peak_mib']:.0f} | {row['more_mib']:.0f} |")
    if options.out:
        facts = {"bed": options.bed, "threads": options.threads, "batch": BATCH_SIZE, "steps": options.steps}
        write_json(options.out, {**facts, "torch": torch.__version__, "cpu": platform.machine(), "rows": found})


def _in_process(name: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *sys.argv, "--one", name], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    prepared = prepare(config, cache=options.cache, show_progress=False)
    seconds = _train(config, prepared, options.steps) if prepared.method.is_trained else _score(prepared, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"ms": 1000 * statistics.median(seconds[WARM_UP:]), "peak_mib": peak}


def _train(config: RunConfig, prepared: Prepared, steps: int) -> list[float]:
    method, features, training = prepared.method, prepared.train, config.training
    optimizer = method.optimizer(
        learning_rate=config.federation.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    method.start_round(1)
    seconds = []
    for step in range(WARM_UP + steps):
        began = time.perf_counter()
        batch = features.batch(_rows(step, len(features)), device=method.device)
        optimizer.zero_grad(set_to_none=True)
        method.loss(batch).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


@torch.no_grad()
def _score(prepared: Prepared, steps: int) -> list[float]:
    method, features = prepared.method, prepared.train
    seconds = []
    for step in range(WARM_UP + steps):
        began = time.perf_counter()
        method(features.batch(_rows(step, len(features)), device=method.device))
        seconds.append(time.perf_counter() - began)
    return seconds


def _rows(step: int, num_images: int) -> torch.Tensor:
    return torch.arange(step * BATCH_SIZE, (step + 1) * BATCH_SIZE) % num_images


if __name__ == "__main__":
    main()
