"""A site's worker that says back what it is asked, run as a script. Some words it takes as orders."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fedmpt.federated.flare.sockets import serve

MADE = Path(os.environ["FEDMPT_WORKER_SOCKET"]).parent / "calls"


def handle(content: bytes) -> bytes:
    order, _, number = content[:100].partition(b" ")
    with MADE.open("a") as file:
        file.write("call\n")
    if order == b"sleep":
        time.sleep(float(number))
    elif order == b"big":
        return bytes(int(number))
    elif order == b"fail":
        raise RuntimeError("this worker\nfails")
    elif order == b"count":
        return str(len(MADE.read_text().splitlines())).encode()
    elif order == b"pid":
        return str(os.getpid()).encode()
    return content


if __name__ == "__main__":
    if sys.argv[1:] == ["wrong-input"]:
        sys.exit(2)
    serve(Path(os.environ["FEDMPT_WORKER_SOCKET"]), handle)
