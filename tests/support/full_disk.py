"""Run as ``unshare -Urm python full_disk.py COORDINATOR COPY COMMAND ...``: COMMAND with a disk that becomes full.

The coordinator's folder lies on a small disk of memory, which only this process sees. It is filled after the first
round. Then there is room again, and COMMAND is given once more. Prints what exit codes came, and which temporary files
were left; COPY gets the run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

coordinator, copy, *command = sys.argv[1:]
folder, before = Path(coordinator), Path(coordinator).with_name("before")
shutil.copytree(folder, before)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", coordinator], check=True)
shutil.copytree(before, folder, dirs_exist_ok=True)

running = subprocess.Popen(command)
rounds, filler = folder / "run" / "rounds.jsonl", folder / "filler"
while running.poll() is None and not (rounds.exists() and rounds.read_text().endswith("\n")):
    time.sleep(0.05)
try:
    with filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    print("full")
codes = [running.wait()]
left = [path.name for path in folder.rglob(".*.tmp")]
filler.unlink()
codes.append(subprocess.run(command).returncode)
print("exit codes", *codes, "left", *left)
shutil.copytree(folder / "run", copy)
