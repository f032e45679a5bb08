"""When to ask: the distance between requests, and how long to wait after a failure."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds; `asyncio.sleep`, or a test's."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONGEST_ASKED_WAIT_S = 300.0
"""A server that asks for a longer wait is asked again after this one."""


class Pace:
    """Spaces requests evenly, and holds all of them back while the other side wants to be left alone.

    Args:
        per_minute: requests a minute; None leaves them free.
        sleep: waits.
        clock: seconds that only grow.
    """

    def __init__(
        self, per_minute: float | None, *, sleep: Sleep = asyncio.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._sleep = sleep
        self._clock = clock
        self._next = float("-inf")
        self._queue = asyncio.Lock()
        # Of its own, so that nobody's random numbers depend on the weather of the network.
        self._random = random.Random()

    async def turn(self) -> None:
        """Returns when the next request may go out; who comes first goes first."""
        async with self._queue:
            while (wait := self._next - self._clock()) > 0:  # It may have been put off in the meantime.
                await self._sleep(wait)
            self._next = self._clock() + self._interval_s

    def wait_s(self, failures: int, asked_s: float | None) -> float:
        """Seconds to wait after so many failures of one request, 1 or more.

        1, 2, 4, ... up to `LONGEST_WAIT_S`, less up to a quarter by chance, so that clients that failed together do
        not come back together; at least what the other side asks for, up to `LONGEST_ASKED_WAIT_S`.
        """
        backoff = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 30)) * self._random.uniform(0.75, 1.0)
        return max(backoff, min(asked_s or 0.0, LONGEST_ASKED_WAIT_S))

    async def rest(self, seconds: float, *, everybody: bool) -> None:
        """Wait before one request is tried again; ``everybody`` holds back requests that have not gone out yet too."""
        if everybody:
            self._next = max(self._next, self._clock() + seconds)
        await self._sleep(seconds)
