"""What the driver and the job's controller say to each other over a unix socket: frames of words and bytes. No torch.

From the driver: an ask. From the controller: which job it is, whom it hears, and answers.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from fedmpt.federated.flare.sockets import receive_frame, send_frame

DRIVER_SOCKET = "FEDMPT_DRIVER_SOCKET"
WORDS = struct.Struct(">I")
MAX_FRAME = 2**40
"""An ask holds the content of every site. Only processes of ours use this socket."""
TIME_OVER = "time is over"
"""The error of a site that did not answer in time."""
HELLO, PRESENT, ASK, ANSWER = "hello", "present", "ask", "answer"


def send(connection: socket.socket, kind: str, words: Mapping[str, Any], *bodies: bytes) -> None:
    head = json.dumps({"kind": kind, **words, "lengths": [len(body) for body in bodies]}).encode()
    send_frame(connection, WORDS.pack(len(head)), head, *bodies)


def receive(connection: socket.socket) -> tuple[dict[str, Any], Sequence[bytes]] | None:
    """Words and bodies of the next frame; None where the other side has ended."""
    try:
        frame = receive_frame(connection, limit=MAX_FRAME)
    except (EOFError, OSError):
        return None
    if frame is None:
        return None
    (length,) = WORDS.unpack_from(frame)
    place = WORDS.size + length
    words, bodies = json.loads(frame[WORDS.size : place]), []
    for size in words.pop("lengths"):
        bodies.append(frame[place : place + size])
        place += size
    return words, bodies
