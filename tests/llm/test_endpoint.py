"""Answers of endpoints: those within the rules, those nearly so, and those that need another way of asking."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from asked_endpoint import KEY, REQUEST, answer_to, ask, failure, service_at
from faulty_llm import (
    DONE,
    USAGE,
    Behaviour,
    FaultyLLM,
    cut,
    data,
    error,
    event,
    good,
    json_body,
    meeting,
    stream,
    whole,
)

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.model import Answer, Message, Request
from fedmpt.types import InputError


def test_an_answer_is_put_together_and_its_tokens_are_counted() -> None:
    assert answer_to(good("Hel", "lo", "!")) == Answer("Hello!", "stop", 11, 7)


def test_the_request_is_a_streamed_chat_completion() -> None:
    with FaultyLLM() as server:
        ask(service_at(server.url), REQUEST)
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def plain(text: str | None, *, finish: str | None = "stop", **message: Any) -> Behaviour:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return json_body(200, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (good("cut", finish="length"), Answer("cut", "length", 11, 7)),
        (good("", finish="content_filter"), Answer("", "refusal", 11, 7)),
        (stream(event(refusal="I can"), event(refusal="not.", finish="stop"), DONE), Answer("I cannot.", "refusal")),
        (good("text", finish="tool_calls"), Answer("text", "stop", 11, 7)),
        # Not streamed although that was asked for.
        (plain("whole"), Answer("whole", "stop", 3, 2)),
        (plain("whole", finish=None), Answer("whole", "stop", 3, 2)),
        (plain("cut", finish="length"), Answer("cut", "length", 3, 2)),
        (plain(None, refusal="No."), Answer("No.", "refusal", 3, 2)),
        # What services do within the rules, or nearly.
        (stream(b": wait\n\n", b"event: ping\ndata: {}\n\n", event("a"), event(finish="stop")), Answer("a")),
        (stream(event("a", finish="stop").replace(b"\n", b"\r\n"), DONE), Answer("a")),
        (stream(event("a"), DONE), Answer("a")),
        (stream(event("a"), event(finish="stop"), DONE.rstrip()), Answer("a")),
        (stream(*[bytes([byte]) for byte in event("é\u2028b", finish="stop")]), Answer("é\u2028b")),
        (stream(event("\ud83d"), event("\ude00", finish="stop")), Answer("😀")),
        (stream(event("\ud83d!", finish="stop")), Answer("�!")),
        (stream(event("a", finish="stop"), kind="text/plain"), Answer("a")),
        (stream(event(content=[{"type": "thinking"}, {"type": "text", "text": "a"}], finish="stop")), Answer("a")),
        (stream(event(reasoning_content="hm"), event("a", finish="stop")), Answer("a")),
        (stream(data({"choices": [{"index": 1, "delta": {"content": "b"}}]}), event("a", finish="stop")), Answer("a")),
        (stream(event("a", finish="stop"), data({"choices": [], "usage": {"prompt_tokens": "many"}})), Answer("a")),
        # Two ways to say the same: the piece, and all that was said so far.
        (
            stream(
                data({"choices": [{"delta": {"content": "a"}, "message": {"content": "a"}}]}),
                data({"choices": [{"delta": {}, "message": {"content": "a"}, "finish_reason": "stop"}]}),
            ),
            Answer("a"),
        ),
        (json_body(200, {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}), Answer("a")),
        (whole(200, b'\xef\xbb\xbf\r\n{"choices": [{"message": {"content": "a"}}]}'), Answer("a")),
        (stream(b"\xef\xbb\xbf", event("a", finish="stop")), Answer("a")),
        # The end was said; what happens to the connection then does not matter.
        (cut(event("a"), event(finish="stop"), how="reset"), Answer("a")),
        (cut(event("a"), event(finish="stop"), USAGE, how="chunk"), Answer("a", "stop", 11, 7)),
    ],
)  # fmt: skip
def test_what_counts_as_an_answer(behaviour: Behaviour, expected: Answer) -> None:
    assert answer_to(behaviour) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>First, 1.\nThen 2.</think>\n\nanswer", "answer"),
        ("\n<think>\n\n</think>answer", "answer"),
        ("First, 1.</think>answer", "answer"),
        ("<think>never done", ""),
        ("answer with <think>tags</think> inside", "answer with <think>tags</think> inside"),
        ("answer", "answer"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(text: str, expected: str) -> None:
    assert answer_to(good(text)).text == expected


UNSUPPORTED = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "Unsupported value: 'temperature' does not support 0.5 with this model.",
    "seed": "property 'seed' is unsupported",
    "stream_options": "Unrecognized request argument supplied: stream_options",
    "stream": "Your organization must be verified to stream this model.",
    "system": "System role not supported",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_an_endpoint_does_not_support_is_left_out_from_then_on(name: str) -> None:
    param = name if name in ("max_tokens", "temperature", "stream") else None
    behaviour = error(400, UNSUPPORTED[name], param=param, code="unsupported_parameter")
    with FaultyLLM(behaviour) as server:

        async def talk() -> tuple[str, ...]:
            endpoint = Endpoint("some-model", service_at(server.url))
            for _ in range(2):
                assert (await endpoint.ask(REQUEST)).text == "fine"
            await endpoint.close()
            return endpoint.ignored

        left_out = asyncio.run(talk())
    first, second, third = (dict(asked.body) for asked in server.asked)
    assert second == third
    assert left_out == ((name,) if name in ("temperature", "seed") else ())
    if name == "system":
        assert second["messages"] == [{"role": "user", "content": "Be short.\n\nHello?"}]
        return
    expected = {key: value for key, value in first.items() if key != name}
    if name == "max_tokens":
        expected["max_completion_tokens"] = 50
    if name == "stream":
        del expected["stream_options"]
    assert second == expected


def test_several_unsupported_parameters_are_left_out_one_after_the_other() -> None:
    extra = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}
    script = [
        json_body(422, {"detail": [extra]}),
        *(error(400, UNSUPPORTED[name]) for name in ("max_tokens", "stream")),
    ]
    with FaultyLLM(*script) as server:
        assert ask(service_at(server.url), REQUEST)[0].text == "fine"
    assert set(server.asked[-1].body) == {"model", "messages", "temperature", "max_completion_tokens"}


def test_an_endpoint_that_is_never_content_is_not_asked_for_ever() -> None:
    found = failure(*[error(400, UNSUPPORTED["seed"])] * 5)
    assert isinstance(found, InputError)
    assert "seed" in str(found)


def test_requests_under_way_together_learn_the_same() -> None:
    requests = [Request((Message("user", str(number)),), 50, 0.5, 7) for number in range(6)]
    with FaultyLLM(*[error(400, UNSUPPORTED["seed"])] * 6) as server:
        answers = ask(service_at(server.url), *requests)
    assert [answer.text for answer in answers] == ["fine"] * 6
    assert len(server.asked) == 12


def test_requests_can_be_under_way_together() -> None:
    behaviour = meeting(4)
    requests = [Request((Message("user", str(number)),), 50, 0.5, 7) for number in range(4)]
    with FaultyLLM(*[behaviour] * 4) as server:
        assert len(ask(service_at(server.url), *requests)) == 4
    assert server.most_at_once == 4


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'fedmpt\[llm\]'"):
        Endpoint("some-model", service_at("http://127.0.0.1:9/v1"))


@pytest.mark.parametrize(
    "proxy", ["gopher://user:{}@proxy.example", "http://user:{}@proxy.example:x", "http://[::1:{}"]
)
def test_a_proxy_that_is_none_is_wrong_input(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.format("pass-word"))
    with pytest.raises(InputError, match="prox") as caught:
        Endpoint("some-model", service_at("https://llm.example/v1"))
    assert "pass-word" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_certificates_that_are_not_there_are_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(InputError, match=r"\$SSL_CERT_FILE.*No such file"):
        Endpoint("some-model", service_at("https://llm.example/v1"))


@pytest.mark.parametrize("address", ["https://1.2.3.256/v1", "https://[v1.a]/v1"])
def test_an_address_that_only_the_library_refuses_is_wrong_input_too(address: str) -> None:
    with pytest.raises(InputError, match="is no address: Invalid IPv"):
        Endpoint("some-model", service_at(address))


def test_a_character_that_cannot_be_sent_is_wrong_input() -> None:
    with pytest.raises(InputError, match="names of the classes"):
        ask(service_at("http://127.0.0.1:9/v1"), Request((Message("user", "caf\udce9"),), 50, 0.5, 7))


def test_a_server_on_this_machine_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answer_to(good("here")).text == "here"


def test_an_endpoint_can_be_closed_twice() -> None:
    async def close() -> bool:
        endpoint = Endpoint("some-model", service_at("http://127.0.0.1:9/v1"))
        await endpoint.close()
        await endpoint.close()
        return endpoint._client.is_closed()

    assert asyncio.run(close())
