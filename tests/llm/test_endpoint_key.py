"""The key is in the head of requests to its own service, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from asked_endpoint import KEY, REQUEST, ask, failure, service_at
from faulty_llm import (
    Behaviour,
    FaultyLLM,
    cut,
    data,
    error,
    event,
    good,
    json_body,
    nonsense,
    stream,
    whole,
)

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.model import TransientError
from fedmpt.llm.service import find_service
from fedmpt.types import InputError


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(code: int) -> None:
    with FaultyLLM() as other:
        found = failure(whole(code, b"", Location=f"{other.url}/chat/completions"))
        assert isinstance(found, InputError)
        assert f"{other.url}/chat/completions" in str(found)
    assert other.asked == []


def test_the_key_stays_away_from_any_other_address_the_library_may_go_to() -> None:
    async def stray(url: str) -> None:
        endpoint = Endpoint("some-model", service_at("http://127.0.0.1:9/v1"))
        messages: Any = [{"role": "user", "content": "Hello?"}]
        await endpoint._client.with_options(base_url=url).chat.completions.create(model="m", messages=messages)
        await endpoint.close()

    with FaultyLLM(json_body(200, {"choices": []})) as server:
        asyncio.run(stray(server.url))
    assert "authorization" not in server.asked[0].headers


def test_a_foreign_endpoint_gets_nothing_that_the_environment_holds_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", f"{KEY}-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}\nX-Other: secret")
    with FaultyLLM() as server:
        ask(find_service(server.url, None, allow_plain_http=False), REQUEST)
    sent = str(server.asked[0].headers)
    assert "authorization" not in server.asked[0].headers
    assert KEY not in sent
    assert "secret" not in sent


def test_the_default_endpoint_gets_the_settings_that_are_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with FaultyLLM() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        ask(find_service(None, None, allow_plain_http=False), REQUEST)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked[0].headers["openai-organization"] == "org-mine"


def test_without_a_key_no_head_with_one_is_sent() -> None:
    for is_default in (True, False):
        with FaultyLLM() as server:
            ask(service_at(server.url, key=None, is_default=is_default), REQUEST)
        assert "authorization" not in server.asked[0].headers


def test_an_endpoint_that_wants_a_key_says_where_to_put_it() -> None:
    with FaultyLLM(error(401, "key?")) as server, pytest.raises(InputError, match="--key-env"):
        ask(find_service(server.url, None, allow_plain_http=False), REQUEST)
    assert "put a key into $MY_KEY" in str(failure(error(401, "key?"), key=None))


LEAKS: dict[str, Callable[[], Behaviour]] = {
    "401": lambda: error(401, f"Incorrect API key provided: {KEY}"),
    "429": lambda: error(429, f"key {KEY} is busy"),
    "400": lambda: error(400, f"key {KEY} asked wrongly"),
    "cut page": lambda: whole(200, b"x" * 66 + KEY.encode(), Content_Type="text/html"),
    "cut error": lambda: error(500, "x" * 286 + KEY),
    "cut broken": lambda: stream(b"data: " + b"x" * 66 + KEY.encode() + b"\n\n"),
    "page": lambda: whole(200, f"<html>{KEY}</html>".encode(), Content_Type="text/html"),
    "event": lambda: stream(data({"error": {"message": f"failed for {KEY}"}})),
    "broken": lambda: stream(b"data: " + KEY.encode() + b"\n\n"),
    "redirect": lambda: whole(307, b"", Location="http://127.0.0.1:9/"),
    "no HTTP": lambda: nonsense,
    "cut": lambda: cut(event("a"), how="reset"),
    "good": lambda: good("fine"),
}


@pytest.mark.parametrize("name", LEAKS)
def test_the_key_appears_in_no_message_log_or_repr(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyLLM(LEAKS[name]()) as server:
        service = service_at(server.url)
        endpoint = Endpoint("some-model", service)
        shown = [repr(service), repr(endpoint), str(dict(endpoint.identity)), repr(endpoint._client)]

        async def talk() -> None:
            try:
                await endpoint.ask(REQUEST)
            except (InputError, TransientError) as error:
                chain: BaseException | None = error
                while chain is not None:
                    shown.extend((str(chain), repr(chain)))
                    chain = chain.__cause__ or chain.__context__
                shown.extend(traceback.format_exception(error))
            finally:
                await endpoint.close()

        asyncio.run(talk())
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    start = KEY[:8]
    assert start not in "\n".join(shown)
    assert "HTTP" in caplog.text
    assert start not in caplog.text
    assert not any(start in str(record.__dict__) for record in caplog.records)
