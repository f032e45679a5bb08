"""At the coordinator, in NVFlare's job process: takes asks from the driver to the sites, and their answers back.

No torch, and nothing of what the bytes mean.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.wf_comm_spec import WFCommSpec

from fedmpt.federated.flare import bridge
from fedmpt.federated.flare.executor import ASK, CONTENT, ERROR, LIMIT, SECONDS, TASK
from fedmpt.federated.flare.sockets import one_line

TICK = 0.1
"""Seconds between two looks at deadlines and silence."""
ABSENT = 8.0
"""Seconds without a word of a site's job process, which asks for work twice a second, after which it is not there."""
SILENCE = 20.0
"""The same while it works, when it sends a sign of life every 3 seconds: a line that is busy or broken for a moment
must not cost an answer."""
INTERVAL, MAX_INTERVAL, SHARE = 0.5, 4.0, 0.05
"""Seconds between two times that an idle site asks for work, which takes 5 kB: the least, the most, and as a share of
the time that nothing came. So waiting for that costs a long round little, and a long pause little traffic."""
Result = tuple[str, str, Any]
"""A site, the number of the ask, and what came from it."""


@dataclass(frozen=True)
class Open:
    """What a site has been asked and not answered."""

    task: Task
    number: str
    timeout: float
    limit: int
    since: float


class BridgeController(Controller):  # type: ignore[misc]  # nvflare has no types.
    def __init__(self) -> None:
        super().__init__(task_check_period=TICK)
        self._driver = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._asks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._awake = threading.Event()
        self._heard: dict[str, float] = {}
        self._present: list[str] = []
        self._open: dict[str, Open] = {}
        self._last_ask = time.monotonic()

    def set_communicator(self, communicator: WFCommSpec) -> None:
        super().set_communicator(communicator)
        inner = communicator.client_is_active

        def is_active(client_name: str, reason: str, fl_ctx: FLContext) -> None:
            self._heard[client_name] = time.monotonic()
            inner(client_name, reason, fl_ctx)

        communicator.client_is_active = is_active  # NVFlare tells nobody else when it hears from a site.

    def start_controller(self, fl_ctx: FLContext) -> None:
        self._driver.connect(os.environ[bridge.DRIVER_SOCKET])
        sites = [client.name for client in fl_ctx.get_engine().get_clients()]
        bridge.send(self._driver, bridge.HELLO, {"job": str(fl_ctx.get_job_id()), "sites": sites})
        threading.Thread(target=self._listen, daemon=True).start()

    def stop_controller(self, fl_ctx: FLContext) -> None:
        self._driver.close()

    def process_result_of_unknown_task(self, *args: Any, **words: Any) -> None:
        """A late answer. Nobody waits for it."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        settings = fl_ctx.get_prop(FLContextKey.RUNNER).config
        while not abort_signal.triggered:
            idle = 0.0 if self._open else time.monotonic() - self._last_ask
            settings.task_request_interval = min(max(INTERVAL, SHARE * idle), MAX_INTERVAL)
            self._awake.wait(TICK)
            self._awake.clear()
            while not self._results.empty():
                self._answer(*self._results.get())
            while not self._asks.empty():
                asked = self._asks.get()
                if asked is None:  # The driver has ended, and so does the job.
                    return
                self._ask(*asked, fl_ctx=fl_ctx)
            self._look(time.monotonic())

    def _listen(self) -> None:
        while (asked := bridge.receive(self._driver)) is not None:
            self._asks.put(asked)
            self._awake.set()
        self._asks.put(None)
        self._awake.set()

    def _ask(self, words: dict[str, Any], contents: list[bytes], *, fl_ctx: FLContext) -> None:
        for left in self._open.values():  # The driver waits for one ask at a time.
            self.cancel_task(left.task)
        self._open.clear()
        self._last_ask = time.monotonic()
        number, timeout, limit = str(words["number"]), float(words["timeout"]), int(words["limit"])
        for sites, content in zip(words["sites"], contents, strict=True):
            for site in sites:
                data = Shareable()
                data.update({ASK: number, CONTENT: content, SECONDS: timeout, LIMIT: limit})
                task = Task(name=TASK, data=data, result_received_cb=self._received)
                self._open[site] = Open(task, number, timeout, limit, time.monotonic())
                self.broadcast(task=task, fl_ctx=fl_ctx, targets=[site], min_responses=1)

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        """In a thread of NVFlare's that holds its locks: what takes time is done in `control_flow`."""
        result, client_task.result = client_task.result, None  # Else NVFlare keeps it until the task is cleared away.
        self._results.put((client_task.client.name, str(client_task.task.data.get(ASK)), result))
        self._awake.set()

    def _answer(self, site: str, number: str, result: Any) -> None:
        asked = self._open.get(site)
        if asked is None or asked.number != number:  # Too late.
            return
        content, error = checked(result, number=number, limit=asked.limit)
        self._close(site, error, content)

    def _look(self, now: float) -> None:
        """Who is there, and whose time is over."""
        present = sorted(site for site, heard in self._heard.items() if now - heard < ABSENT)
        if present != self._present:
            self._present = present
            self._tell(bridge.PRESENT, {"sites": present})
        for site, asked in list(self._open.items()):
            if now - asked.since > asked.timeout:
                self._close(site, bridge.TIME_OVER)
            elif now - max(asked.since, self._heard.get(site, 0.0)) > SILENCE:
                self._close(site, f"no sign of life for {SILENCE:g} s")
            elif site not in present and not asked.task.client_tasks:
                self._close(site, "its job process is gone")

    def _close(self, site: str, error: str, content: bytes = b"") -> None:
        asked = self._open.pop(site)
        self.cancel_task(asked.task)
        self._tell(bridge.ANSWER, {"number": asked.number, "site": site, "error": error}, content)

    def _tell(self, kind: str, words: dict[str, Any], *bodies: bytes) -> None:
        try:
            bridge.send(self._driver, kind, words, *bodies)
        except OSError:
            self._asks.put(None)


def checked(result: Any, *, number: str, limit: int) -> tuple[bytes, str]:
    """Content and error of what came from a site, which may be anything."""
    words = result if isinstance(result, dict) else {}
    content, error = words.get(CONTENT), words.get(ERROR)
    if type(error) is str and error:
        return b"", one_line(error)
    if type(content) is not bytes:
        code = result.get_return_code("") if isinstance(result, Shareable) else ""
        return b"", one_line(f"its job process sent no answer ({code or type(content).__name__})")
    if words.get(ASK) != number:
        return b"", "its job process sent the answer to something else"
    if len(content) > limit:
        return b"", f"its answer has {len(content)} bytes, and {limit} are allowed"
    return content, ""
