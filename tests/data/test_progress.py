from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from fedmpt.data import progress as module
from fedmpt.data.progress import map_ahead, progress_bar


def test_order_is_kept_whoever_finishes_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(30)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(map_ahead(work, range(10), num_workers=2, ahead=4)) == [item * item for item in range(10)]


def test_no_more_than_ahead_is_held() -> None:
    started: list[int] = []
    num_taken = 0
    for _ in map_ahead(lambda item: started.append(item), range(100), num_workers=3, ahead=5):
        num_taken += 1
        # The one just taken may have made room for one more.
        assert len(started) <= num_taken + 5
    assert num_taken == 100


def test_leaving_early_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    is_ending = threading.Event()

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *error: Any) -> Any:
            is_ending.set()
            return super().__exit__(*error)

    def work(item: int) -> None:
        started.append(item)
        assert item == 0 or is_ending.wait(30)

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    with closing(map_ahead(work, range(1000), num_workers=1, ahead=50)) as stream:
        next(stream)
    assert started in ([0], [0, 1])


def test_errors_arrive_at_their_place() -> None:
    stream = map_ahead(lambda item: 1 // (item - 2), range(5), num_workers=2, ahead=3)
    assert [next(stream), next(stream)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_bar_is_for_people_at_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, enabled: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("reading [a]", 2, enabled=enabled) as advance:
        advance(2)
    captured = capsys.readouterr()
    assert ("reading [a]" in captured.err and "2/2" in captured.err) == (terminal and enabled)
    assert captured.out == ""


def test_a_bar_of_bytes_may_begin_anew(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("a.tar", 4_000_000, num_done=2_000_000, in_bytes=True) as advance:
        advance(-2_000_000)
        advance(1_000_000)
    assert "1.0/4.0 MB" in capsys.readouterr().err


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with (
        progress_bar("a.tar", 1_000_000, num_done=400_000, in_bytes=True) as receive,
        progress_bar("drawing", 5000, is_long=True) as draw,
    ):
        for seconds, received, drawn in ((10, 50_000, 0), (30, 100_000, 0), (60, 150_000, 1000), (99, 300_000, 4000)):
            now[0] = seconds
            receive(received)
            draw(drawn)
    assert capsys.readouterr().err.splitlines() == [
        "drawing (5000)",
        "a.tar: 550.0 kB of 1.0 MB, 0:01:30 left",
        "drawing: 0 of 5,000, nothing new so far",
        "a.tar: 700.0 kB of 1.0 MB, 0:01:00 left",
        "drawing: 1,000 of 5,000, 0:04:00 left",
    ]
