"""Whether a long federation stays as it began: seconds a round, memory of each process, and bytes on disk.

Three sites of benchmarks/speed/federation.py train PromptFL for many rounds, by the real commands. Every 50 rounds:
the largest resident size (RSS) and share (PSS) among the processes of each kind, and the bytes of the coordinator's
folder and of the sites' folders.

    python benchmarks/speed/federation_soak.py --out benchmarks/results/federation_soak.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation import FEDMPT, Watch, free_port, joined, rounds_of, run, write_sites

from fedmpt.files import write_json

SITES = ["site-1", "site-2", "site-3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = soaked(Path(folder), rounds=options.rounds, every=options.every)
    write_json(options.out, {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "sites": 3, "rows": rows})


def soaked(root: Path, *, rounds: int, every: int) -> list[dict[str, Any]]:
    write_sites(root / "data", SITES)
    fed = root / "fed"
    words = ("--method", "promptfl", "--backbone", "scenes-clip", "--rounds", str(rounds), "--eval-every", str(rounds))
    address = f"localhost:{free_port()}"
    run("federation", "init", str(fed), "--sites", ",".join(SITES), "--address", address, "--trial", *words)
    rows: list[dict[str, Any]] = []
    log = fed / "coordinator" / "run" / "rounds.jsonl"
    with joined(fed, SITES, root / "data"):
        started = subprocess.Popen([*FEDMPT, "federation", "start", str(fed / "coordinator"), "--quiet"])
        while started.poll() is None:
            time.sleep(0.2)
            done = log.read_text().count("\n") if log.exists() else 0
            if done >= (len(rows) + 1) * every:
                rows.append(row_of(root, fed, done, every))
                print(json.dumps(rows[-1]), flush=True)
    if started.returncode:
        raise SystemExit(f"the federation ended with {started.returncode}")
    return rows


def row_of(root: Path, fed: Path, done: int, every: int) -> dict[str, Any]:
    return {
        "round": done,
        "seconds_a_round": round(statistics.median(rounds_of(fed / "coordinator" / "run")[-every:]), 3),
        "memory_mb": memory(str(root)),
        "coordinator_bytes": size_of(fed / "coordinator"),
        "sites_bytes": size_of(fed / "sites"),
    }


def memory(folder: str) -> dict[str, dict[str, float]]:
    """By kind of process, in MB."""
    found: dict[str, dict[str, float]] = {}
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError, StopIteration):
            words = (process / "cmdline").read_text()
            kind = next(kind for part, kind in Watch.KINDS.items() if folder in words and part in words)
            lines = (process / "smaps_rollup").read_text().splitlines()
            sizes = {line.split(":")[0].lower(): float(line.split()[1]) / 1024 for line in lines[1:3]}
            row = found.setdefault(kind, {})
            for name, size in sizes.items():
                row[name] = round(max(row.get(name, 0.0), size), 1)
    return dict(sorted(found.items()))


def size_of(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # Some are temporary.
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return sum(sizes)


if __name__ == "__main__":
    main()
