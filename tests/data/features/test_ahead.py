from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from fedmpt.data.features import ahead as ahead
from fedmpt.data.features.ahead import map_ahead, progress_bar


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

    monkeypatch.setattr(ahead, "ThreadPoolExecutor", Pool)
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
    with progress_bar("reading", 2, enabled=enabled) as advance:
        advance(2)
    captured = capsys.readouterr()
    assert ("reading" in captured.err and "2/2" in captured.err) == (terminal and enabled)
    assert captured.out == ""
