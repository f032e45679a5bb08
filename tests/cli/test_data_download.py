"""``fedmpt data download``: words in, a folder that ``--data`` takes out, one line where it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command
from faulty_server import FaultyServer, hang
from tiny_archives import VOC_PATH, tiny_voc_source

from fedmpt.data import download, load_data


@pytest.fixture(autouse=True)
def wired(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    source, files = tiny_voc_source(tmp_path / "made")
    monkeypatch.setitem(download.SOURCES, "voc2007", source)
    with FaultyServer(files) as running:
        yield running


def test_a_set_is_fetched_and_used(server: FaultyServer, run: Command, tmp_path: Path) -> None:
    out = tmp_path / "a [b]" / "VOCdevkit"
    done = run("data", "download", "voc2007", "--out", out, "--mirror", server.url)
    assert done.code == 0
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0] == "terms of voc"
    assert lines[1].startswith(f"fetching {server.url}{VOC_PATH}VOCtrainval.tar (")
    assert lines[-1] == f"{out} is complete; use it with --data voc:{out}"
    assert len(load_data(f"voc:{out}").train) == 24


def test_options_reach_the_download(server: FaultyServer, run: Command, tmp_path: Path) -> None:
    words = ("data", "download", "voc2007", "--out", tmp_path / "a", "--mirror", server.url, "--keep-archives")
    assert run(*words, "--parts", "test").code == 0
    assert sorted(os.listdir(tmp_path / "a")) == [".fedmpt-downloaded", ".fedmpt.lock", "VOC2007", "VOCtest.tar"]
    assert run(*words, "--parts", "trainval", "test").code == 0
    assert len(server.asked) == 2


def assert_refused(run: Command, message: str, *words: object) -> None:
    """One line, the last, after lines of what was done till then."""
    done = run("data", *words)
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("fedmpt data: ")
    assert message in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parts", "tset"), "unknown part 'tset'; did you mean 'test'"),
        (("--mirror", "example.org"), "--mirror 'example.org' is no address"),
    ],
)
def test_wrong_words(run: Command, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    assert_refused(run, message, "download", "voc2007", "--out", tmp_path / "a", *words)
    assert not (tmp_path / "a").exists()


def test_an_out_that_is_a_file(run: Command, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert_refused(run, "is a file; give a folder", "download", "voc2007", "--out", tmp_path / "a")


def test_the_command_alone_lists_what_there_is(run: Command) -> None:
    for words in ((), ("--help",), ("-h",)):
        listed = run("data", *words)
        assert listed.code == 0
        assert "download   fetch" in listed.out
    assert_refused(run, "unknown command 'downlaod'", "downlaod", "voc2007")


def test_help_names_every_set_and_part(run: Command) -> None:
    shown = run("data", "download", "--help")
    assert shown.code == 0
    for name, source in download.SOURCES.items():
        assert name in shown.out
        assert all(archive.part in shown.out for archive in source.archives)


DRIVER = """
import signal
import sys
from pathlib import Path
# A shell that starts tests in the background has the signal ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from tiny_archives import tiny_voc_source
from fedmpt.cli import main as cli
from fedmpt.data import download
download.SOURCES["voc2007"] = tiny_voc_source(Path(sys.argv[2]))[0]
cli.main(sys.argv[3:])
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_download_goes_on(server: FaultyServer, run: Command, tmp_path: Path, kind: signal.Signals) -> None:
    server.script.append(hang(1000))
    words = ["download", "voc2007", "--out", str(tmp_path / "a b"), "--mirror", server.url]
    helpers = str(Path(__file__).resolve().parents[1] / "support")
    command = [sys.executable, "-c", DRIVER, helpers, str(tmp_path / "theirs"), "data", *words]
    part = tmp_path / "a b" / "VOCtrainval.tar.part"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == 1000):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kind)
        said = process.communicate(timeout=60)[1]
    if kind == signal.SIGINT:
        assert process.returncode == 130
        expected = f"fedmpt data download voc2007 --out '{tmp_path}/a b' --mirror {server.url}"
        assert said.splitlines()[-1] == f"fedmpt data: interrupted; what has come is kept, go on with: {expected}"
    assert run("data", *words).code == 0
    assert server.asked[1].start == 1000
    assert sorted(os.listdir(tmp_path / "a b")) == [".fedmpt-downloaded", ".fedmpt.lock", "VOC2007"]
