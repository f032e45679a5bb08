"""One question to an endpoint at a server with faults."""

from __future__ import annotations

import asyncio
from typing import Any

from faulty_llm import Behaviour, FaultyLLM

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.model import Answer, Message, Request, TransientError
from fedmpt.llm.service import Service
from fedmpt.types import InputError

KEY = "sk-test-0123456789abcdef"
REQUEST = Request((Message("system", "Be short."), Message("user", "Hello?")), max_tokens=50, temperature=0.5, seed=7)


def service_at(url: str, *, key: str | None = KEY, is_default: bool = False) -> Service:
    return Service(url, is_default=is_default, key=key, key_env="MY_KEY")


def ask(service: Service, *requests: Request, **options: Any) -> list[Answer]:
    """All at once, with one endpoint."""

    async def talk() -> list[Answer]:
        endpoint = Endpoint("some-model", service, **options)
        try:
            return list(await asyncio.gather(*map(endpoint.ask, requests)))
        finally:
            await endpoint.close()

    return asyncio.run(talk())


def answer_to(*script: Behaviour, key: str | None = KEY, **options: Any) -> Answer:
    with FaultyLLM(*script) as server:
        return ask(service_at(server.url, key=key), REQUEST, **options)[0]


def failure(*script: Behaviour, **options: Any) -> Exception:
    try:
        answer = answer_to(*script, **options)
    except (InputError, TransientError) as error:
        return error
    raise AssertionError(answer)
