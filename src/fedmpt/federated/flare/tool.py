"""NVFlare's command line, for what it provisions. Its refusals become InputErrors in our words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpt.errors import InputError

TIMEOUT = 120.0
"""Seconds for one call, which takes one or two."""


def nvflare(*words: object, home: Path, refused: str) -> Mapping[str, Any]:
    """What ``nvflare WORDS`` answers. It keeps a record of each call, which goes to ``home``, not to the user's own.

    Raises:
        InputError: ``refused``, a sentence with ``{why}`` in it, filled with NVFlare's reason.
    """
    command = [sys.executable, "-m", "nvflare.cli", "--format", "json", *map(str, words)]
    ours = {**os.environ, "HOME": str(home.absolute())}
    done = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    answer = _answer(done.stdout)
    if done.returncode == 0 and answer.get("status") == "ok":
        data = answer["data"]
        assert isinstance(data, dict)
        return data
    said = str(answer.get("message") or done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}")
    raise InputError(refused.format(why=said.removeprefix("Invalid arguments. \N{EM DASH} ").rstrip(".")))


def _answer(printed: str) -> Mapping[str, Any]:
    """The JSON object among the lines that were printed; empty if there is none."""
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}
