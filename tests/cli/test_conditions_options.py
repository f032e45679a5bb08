"""Wrong options of `fedmpt conditions`: said in one line, before anything that takes time or money."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command, Outcome, snapshot
from scripted_endpoint import ScriptedEndpoint

from fedmpt.cli.conditions import SUBCOMMANDS

AT = ["--llm", "m", "--endpoint", "http://127.0.0.1:9/v1"]


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in a folder with a list of classes; nobody's own settings matter."""
    (tmp_path / "classes.txt").write_text("cat\ndog\nchair\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDMPT_CACHE", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def assert_said(outcome: Outcome, message: str) -> None:
    """One line and nothing else."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"fedmpt conditions: {message}"), outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_there_is_a_list_of_them(run: Command, words: list[str]) -> None:
    listed = run("conditions", *words)
    assert (listed.code, listed.err) == (0, "")
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in listed.out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_command_has_help_with_an_example(run: Command, name: str) -> None:
    shown = run("conditions", name, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert f"fedmpt conditions {name}" in shown.out.partition("For example:")[2]


def test_an_unknown_command_is_refused_with_those_that_there_are(run: Command) -> None:
    assert_said(run("conditions", "make"), f"unknown command 'make'; there are: {', '.join(SUBCOMMANDS)}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*AT], "give one of --classes FILE, --data NAME:PATH and --counts FILE ...; got none"),
        ([*AT, "--counts"], "give one of --classes FILE, --data NAME:PATH and --counts FILE ...; got none"),
        ([*AT, "--classes", "classes.txt", "--data", "voc:x"], "give one of --classes FILE"),
        ([*AT, "--classes", "classes.txt", "--counts", "a.json"], "give one of --classes FILE"),
        ([*AT, "--classes", "classes.txt", "--epsilon", "1"], "--epsilon is for --data; sites add noise with"),
        ([*AT, "--counts", "a.json", "--epsilon", "1"], "--epsilon is for --data"),
        ([*AT, "--data", "voc:none", "--epsilon", "-1"], "epsilon is -1.0; give"),
        ([*AT, "--data", "voc:none", "--budget", "0"], "--budget must be in [1, inf), got 0"),
        ([*AT, "--data", "voc:none", "--min-images", "0"], "--min-images must be in [1, inf), got 0"),
        ([*AT, "--data", "voc:none", "--max-requests", "1"], "--max-requests must be at least 2"),
        ([*AT, "--data", "voc:none", "--num", "0"], "--num must be in [1, 16], got 0"),
        ([*AT, "--data", "voc:none", "--temperature", "nan"], "--temperature must be in [0, 2], got nan"),
        ([*AT, "--data", "voc:none", "--max-tokens", "8000"], "--context-tokens 8192 is too little for answers"),
        ([*AT, "--data", "voc:none", "--pictures", "a\nb"], r"--pictures is 'a\nb'; expected one line"),
        ([*AT, "--data", "voc:none", "--name", ""], "--name is ''; expected one line"),
        ([*AT, "--data", "voc:none", "--out", "."], "--out . is a folder; give a file"),
        ([*AT, "--data", "voc:none", "--out", "classes.txt/c.json"], "--out classes.txt/c.json: "),
        ([*AT, "--classes", "classes.txt", "--out", "./classes.txt"], "--out classes.txt is a file that is read"),
        ([*AT, "--counts", "classes.txt", "--out", "classes.txt"], "--out classes.txt is a file that is read"),
        ([*AT, "--data", "voc:none", "--out", "mine"], "--out mine must end in .json"),
        ([*AT, "--data", "voc:none", "--concurrency", "0"], "--concurrency must be positive, got 0"),
        ([*AT, "--data", "voc:none", "--timeout", "0"], "--timeout must be positive"),
        (["--data", "voc:none"], "--llm is missing: give a model's name at an endpoint, a .gguf file"),
        (["--data", "voc:none", "--llm", "m"], "$OPENAI_API_KEY is not set"),
        (["--data", "voc:none", "--llm", "none.gguf"], "none.gguf is no folder with a config.json, and no file"),
        (["--data", "voc:none", "--llm", "./none"], "none is no folder with a config.json, and no file"),
        ([*AT, "--data", "voc:none", "--key-env", "NO_SUCH_KEY"], "the variable that --key-env names is not set"),
        ([*AT, "--data", "voc:none"], "none is no folder"),
        ([*AT, "--data", "cov:none"], "'cov:none': unknown data set 'cov'"),
        ([*AT, "--classes", "none.txt"], "none.txt is no file"),
        ([*AT, "--counts", "none.json"], "none.json cannot be read: No such file"),
    ],
)
def test_generate_checks_options_then_the_model_then_the_data(
    run: Command, here: Path, words: list[str], said: str
) -> None:
    before = snapshot(here)
    assert_said(run("conditions", "generate", "--out", "c.json", *words), said)
    assert snapshot(here) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of --classes FILE and --data NAME:PATH; got none"),
        (["--classes", "classes.txt", "--data", "voc:x"], "give one of --classes FILE and --data NAME:PATH; got both"),
        (["--data", "voc:none", "--num", "17"], "--num must be in [1, 16], got 17"),
        (["--data", "voc:none", "--name", "a\tb"], r"--name is 'a\tb'; expected one line"),
        (["--data", "voc:none", "--out", "."], "--out . is a folder; give a file"),
        (["--data", "voc:none", "--key-env", "NO_SUCH_KEY"], "the variable that --key-env names is not set"),
        (["--data", "voc:none"], "none is no folder"),
        (["--classes", "classes.txt", "--out", "classes.txt"], "--out classes.txt is a file that is read"),
    ],
)
def test_attributes_checks_options_then_the_model_then_the_data(
    run: Command, here: Path, words: list[str], said: str
) -> None:
    before = snapshot(here)
    assert_said(run("conditions", "attributes", "--out", "a.json", *AT, *words), said)
    assert snapshot(here) == before


def test_a_place_that_cannot_be_written_to_is_found_before_anything_is_asked(
    run: Command, here: Path, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    # Rights do not bind whoever runs tests as root.
    monkeypatch.setattr(Path, "mkdir", refuse)
    refused = run("conditions", "generate", "--classes", "classes.txt", "--out", "new/c.json", *endpoint.words())
    assert_said(refused, "new: Permission denied")
    assert endpoint.asked == []


def test_a_run_without_a_network_says_how_to_go_on(run: Command, here: Path) -> None:
    words = ["--classes", "classes.txt", "--out", "c.json", *AT, "--retries", 0]
    failed = run("conditions", "generate", *words)
    assert (failed.code, failed.out) == (2, "")
    last = failed.err.splitlines()[-1]
    assert last.startswith("fedmpt conditions: no connection to http://127.0.0.1:9/v1: ")
    assert last.endswith("the same command goes on from there")
    assert "Traceback" not in failed.err
