"""Tasks of an event loop, of which none outlives those who wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


def refuse_event_loop() -> None:
    """Raises RuntimeError inside an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an Asker has an event loop of its own, and another one runs here (notebooks have one); use and close it in a "
        "function that `await asyncio.to_thread(function)` runs"
    )


async def run_all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for everything, or raise the first error, with the rest cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task in done:
                task.result()
    finally:
        await stop(tasks)


async def stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # Looked at, or asyncio complains that nobody did.
