"""Runs ``fedmpt`` with the given words, each time killed a step later, until it comes to its end.

``python kill_driver.py FOLDER WORDS...``; the k-th try has ``--out FOLDER/k``, and 0 is a whole run before them. A step
is a batch of image features, or a file that is about to be renamed to its own name: everything a run leaves behind
passes through these. Prints the number of tries. They are forks of one process, in which the whole run has imported
all that takes long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedmpt.cli.main import main
from fedmpt.data.features import build as feature_build


def killed_at(step: int) -> None:
    """From now on, this process dies at the given step, as by ``kill -9``."""
    left = step

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    feature_build._encode = watched(feature_build._encode)
    Path.replace = watched(Path.replace)  # type: ignore[method-assign]


def run_until_killed(step: int, words: list[str]) -> bool:
    """Whether the run was killed; anything else than that and success ends the driver."""
    child = os.fork()
    if child == 0:
        killed_at(step)
        main(words)  # Exits.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"try {step} ended with {code}")
    return code != 0


def of_try(step: int) -> list[str]:
    folder, *words = sys.argv[1:]
    return [*words, "--out", f"{folder}/{step}", "--cache", f"{folder}/cache{step}"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.suppress(SystemExit):
        main(of_try(0))
    step = 1
    while run_until_killed(step, of_try(step)):
        step += 1
    print(step)
