"""Endpoints: what counts as an answer, what is worth another try, what is not, and where the key goes."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faulty_llm import Behaviour, FaultyLLM, error, good, json_body, late, meeting, nonsense, whole

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.load import open_model
from fedmpt.llm.model import Answer, Message, Request, RequestTooLongError
from fedmpt.llm.options import LLMOptions
from fedmpt.types import InputError

KEY = "sk-test-0123456789abcdef"
REQUEST = Request((Message("system", "Be short."), Message("user", "Hello?")), max_tokens=50, temperature=0.5, seed=7)


def endpoint_at(url: str, *, key: str = KEY, timeout_s: float = 10.0, retries: int = 0) -> Endpoint:
    return Endpoint(LLMOptions(llm="some-model", timeout=timeout_s, retries=retries), url, key=key, key_env="MY_KEY")


def answer_to(*script: Behaviour, **options: Any) -> Answer:
    with FaultyLLM(*script) as server:
        return endpoint_at(server.url, **options).ask(REQUEST)


def answers_together(behaviour: Behaviour) -> list[str]:
    """What four threads are told by one endpoint, whose server meets their first requests so."""
    with FaultyLLM(*[behaviour] * 4) as server, ThreadPoolExecutor(4) as pool:
        endpoint = endpoint_at(server.url)
        return [answer.text for answer in pool.map(endpoint.ask, [REQUEST] * 4)]


def failure(*script: Behaviour, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        answer_to(*script, **options)
    return caught.value


def test_the_request_is_a_chat_completion() -> None:
    with FaultyLLM() as server:
        assert endpoint_at(server.url).ask(REQUEST) == Answer("fine", "stop", 11, 7)
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (good("cut", finish="length"), Answer("cut", "length", 11, 7)),
        (good(None, finish="content_filter"), Answer("", "stop", 11, 7)),
        (good(None, refusal="I cannot."), Answer("I cannot.", "stop", 11, 7)),
        (json_body(200, {"choices": [{"message": {"content": "a"}}]}), Answer("a")),
    ],
)
def test_what_counts_as_an_answer(behaviour: Behaviour, expected: Answer) -> None:
    assert answer_to(behaviour) == expected


UNSUPPORTED = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "Unsupported value: 'temperature' does not support 0.5 with this model.",
    "seed": "property 'seed' is unsupported",
    "system": "System role not supported",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_an_endpoint_does_not_support_is_left_out_from_then_on(name: str) -> None:
    with FaultyLLM(error(400, UNSUPPORTED[name], code="unsupported_parameter")) as server:
        endpoint = endpoint_at(server.url)
        assert [endpoint.ask(REQUEST).text for _ in range(2)] == ["fine", "fine"]
    first, second, third = (dict(asked.body) for asked in server.asked)
    assert second == third
    assert endpoint.ignored == ((name,) if name in ("temperature", "seed") else ())
    expected = {key: value for key, value in first.items() if key != name}
    if name == "max_tokens":
        expected["max_completion_tokens"] = 50
    if name == "system":
        expected["messages"] = [{"role": "user", "content": "Be short.\n\nHello?"}]
    assert second == expected


def test_several_parameters_are_left_out_one_after_the_other_and_none_for_ever() -> None:
    extra = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
    with FaultyLLM(json_body(422, {"detail": [extra]}), error(400, UNSUPPORTED["max_tokens"])) as server:
        assert endpoint_at(server.url).ask(REQUEST).text == "fine"
    assert set(server.asked[-1].body) == {"model", "messages", "temperature", "max_completion_tokens"}
    assert "seed" in str(failure(*[error(400, UNSUPPORTED["seed"])] * 5))


def test_requests_under_way_together_may_learn_the_same() -> None:
    refusal = error(400, UNSUPPORTED["seed"])
    barrier = threading.Barrier(4)

    def refuse_together(handler: Any) -> None:
        barrier.wait(30)
        refusal(handler)

    assert answers_together(refuse_together) == ["fine"] * 4


def test_requests_can_be_under_way_together() -> None:
    assert answers_together(meeting(4)) == ["fine"] * 4


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(code: int) -> None:
    with FaultyLLM(error(code, "busy", Retry_After=0.01), error(code, "busy", Retry_After=0.01)) as server:
        assert endpoint_at(server.url, retries=2).ask(REQUEST).text == "fine"
    assert len(server.asked) == 3
    assert "answers 503: busy; it may be busy or down; what was answered is kept" in str(failure(error(503, "busy")))


def test_a_broken_connection_is_tried_again() -> None:
    cut = whole(200, b'{"choices"', promised=1000, Content_Type="application/json")
    assert answer_to(cut, nonsense, retries=2).text == "fine"
    assert "no connection to http" in str(failure(nonsense))


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(InputError, match=rf"no connection to {address}: .*refused.*; check the address"):
            endpoint_at(address).ask(REQUEST)


def test_an_answer_that_does_not_come_in_time() -> None:
    assert "gave no answer in 0.2 s; wait longer with --timeout" in str(failure(late, timeout_s=0.2))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (error(401, "no such key"), ["answers 401: ", "no such key", "check the key in $MY_KEY"]),
        (error(403, "not from your country"), ["$MY_KEY, and what it is allowed", "not from your country"]),
        (error(404, "The model does not exist"), ["does not exist", "name, 'some-model', and the address", "/v1"]),
        (whole(404, b"404 page not found", Content_Type="text/plain"), ["/v1", "404"]),
        (error(429, "You exceeded your quota"), ["exceeded your quota", "credit", "--requests-per-minute"]),
        (error(400, "temperature is too high"), ["answers 400", "temperature is too high"]),
        (json_body(418, ["tea"]), ["418", "tea"]),
        # Not this API at all.
        (whole(200, b"<html>Please log in</html>", Content_Type="text/html"), ["does not answer as", "proxy"]),
        (json_body(200, {"choices": [{"text": "old API"}]}), ["does not answer as"]),
        (json_body(200, {"choices": ["fine"]}), ["does not answer as"]),
        (good(["in", "parts"]), ["does not answer as"]),
        (whole(307, b"", Location="http://127.0.0.1:9/"), ["answers 307"]),
        (json_body(200, {"models": []}), ["does not answer as an OpenAI-compatible endpoint"]),
        (json_body(200, {"error": {"message": "engine died"}}), ["does not answer as"]),
        (whole(200, b'{"choices": [', Content_Type="application/json"), ["does not answer as"]),
    ],
)
def test_what_will_not_pass_ends_it_in_plain_words(behaviour: Behaviour, words: list[str]) -> None:
    found = failure(behaviour, behaviour) if "temperature" in words[-1] else failure(behaviour)
    assert all(word in str(found) for word in words), str(found)
    assert len(str(found)) < 800


@pytest.mark.parametrize("message", ["This model's maximum context length is 100 tokens", "prompt is too long: 9"])
def test_a_request_too_long_says_what_to_do(message: str) -> None:
    found = failure(error(400, message))
    assert isinstance(found, RequestTooLongError)
    assert "lower --per-request" in str(found)


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'fedmpt\[llm\]'"):
        endpoint_at("http://127.0.0.1:9/v1")


def test_settings_of_the_environment_that_cannot_be_used_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(InputError, match="check the environment's proxies and certificates"):
        endpoint_at("https://llm.example/v1")


@pytest.mark.parametrize("proxy", ["http://user:secret@proxy:port", "nothing://user:secret@proxy"])
def test_a_proxy_that_cannot_be_is_said_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(InputError, match="check the environment's proxies and certificates") as caught:
        endpoint_at("https://llm.example/v1")
    assert "secret" not in "".join(traceback.format_exception(caught.value))


# The key.


def test_a_foreign_endpoint_gets_nothing_that_the_environment_holds_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", f"{KEY}-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}\nX-Other: secret")
    with FaultyLLM() as server:
        open_model(LLMOptions(llm="m", endpoint=server.url)).ask(REQUEST)
        monkeypatch.setenv("MY_KEY", "mine")
        open_model(LLMOptions(llm="m", endpoint=server.url, key_env="MY_KEY")).ask(REQUEST)
    without, own = server.asked
    assert own.headers["authorization"] == "Bearer mine"
    assert KEY not in f"{without.headers} {own.headers}"
    assert "secret" not in f"{without.headers} {own.headers}"


def test_the_key_is_not_sent_on_to_where_an_endpoint_leads() -> None:
    with FaultyLLM() as other:
        failure(whole(307, b"", Location=f"{other.url}/chat/completions"))
    assert other.asked == []


def test_no_proxy_gets_what_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FaultyLLM() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert answer_to(good("mine")).text == "mine"
    assert proxy.asked == []


def test_the_default_endpoint_gets_the_settings_that_are_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with FaultyLLM() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        open_model(LLMOptions(llm="m")).ask(REQUEST)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked[0].headers["openai-organization"] == "org-mine"


def test_an_endpoint_that_wants_a_key_says_where_to_put_it() -> None:
    with FaultyLLM(error(401, "key?")) as server, pytest.raises(InputError, match="--key-env"):
        open_model(LLMOptions(llm="m", endpoint=server.url)).ask(REQUEST)


@pytest.mark.parametrize(
    "behaviour",
    [
        error(401, f"Incorrect API key provided: {KEY}"),
        error(400, "x" * 280 + KEY),
        json_body(200, {"error": {"message": f"failed for {KEY}"}}),
        nonsense,
        good("fine"),
    ],
)
def test_the_key_appears_in_no_message_and_no_log(behaviour: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyLLM(behaviour) as server:
        endpoint = endpoint_at(server.url)
        shown = [repr(endpoint), str(dict(endpoint.identity))]
        try:
            endpoint.ask(REQUEST)
        except InputError as caught:
            shown += [repr(caught), *traceback.format_exception(caught)]
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert "POST" in caplog.text
    assert all(KEY[:8] not in text for text in [*shown, caplog.text, *(str(vars(each)) for each in caplog.records)])
