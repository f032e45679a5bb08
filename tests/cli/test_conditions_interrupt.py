"""Ctrl-C while a language model is asked, and a terminal that somebody watches."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Command
from rich.console import Console
from scripted_endpoint import Handler, ScriptedEndpoint, good

from fedmpt.cli.conditions.asking import TerminalWatcher, print_usage, saying_how_to_go_on
from fedmpt.conditions.record import find_conditions
from fedmpt.llm.asking import Usage
from fedmpt.llm.model import Message, Request

REQUEST = Request((Message("system", "Be short."), Message("user", "Hello?")), 50, 0.5, 7, label="describe 1 of 3")
REPAIR = Request(
    (*REQUEST.messages, Message("assistant", "?"), Message("user", "No.")),
    50,
    0.5,
    7,
    label="describe 1 of 3, repair 1",
)


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


def screen() -> Console:
    """A terminal of 80 columns that keeps what it is sent."""
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_interrupted_command_ends_at_once_and_goes_on_with_the_words_that_it_prints(
    concurrency: int, run: Command, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    is_waiting = threading.Event()

    def hanging(request: Request) -> Any:
        def hang(handler: Handler) -> None:
            is_waiting.set()
            endpoint.stopping.wait(30)

        return good(request) if request in endpoint.requests[:2] else hang

    endpoint.rule = hanging
    classes, out = tmp_path / "class list.txt", tmp_path / "c.json"
    classes.write_text("cat\ndog\nchair\n")
    words = ["conditions", "generate", "--classes", classes, "--out", out, "--cache", tmp_path / "cache"]
    words += endpoint.words("--concurrency", concurrency, "--per-request", 2)
    command = [sys.executable, "-c", "from fedmpt.cli.main import main; main()", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert is_waiting.wait(120)
        time.sleep(0.5)  # The answers before may still be on their way.
        process.send_signal(signal.SIGINT)
        output, errors = (stream.decode() for stream in process.communicate(timeout=5))
    assert (process.returncode, output) == (130, "")
    assert "asked for 2 answers" in errors
    last = errors.splitlines()[-1]
    assert last.startswith("fedmpt conditions: interrupted; answers are kept, go on with: fedmpt ")
    again = shlex.split(last.partition("go on with: fedmpt ")[2])
    assert again == list(map(str, words))
    kept = [asked.body for asked in endpoint.asked[:2]]
    endpoint.rule = good
    endpoint.asked.clear()
    done = run(*again)
    assert done.code == 0, done.err
    assert not any(asked.body in kept for asked in endpoint.asked)
    assert "2 kept from before" in done.err
    assert len(find_conditions(str(out)).names) == 5


@pytest.mark.parametrize(
    ("is_fresh", "said"),
    [(False, "; answers are kept, go on with: "), (True, "; --fresh asks everything anew, so start again with: ")],
)
def test_what_is_said_on_an_interrupt_is_true_of_fresh_runs_too(is_fresh: bool, said: str) -> None:
    with (
        pytest.raises(KeyboardInterrupt) as stop,
        saying_how_to_go_on(["fedmpt", "a b"], is_fresh=is_fresh),
    ):
        raise KeyboardInterrupt
    assert str(stop.value) == f"{said}fedmpt 'a b'"


def test_a_terminal_shows_a_bar_that_fits_and_counts_repairs_on_top() -> None:
    console = screen()
    with TerminalWatcher(console, total=2) as watcher:
        watcher.answered(REQUEST, cached=True)
        watcher.answered(REPAIR, cached=False)
        watcher.answered(REQUEST, cached=False)
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed(console)))
    assert "3/3" in frames[-1] + frames[-2]
    assert max(map(len, frames)) <= 80


def test_without_a_terminal_only_what_goes_wrong_is_printed() -> None:
    console = Console(file=io.StringIO(), width=80, markup=False)
    with TerminalWatcher(console, total=2) as watcher:
        watcher.answered(REQUEST, cached=False)
        watcher.unusable(REQUEST, "[red]nonsense[/red]")
    assert printed(console) == "describe 1 of 3: [red]nonsense[/red]\n"


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (Usage(), ""),
        (Usage(asked=1), "asked for 1 answer\n"),
        (Usage(asked=2, prompt_tokens=1234, answer_tokens=5), "asked for 2 answers (1,234 tokens read, 5 written)\n"),
        (Usage(cached=3), "asked for 0 answers; 3 kept from before\n"),
    ],
)
def test_what_asking_took_is_said_in_a_line(usage: Usage, said: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_usage(usage, console)
    assert printed(console) == said
