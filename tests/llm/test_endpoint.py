"""Endpoints: what counts as an answer, what is worth another try, what is not, and where the key goes."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import traceback
from typing import Any

import pytest
from faulty_llm import Behaviour, FaultyLLM, error, good, json_body, late, meeting, nonsense, whole

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.model import Answer, Message, Request, RequestTooLongError, TransientError
from fedmpt.llm.service import Service, find_service
from fedmpt.types import InputError

KEY = "sk-test-0123456789abcdef"
REQUEST = Request((Message("system", "Be short."), Message("user", "Hello?")), max_tokens=50, temperature=0.5, seed=7)


def endpoint_at(url: str, *, key: str | None = KEY, is_default: bool = False, timeout_s: float = 10.0) -> Endpoint:
    return Endpoint("some-model", Service(url, is_default=is_default, key=key, key_env="MY_KEY"), timeout_s=timeout_s)


def answer_to(*script: Behaviour, **options: Any) -> Answer:
    with FaultyLLM(*script) as server:
        return endpoint_at(server.url, **options).ask(REQUEST)


def failure(*script: Behaviour, **options: Any) -> Exception:
    with pytest.raises((InputError, TransientError)) as caught:
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
        (good(None, finish="content_filter"), Answer("", "refusal", 11, 7)),
        (good(None, refusal="I cannot."), Answer("I cannot.", "refusal", 11, 7)),
        (good([{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]), Answer("a", "stop", 11, 7)),
        (json_body(200, {"choices": [{"message": {"content": "a"}}]}), Answer("a")),
        (error(400, "filtered", code="content_filter"), Answer("", "refusal")),
        (good("<think>First, 1.\nThen 2.</think>\n\nanswer"), Answer("answer", "stop", 11, 7)),
        (good("First, 1.</think>answer"), Answer("answer", "stop", 11, 7)),
        (good("<think>never done", finish="length"), Answer("", "length", 11, 7)),
        (
            good("with <think>tags</think> inside"),
            Answer("with <think>tags</think> inside", "stop", 11, 7),
        ),
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


def test_requests_can_be_under_way_together() -> None:
    answers: list[Answer] = []
    with FaultyLLM(*[meeting(4)] * 4) as server:
        endpoint = endpoint_at(server.url)
        threads = [threading.Thread(target=lambda: answers.append(endpoint.ask(REQUEST))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 4


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        *[(error(code, "come back later"), f"/v1 answers {code}: .*come back later") for code in (408, 429, 500, 503)],
        (json_body(200, {"error": {"message": "engine died"}}), "gives an error for an answer: .*engine died"),
        (whole(200, b'{"choices": [', Content_Type="application/json"), "the answer is damaged"),
        (whole(200, b'{"choices"', promised=1000, Content_Type="application/json"), "no connection to http"),
        (nonsense, "no connection to http"),
    ],
)
def test_what_may_pass_is_to_be_tried_again(behaviour: Behaviour, words: str) -> None:
    with pytest.raises(TransientError, match=words) as caught:
        answer_to(behaviour)
    assert caught.value.retry_after == 0


def test_nobody_there_is_to_be_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(TransientError, match=rf"no connection to {address}: '.*refused'"):
            endpoint_at(address).ask(REQUEST)


def test_an_answer_that_does_not_come_in_time_is_to_be_tried_again() -> None:
    with pytest.raises(TransientError, match=r"no answer in 0\.2 s \(--timeout\)"):
        answer_to(late, timeout_s=0.2)


@pytest.mark.parametrize(("header", "seconds"), [("17", 17), ("0.5", 0.5), ("soon", 0), ("-3", 0)])
def test_a_server_can_say_how_long_to_wait(header: str, seconds: float) -> None:
    found = failure(error(429, "slow down", Retry_After=header))
    assert isinstance(found, TransientError)
    assert found.retry_after == seconds


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (error(401, "no such key"), ["refuses (401)", "no such key", "check the key in $MY_KEY"]),
        (error(403, "not from your country"), ["$MY_KEY", "not from your country"]),
        (error(404, "The model does not exist"), ["knows no model 'some-model'", "/v1", "does not exist"]),
        (whole(404, b"404 page not found", Content_Type="text/plain"), ["/v1", "404"]),
        (error(402, "pay"), ["no credit"]),
        (error(429, "You exceeded your quota", code="insufficient_quota"), ["no credit", "exceeded your quota"]),
        (error(400, "max_tokens is too large: 50"), ["does not take the request (400)", "max_tokens is too large"]),
        (json_body(418, ["tea"]), ["418", "tea"]),
        (whole(307, b"", Location="http://elsewhere/"), ["redirects to 'http://elsewhere/'"]),
        # Not this API at all.
        (whole(200, b"<html>Please log in</html>", Content_Type="text/html"), ["<html>Please log in", "proxy"]),
        (whole(200, b"Ollama is running", Content_Type="text/plain"), ["Ollama is running"]),
        (json_body(200, {"models": []}), ["does not answer as an OpenAI-compatible endpoint", "models"]),
        (json_body(200, ["a"]), ["['a']"]),
    ],
)
def test_what_will_not_pass_ends_it_in_plain_words(behaviour: Behaviour, words: list[str]) -> None:
    found = failure(behaviour)
    assert isinstance(found, InputError)
    assert all(word in str(found) for word in words), str(found)
    assert len(str(found)) < 800


@pytest.mark.parametrize("message", ["This model's maximum context length is 100 tokens", "prompt is too long: 9"])
def test_a_request_too_long_says_what_to_do(message: str) -> None:
    found = failure(error(400, message))
    assert isinstance(found, RequestTooLongError)
    assert "fewer combinations" in str(found)


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'fedmpt\[llm\]'"):
        endpoint_at("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTPS_PROXY", "gopher://user:pass-word@proxy.example"), ("SSL_CERT_FILE", "/no/such/file.pem")],
)
def test_settings_of_the_environment_that_cannot_be_used_are_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"\$HTTPS_PROXY.*\$SSL_CERT_FILE.*cannot be used") as caught:
        endpoint_at("https://llm.example/v1")
    assert "pass-word" not in str(caught.value)


def test_an_address_that_only_the_library_refuses_is_wrong_input_too() -> None:
    with pytest.raises(InputError, match=r"http://192\.168\.1\.300/v1 is no address: Invalid IPv4"):
        endpoint_at("http://192.168.1.300/v1")


def test_a_server_on_this_machine_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answer_to(good("here")).text == "here"


# The key.


def test_no_redirect_is_followed() -> None:
    with FaultyLLM() as other:
        failure(whole(307, b"", Location=f"{other.url}/chat/completions"))
    assert other.asked == []


def test_a_foreign_endpoint_gets_nothing_that_the_environment_holds_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", f"{KEY}-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}\nX-Other: secret")
    with FaultyLLM() as server:
        Endpoint("m", find_service(server.url, None, allow_plain_http=False), timeout_s=10).ask(REQUEST)
        monkeypatch.setenv("MY_KEY", "mine")
        Endpoint("m", find_service(server.url, "MY_KEY", allow_plain_http=False), timeout_s=10).ask(REQUEST)
    without, own = server.asked
    assert "authorization" not in without.headers
    assert own.headers["authorization"] == "Bearer mine"
    assert "secret" not in f"{without.headers} {own.headers}"


def test_the_default_endpoint_gets_the_settings_that_are_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with FaultyLLM() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        Endpoint("m", find_service(None, None, allow_plain_http=False), timeout_s=10).ask(REQUEST)
        monkeypatch.delenv("OPENAI_API_KEY")
        Endpoint("m", find_service(None, None, allow_plain_http=False), timeout_s=10).ask(REQUEST)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked[0].headers["openai-organization"] == "org-mine"
    assert "authorization" not in server.asked[1].headers


def test_an_endpoint_that_wants_a_key_says_where_to_put_it() -> None:
    with FaultyLLM(error(401, "key?")) as server, pytest.raises(InputError, match="--key-env"):
        Endpoint("m", find_service(server.url, None, allow_plain_http=False), timeout_s=10).ask(REQUEST)
    assert "put a key into $MY_KEY" in str(failure(error(401, "key?"), key=None))


@pytest.mark.parametrize(
    "behaviour",
    [
        error(401, f"Incorrect API key provided: {KEY}"),
        error(429, f"key {KEY} is busy"),
        error(400, "x" * 280 + KEY),
        whole(200, f"<html>{KEY}</html>".encode(), Content_Type="text/html"),
        json_body(200, {"error": {"message": f"failed for {KEY}"}}),
        whole(307, b"", Location="http://127.0.0.1:9/"),
        nonsense,
        good("fine"),
    ],
)
def test_the_key_appears_in_no_message_log_or_repr(behaviour: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyLLM(behaviour) as server:
        endpoint = endpoint_at(server.url)
        shown = [repr(endpoint._service), str(dict(endpoint.identity)), repr(vars(endpoint._client))]
        try:
            endpoint.ask(REQUEST)
        except (InputError, TransientError) as caught:
            shown += [repr(caught), *traceback.format_exception(caught)]
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert "HTTP" in caplog.text
    for text in (*shown, caplog.text, *(str(record.__dict__) for record in caplog.records)):
        assert KEY[:8] not in text
