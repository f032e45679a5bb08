"""Milliseconds of a local training step and peak memory of every method, each in a process of its own.

    python benchmarks/speed/methods.py --data scenes --backbone scenes-clip --out benchmarks/results/speed_methods.json
    python benchmarks/speed/methods.py --data voc:VOCdevkit --backbone backbone.py:load

A step is what a client does: read a batch of 32 stored images, loss, backward, optimiser. The median of ``--steps``
steps after three that do not count. Memory is the process's peak resident size: Python, libraries and the frozen model
are most of it, so the table also gives what lies above zero-shot, which trains nothing and scores the same batches.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedmpt.cache import default_cache
from fedmpt.config import preset
from fedmpt.files import write_json
from fedmpt.methods import METHODS
from fedmpt.run import prepare
from fedmpt.types import InputError

BATCH_SIZE, WARM_UP = 32, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    rows = {name: found for name in METHODS if (found := _in_process(name))}
    floor = rows["zero-shot"]["peak_mib"]
    print("| | ms a step | peak memory, MiB | above zero-shot |\n|---|---:|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row['ms']:.1f} | {row['peak_mib']:.0f} | {row['peak_mib'] - floor:.0f} |")
    if options.out:
        facts = {"data": options.data, "backbone": options.backbone, "threads": options.threads, "batch": BATCH_SIZE}
        write_json(options.out, {**facts, "torch": torch.__version__, "cpu": platform.machine(), "rows": rows})


def _in_process(name: str) -> dict[str, Any] | None:
    done = subprocess.run([sys.executable, *sys.argv, "--one", name], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        print(f"{name}: {done.stderr.strip()}", file=sys.stderr)
        return None
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    config = replace(preset("default", name, options.data), backbone=options.backbone)
    try:
        prepared = prepare(config, cache=options.cache, show_progress=False)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(3 if "image tower" in str(error) else 2)
    method, features = prepared.method, prepared.train
    training = config.training
    rate = config.federation.learning_rate
    optimizer = (
        method.optimizer(learning_rate=rate, momentum=training.momentum, weight_decay=training.weight_decay)
        if method.is_trained
        else None
    )
    method.start_round(1)
    seconds = []
    for step in range(WARM_UP + options.steps):
        rows = torch.arange(step * BATCH_SIZE, (step + 1) * BATCH_SIZE) % len(features)
        began = time.perf_counter()
        batch = features.batch(rows, device=method.device)
        if optimizer is None:
            with torch.no_grad():
                method(batch)
        else:
            optimizer.zero_grad(set_to_none=True)
            method.loss(batch).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"ms": 1000 * statistics.median(seconds[WARM_UP:]), "peak_mib": peak}


if __name__ == "__main__":
    main()
