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

from fedmpt.cli.conditions import asking as module
from fedmpt.conditions.record import find_conditions
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer, LanguageModel, Message, Request
from fedmpt.llm.options import LLMOptions

REQUEST = Request((Message("system", "Be short."), Message("user", "Hello?")), 50, 0.5, 7, label="describe 1 of 3")


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


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
        module.saying_how_to_go_on(["fedmpt", "a b"], is_fresh=is_fresh),
    ):
        raise KeyboardInterrupt
    assert str(stop.value) == f"{said}fedmpt 'a b'"


class Echo(LanguageModel):
    def __init__(self) -> None:
        self.identity = {"provider": "fake", "model": "echo"}

    def ask(self, request: Request) -> Answer:
        return Answer(request.messages[-1].content, prompt_tokens=617, answer_tokens=3)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_that_fits_for_those_who_watch_and_what_went_wrong_for_all(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80, color_system=None, markup=False)
    monkeypatch.setattr(module, "stderr", lambda: console)

    def refuse(answer: Answer) -> str:
        raise BadAnswerError("[red]nonsense[/red]")

    options = LLMOptions(llm="m", attempts=2)
    with module.asking(Echo(), options, total=1, max_requests=9, cache=tmp_path) as asker:
        asker.ask_all([REQUEST], [refuse])
    assert isinstance(console.file, io.StringIO)
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()))
    assert max(map(len, frames)) <= 80 or not is_terminal
    assert any("2/2" in frame for frame in frames) is is_terminal
    assert "describe 1 of 3: no usable answer in 2 attempts" in console.file.getvalue()
    assert "[red]nonsense[/red]" in console.file.getvalue()
    assert "asked for 2 answers (1,234 tokens read, 6 written)\n" in console.file.getvalue()
    with module.asking(Echo(), options, total=1, max_requests=9, cache=tmp_path) as asker:
        asker.ask_all([REQUEST], [refuse])
    assert "asked for 0 answers; 2 kept from before\n" in console.file.getvalue()
