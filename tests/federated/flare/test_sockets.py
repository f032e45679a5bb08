"""Frames, calls and the server of one handler, over real sockets in this process."""

from __future__ import annotations

import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmpt.federated.flare import sockets
from fedmpt.federated.flare.sockets import (
    NoReplyError,
    call,
    is_listening,
    private_folder,
    receive_frame,
    send_frame,
    serve,
)

KEY = bytes(range(16))


@pytest.fixture
def path() -> Iterator[Path]:
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        yield folder / "worker"


class Worker:
    """Serves in a thread, which ends with the tests."""

    def __init__(self, path: Path) -> None:
        self.calls: list[bytes] = []
        threading.Thread(target=serve, args=(path, self.handle), daemon=True).start()
        until = time.monotonic() + 10
        while not is_listening(path) and time.monotonic() < until:
            time.sleep(0.01)

    def handle(self, content: bytes) -> bytes:
        self.calls.append(content)
        if content == b"slow":
            time.sleep(0.5)
        if content == b"fail":
            raise RuntimeError("no\nluck " + "x" * 1000)
        if content == b"wrong":
            raise ValueError("labels.csv, line 3: no image")
        return content[::-1]


@pytest.fixture
def worker(path: Path) -> Worker:
    return Worker(path)


def test_a_call_gets_the_handlers_reply(path: Path, worker: Worker) -> None:
    content = bytes(range(256)) * 4000
    assert call(path, content, timeout=10) == content[::-1]
    assert call(path, b"", timeout=10) == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_key_is_not_worked_on_twice(path: Path, worker: Worker) -> None:
    assert [call(path, b"ab", timeout=10, key=KEY) for _ in range(2)] == [b"ba", b"ba"]
    assert worker.calls == [b"ab"]
    call(path, b"ab", timeout=10, key=KEY[::-1])
    call(path, b"ab", timeout=10)
    call(path, b"ab", timeout=10)
    assert worker.calls == [b"ab"] * 4


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"fail", r"^RuntimeError: no luck x{400,480} \.\.\.$"), (b"wrong", r"^labels.csv, line 3: no image$")],
)
def test_a_handler_that_fails_says_why_and_goes_on(path: Path, worker: Worker, content: bytes, said: str) -> None:
    with pytest.raises(NoReplyError, match=said):
        call(path, content, timeout=10)
    assert call(path, b"ab", timeout=10) == b"ba"


def test_who_gives_up_does_not_keep_the_worker_busy(path: Path, worker: Worker) -> None:
    with pytest.raises(NoReplyError, match=r"no answer within 0.1 s"):
        call(path, b"slow", timeout=0.1)
    with pytest.raises(NoReplyError, match="the job was ended"):
        call(path, b"never done", timeout=10, should_stop=lambda: True)
    assert call(path, b"ab", timeout=10) == b"ba"
    assert worker.calls == [b"slow", b"ab"]


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(NoReplyError, match="not running, or still starting"):
        call(path, b"x", timeout=1)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(NoReplyError, match="not running, or still starting"):
        call(path, b"x", timeout=1)
    Worker(path)
    assert call(path, b"ab", timeout=10) == b"ba"


def test_a_worker_that_dies_or_says_too_much(path: Path) -> None:
    replies = [b"", struct.pack(">Q", 5) + b"\0ab", struct.pack(">Q", 2**62)]

    def answer() -> None:
        for reply in replies:
            connection, _ = listener.accept()
            with connection:
                receive_frame(connection)
                connection.sendall(reply)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        for said in ("stopped in the middle", "stopped in the middle", r"a message of 4611686018427387904 bytes"):
            with pytest.raises(NoReplyError, match=said):
                call(path, b"x", timeout=5)
        thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        struct.pack(">Q", 2**63),
        struct.pack(">Q", 100) + b"short",
        struct.pack(">Q", 3) + b"abc",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_hostile_callers_do_not_end_the_worker(path: Path, worker: Worker, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(sent)
    assert call(path, b"ab", timeout=10) == b"ba"
    assert worker.calls == [b"ab"]


def test_frames_by_hand() -> None:
    near, far = socket.socketpair()
    with near, far:
        send_frame(near, b"ab", b"", b"c")
        assert far.recv(100) == b"\0\0\0\0\0\0\0\x03abc"
        far.sendall(b"\0\0\0\0\0\0\0\x02xy\0\0\0\0\0\0\0\0\0\0\0\0")
        assert receive_frame(near) == b"xy"
        assert receive_frame(near) == b""
        far.close()
        with pytest.raises(EOFError, match="4 of 8"):
            receive_frame(near)
        assert receive_frame(near) is None


def test_a_frame_over_the_limit_is_not_read() -> None:
    near, far = socket.socketpair()
    with near, far:
        send_frame(near, b"abc")
        with pytest.raises(ValueError, match="3 bytes, and 2 are allowed"):
            receive_frame(far, limit=2)


def test_a_long_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(sockets.tempfile, "tempdir", str(long))
    with private_folder() as folder:
        Worker(folder / "worker")
        assert call(folder / "worker", b"ab", timeout=10) == b"ba"


def test_nothing_is_sent_for_an_empty_part_of_a_frame() -> None:
    """Who has the whole frame may answer and go: to send nothing to it would then be an error, now and then."""
    sent: list[bytes] = []

    class Connection(socket.socket):
        def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
            sent.append(data)

    with Connection() as connection:
        send_frame(connection, b"key", b"", b"content")
    assert sent == [struct.pack(">Q", 10), b"key", b"content"]
