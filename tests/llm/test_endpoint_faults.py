"""Endpoints that fail: what is worth another try, and what is not."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from asked_endpoint import REQUEST, answer_to, ask, failure, service_at
from faulty_llm import (
    DONE,
    Behaviour,
    FaultyLLM,
    cut,
    data,
    drip,
    endless,
    error,
    event,
    good,
    json_body,
    late,
    nonsense,
    short_body,
    stream,
    whole,
)

from fedmpt.llm.conversation import RequestTooLongError
from fedmpt.llm.model import Answer, TransientError
from fedmpt.types import InputError


@pytest.mark.parametrize("how", ["closed", "chunk", "reset"])
@pytest.mark.parametrize(
    "parts",
    [(), (event(role="assistant"),), (event("half"),), (event("half"), event(" an answer")[:40])],
    ids=["nothing", "head", "middle", "within an event"],
)
def test_an_answer_cut_off_is_to_be_tried_again(parts: tuple[bytes, ...], how: str) -> None:
    assert isinstance(failure(cut(*parts, how=how)), TransientError)


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_busy_and_broken_servers_are_to_be_tried_again(code: int) -> None:
    found = failure(error(code, "come back later"))
    assert isinstance(found, TransientError)
    assert str(code) in str(found)
    assert "come back later" in str(found)
    assert found.retry_after is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_a_server_can_say_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    found = failure(error(429, "slow down", headers=headers))
    assert isinstance(found, TransientError)
    assert found.retry_after == expected


def test_a_server_can_say_until_when_to_wait() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    found = failure(error(503, "restarting", headers={"Retry-After": moment}))
    assert isinstance(found, TransientError)
    assert found.retry_after == pytest.approx(3600, abs=60)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (error(401, "no such key"), ["$MY_KEY", "no such key"]),
        (error(403, "not from your country"), ["$MY_KEY", "not from your country"]),
        (error(404, "The model does not exist"), ["some-model", "/v1", "does not exist"]),
        (whole(404, b"404 page not found", Content_Type="text/plain"), ["/v1", "page not found"]),
        (json_body(405, {"detail": "Method Not Allowed"}), ["/v1", "Method Not Allowed"]),
        (error(402, "pay"), ["no credit"]),
        (error(429, "You exceeded your quota", code="insufficient_quota"), ["no credit", "exceeded your quota"]),
        (error(400, "max_tokens is too large: 50"), ["max_tokens is too large"]),
        (json_body(400, {"error": "only words"}), ["only words"]),
        (json_body(400, {"object": "error", "message": "of old"}), ["of old"]),
        (json_body(418, ["tea"]), ["418", "tea"]),
        (whole(400, b""), ["400", "nothing more"]),
        (stream(data({"error": {"message": "bad key", "code": 401}})), ["$MY_KEY", "bad key"]),
        (json_body(200, {"error": {"message": "out of money", "code": "insufficient_quota"}}), ["no credit"]),
        # Not this API at all.
        (whole(200, b"<html>Please log in</html>", Content_Type="text/html"), ["<html>Please log in", "proxy"]),
        (whole(200, b"<!DOCTYPE html>\n<p>a: b</p>", Content_Type="text/event-stream"), ["<!DOCTYPE html>"]),
        (whole(200, b"Ollama is running", Content_Type="text/plain"), ["Ollama is running"]),
        (json_body(200, {"models": []}), ['{"models": []}']),
        (json_body(200, ["a"]), ['["a"]']),
        (stream(b"hello\n\nworld\n\n"), ["hello"]),
        (stream(b"\x00\xff\xfe" * 50), ["\\x00"]),
        (stream(data("a word")), ["a word"]),
        (stream(data({"choices": "none"})), ["choices"]),
        (stream(data({"choices": [{"delta": ["a"]}]})), ["delta"]),
    ],
)
def test_what_will_not_pass_ends_it_in_plain_words(behaviour: Behaviour, words: list[str]) -> None:
    found = failure(behaviour)
    assert isinstance(found, InputError)
    assert all(word in str(found) for word in words), str(found)
    assert len(str(found)) < 800


@pytest.mark.parametrize(
    "behaviour",
    [
        stream(event("a"), b"data: {broken\n\n", event(finish="stop")),
        stream(event("a"), b"data: " + b"[" * 100_000 + b"\n\n"),
        stream(event("a"), data({"error": {"message": "engine died"}})),
        stream(event("a"), data({"error": {"message": "overloaded", "code": 503}})),
        stream(event("a", finish="error"), DONE),
        stream(event("a"), b'event: error\ndata: {"message": "engine died"}\n\n', DONE),
        stream(event("a"), b'error: {"code": 500, "message": "engine died"}\n\n', DONE),
        stream(event("a"), b'{"error": "engine died"}\n\n', DONE),
        json_body(200, {"choices": [{"error": {"message": "engine died"}, "message": {"content": ""}}]}),
        stream(DONE),
        stream(data({"choices": []}), DONE),
        json_body(200, {"choices": []}),
        whole(200, b'{"choices": [', Content_Type="application/json"),
        whole(200, b""),
        nonsense,
        short_body(500),
        short_body(400),
        stream(b"abc", kind="text/event-stream\r\nContent-Encoding: gzip"),
    ],
    ids=[
        "no JSON", "deep", "error event", "busy event", "finish error", "named error", "error line", "error object",
        "error choice", "only an end", "no choice", "no choice in JSON", "half JSON", "empty", "no HTTP", "short 500",
        "short 400", "no gzip",
    ],
)  # fmt: skip
def test_what_is_damaged_is_to_be_tried_again(behaviour: Behaviour) -> None:
    assert isinstance(failure(behaviour), TransientError)


def test_nobody_there_is_to_be_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(TransientError, match=r"no connection to http://127\.0\.0\.1:[0-9]+/v1"):
            ask(service_at(address), REQUEST)


@pytest.mark.parametrize("message", ["This model's maximum context length is 100 tokens", "prompt is too long: 9"])
def test_a_request_too_long_says_what_to_do(message: str) -> None:
    found = failure(error(400, message))
    assert isinstance(found, RequestTooLongError)
    assert "fewer combinations" in str(found)


def test_a_request_that_a_filter_stops_is_a_refusal() -> None:
    assert answer_to(error(400, "filtered", code="content_filter")) == Answer("", "refusal")


def test_an_answer_longer_than_any_is_cut() -> None:
    assert answer_to(good(*["word "] * 400), max_chars=1000) == Answer("word " * 200, "length")


def test_how_long_an_answer_may_be_grows_with_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmpt.llm.endpoint.MIN_MAX_CHARS", 1)
    assert REQUEST.max_tokens == 50
    assert answer_to(good(*["word "] * 400)) == Answer("word " * 200, "length")


def test_an_answer_without_end_is_cut_and_the_connection_closed() -> None:
    with FaultyLLM(endless(event("word " * 20))) as server:
        (answer,) = ask(service_at(server.url), REQUEST, max_chars=1000)
        assert server.left.wait(10)
    assert answer == Answer("word " * 200, "length")


@pytest.mark.parametrize("part", [b": nothing\n\n" * 100, b" " * 1000, b"x" * 1000], ids=["comments", "blank", "line"])
def test_what_has_no_end_and_is_no_answer_is_cut_too(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmpt.llm.reply.MAX_BYTES", 200_000)
    with FaultyLLM(endless(part)) as server:
        with pytest.raises((TransientError, InputError), match=r"no answer before it|does not answer as"):
            ask(service_at(server.url), REQUEST)
        assert server.left.wait(10)


@pytest.mark.parametrize("code", [302, 401, 500])
def test_an_error_without_end_is_read_in_part_only(code: int) -> None:
    with FaultyLLM(endless(b"the engine died " * 500, code=code)) as server:
        with pytest.raises((TransientError, InputError), match=r"the engine died|redirects") as caught:
            ask(service_at(server.url), REQUEST, timeout_s=5)
        assert server.left.wait(10)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    "behaviour",
    [
        # Each would be an answer in the end.
        late(1.0),
        drip([*[event("a")] * 50, event(finish="stop")], every_s=0.02),
        drip([*[b" "] * 50, b"\n", event(finish="stop")], every_s=0.02),
        drip([*[b": wait\n\n"] * 50, event(finish="stop")], every_s=0.02),
    ],
    ids=["silent", "drip", "blank", "comments"],
)
def test_an_answer_has_to_be_whole_in_time(behaviour: Behaviour) -> None:
    found = failure(behaviour, timeout_s=0.15)
    assert isinstance(found, TransientError)
    assert "--timeout" in str(found)


def test_a_connection_kept_open_after_the_end_costs_no_answer() -> None:
    parts = [event("a", finish="stop"), *[b": wait\n\n"] * 1000]
    assert answer_to(drip(parts, every_s=0.02), timeout_s=0.15) == Answer("a")
