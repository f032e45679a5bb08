"""Questions to a local model."""

from __future__ import annotations

import asyncio

from fedmpt.llm.local import LocalModel
from fedmpt.llm.model import Answer, Message, Request

SYSTEM, USER = Message("system", "You describe photos."), Message("user", "A cat on a chair.")


def request(*messages: Message, max_tokens: int = 12, temperature: float = 0.7, seed: int = 0) -> Request:
    return Request(messages or (SYSTEM, USER), max_tokens, temperature, seed)


def ask(model: LocalModel, *asked: Request) -> list[Answer]:
    """One after the other."""

    async def all_of_them() -> list[Answer]:
        return [await model.ask(each) for each in asked]

    return asyncio.run(all_of_them())
