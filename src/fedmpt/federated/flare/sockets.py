"""Bytes between two processes of one machine, by a unix socket: frames, a caller, and a server of one handler.

A frame is its length, 8 bytes with the highest first, and the content. A call is a frame with a key and the content;
its reply is a frame that begins with a byte, `DONE` or `FAILED`. No torch: NVFlare's job processes stay small.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LENGTH = struct.Struct(">Q")
KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)
"""Of a call whose reply nobody will ask for again."""
MAX_BYTES = 2**28
"""No message is longer. The largest method's state has a tenth of that."""
MAX_PATH = 100
"""Bytes. The system takes 107 as the path of a socket."""
MAX_WORDS = 500
DONE, FAILED = b"\0", b"\1"
POLL = 0.25
"""Seconds between two looks at whether a caller should give up."""
PATIENCE = 60.0
"""Seconds without a byte after which a caller that has not sent its whole frame is dropped."""


class NoReplyError(Exception):
    """A call came to nothing; the message says why, in words for people, on one line."""


def send_frame(connection: socket.socket, *parts: bytes) -> None:
    """One frame of all parts together."""
    connection.sendall(LENGTH.pack(sum(map(len, parts))))
    for part in parts:
        if part:  # Nothing, sent to one who has answered already and gone, would be an error.
            connection.sendall(part)


def receive_frame(connection: socket.socket, *, limit: int = MAX_BYTES) -> bytes | None:
    """The next frame; None where the other side ended between two frames.

    Raises:
        EOFError: where it ended within a frame.
        ValueError: for a frame longer than ``limit``. What follows cannot be read any more.
    """
    head = _receive(connection, LENGTH.size)
    if not head:
        return None
    (length,) = LENGTH.unpack(_whole(head, LENGTH.size))
    if length > limit:
        raise ValueError(f"a message of {length} bytes, and {limit} are allowed")
    return bytes(_whole(_receive(connection, length), length))


def _receive(connection: socket.socket, length: int) -> memoryview:
    """``length`` bytes, or fewer where the other side ended."""
    view, done = memoryview(bytearray(length)), 0
    while done < length:
        count = connection.recv_into(view[done:])
        if count == 0:
            break
        done += count
    return view[:done]


def _whole(received: memoryview, length: int) -> memoryview:
    if len(received) < length:
        raise EOFError(f"the message ended after {len(received)} of {length} bytes")
    return received


def call(
    path: Path, content: bytes, *, timeout: float, key: bytes = NO_KEY, should_stop: Callable[[], bool] = lambda: False
) -> bytes:
    """What the handler behind ``path`` makes of ``content``. With the ``key`` of the call before, it is not done anew.

    Raises:
        NoReplyError: if nobody listens, it stops, fails, takes longer than ``timeout`` seconds, or ``should_stop``.
    """
    assert len(key) == KEY_BYTES
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            send_frame(connection, key, content)
            _wait_readable(connection, time.monotonic() + timeout, should_stop)
            connection.settimeout(PATIENCE)
            reply = receive_frame(connection, limit=MAX_BYTES + 1)
        except TimeoutError:
            raise NoReplyError(f"no answer within {timeout:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoReplyError("it is not running, or still starting") from None
        except ValueError as error:
            raise NoReplyError(f"its answer is {error}") from None
        except (OSError, EOFError):
            reply = None
    if not reply:
        raise NoReplyError("it stopped in the middle of the work")
    if reply[:1] != DONE:
        raise NoReplyError(one_line(reply[1:].decode(errors="replace")))
    return reply[1:]


def _wait_readable(connection: socket.socket, deadline: float, should_stop: Callable[[], bool]) -> None:
    connection.settimeout(POLL)
    while not should_stop():
        try:
            connection.recv(1, socket.MSG_PEEK)
            return
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
    raise NoReplyError("the job was ended")


def one_line(words: str) -> str:
    """Shortened, so that it fits a table and a log."""
    words = " ".join(words.split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 4] + " ..."


def serve(path: Path, handle: Callable[[bytes], bytes]) -> None:
    """Answer one call after the other, for as long as the process lives. A socket that is there is replaced.

    The reply to the last call with a key is kept: who calls again with the same key gets it, and ``handle`` is not
    called. A call whose caller is gone before its turn is left out.
    """
    kept: tuple[bytes, bytes] = (NO_KEY, b"")
    with listening(path) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError, EOFError, ValueError):  # A caller that is killed, or sends what is none.
                connection.settimeout(PATIENCE)
                asked = receive_frame(connection, limit=MAX_BYTES + KEY_BYTES)
                if asked is None or len(asked) < KEY_BYTES or not _is_waiting(connection):
                    continue
                key, content = asked[:KEY_BYTES], asked[KEY_BYTES:]
                if key == NO_KEY or key != kept[0]:
                    kept = (key, _reply(handle, content))
                send_frame(connection, kept[1])


def _reply(handle: Callable[[bytes], bytes], content: bytes) -> bytes:
    try:
        return DONE + handle(content)
    except Exception as error:  # Whatever it is: the other side is told, and the next call is another.
        traceback.print_exc()
        named = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return FAILED + one_line(named or type(error).__name__).encode()


def _is_waiting(connection: socket.socket) -> bool:
    """Whether the caller is still there."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    finally:
        connection.settimeout(PATIENCE)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at ``path`` that only this user may call."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
        yield listener


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for sockets that only this user may look into. Its path is short, wherever temporary files go."""
    place = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="fedmpt-", dir=place if len(place) < MAX_PATH - 40 else "/tmp") as folder:
        yield Path(folder)
