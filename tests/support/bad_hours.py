"""Run as ``python bad_hours.py COORDINATOR COPY COMMAND ...``: COMMAND in bad hours, until the federation has ended.

Under ``unshare -Urm`` and with ``DISK`` in the environment, the coordinator's folder lies on a small disk of memory,
which only this process sees. It is filled after the first round, and emptied when COMMAND has ended. COMMAND is given
again, and killed after the second round. The third time it is left alone. Prints the exit codes, and the temporary
files that were left when the disk was full. COPY gets the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

coordinator, copy, *command = sys.argv[1:]
folder, has_disk = Path(coordinator), "DISK" in os.environ
rounds, filler = folder / "run" / "rounds.jsonl", folder / "filler"


def started(until: int) -> subprocess.Popen[bytes]:
    """COMMAND, once it has done so many rounds."""
    process = subprocess.Popen(command)
    while process.poll() is None and not (rounds.exists() and rounds.read_text().count("\n") >= until):
        time.sleep(0.02)
    return process


left, codes = [], []
if has_disk:
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", coordinator], check=True)
    shutil.copytree(before, folder, dirs_exist_ok=True)
    running = started(1)
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    codes.append(running.wait())
    left = [path.name for path in folder.rglob(".*.tmp")]
    filler.unlink()
running = started(2)
running.kill()
codes += [running.wait(), started(0).wait()]
print("exit codes", *codes, "left", *left)
shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("server", "operator", "authority"))
