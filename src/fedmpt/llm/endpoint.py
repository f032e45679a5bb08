"""A language model behind an OpenAI-compatible endpoint: a service, or a server such as vLLM, Ollama or llama.cpp.

Answers are not streamed: every server can do without, an error comes as one, and nothing can break off unseen. So the
time-out has to be long enough for the whole answer of a slow server that also has other requests of ours to answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fedmpt.llm.model import Answer, Request, RequestTooLongError, TransientError, without_thoughts
from fedmpt.llm.service import Service
from fedmpt.types import InputError

if TYPE_CHECKING:
    import openai

NO_KEY = "none"
CONNECT_TIMEOUT_S = 30.0
PLAIN_HEADERS = ("host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent")
"""What every request needs, beside the library's own ``x-stainless-``."""
PASSING = (408, 409, 425, 429)
"""Statuses beside 5xx that may be gone with the next request."""
OPTIONAL = ("max_tokens", "temperature", "seed")
"""Parameters that an endpoint may do without."""
MAX_SAID = 300
"""Characters of a service's own words in a message."""

_UNSUPPORTED = re.compile(
    r"unsupported|not? support|n't support|unrecogni|unknown|unexpected|not permitted", re.IGNORECASE
)
_TOO_LONG = re.compile(r"context.?(length|size|window)|too long|exceed_context|too many (input )?tokens", re.IGNORECASE)
_NO_SYSTEM = re.compile(r"system.{0,20}\brole|\brole\b.{0,40}system", re.IGNORECASE)


class Endpoint:
    """A model at an OpenAI-compatible endpoint, asked by chat completions.

    A parameter that the endpoint does not support (``seed``, say) is left out from then on, see `ignored`, and
    ``max_tokens`` becomes ``max_completion_tokens`` where that is wanted. Thoughts of reasoning models are no part of
    an answer. No redirect is followed.

    Args:
        model: its name at the endpoint.
        timeout_s: seconds to wait for an answer.

    Raises:
        InputError: if the openai library is missing, or what the environment says of proxies and certificates is wrong.
    """

    max_concurrency = 64
    keeps_answers = False

    def __init__(self, model: str, service: Service, *, timeout_s: float) -> None:
        self.identity: Mapping[str, str] = {
            "provider": "openai-compatible",
            "endpoint": service.address,
            "model": model,
        }
        self._service = service
        self._timeout_s = timeout_s
        self._unsupported: set[str] = set()
        self._client = _client(service, timeout_s)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Parameters that requests had and the endpoint did not take."""
        return tuple(name for name in ("temperature", "seed") if name in self._unsupported)

    def ask(self, request: Request) -> Answer:
        """See `fedmpt.llm.model.LanguageModel`."""
        import openai

        known = frozenset(self._unsupported)
        try:
            # What the library makes of a login page or an error under the status 200 is no completion.
            found: Any = self._client.chat.completions.create(**self._parameters(request))
        except ValueError as error:
            raise TransientError(f"{self._service.address}: the answer is damaged ({error})") from None
        except openai.APIError as error:
            name = self._unsupported_in(error)
            if name is not None and name not in known:
                self._unsupported.add(name)
                return self.ask(request)
            if error.code == "content_filter":
                return Answer("", "refusal")
            # Not raised from the library's error: that holds the request, with the key in its head.
            raise self._failure(error) from None
        return self._answer(found)

    def close(self) -> None:
        self._client.close()

    def _parameters(self, request: Request) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "model": self.identity["model"],
            "messages": request.chat(system="system" not in self._unsupported),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if "max_tokens" in self._unsupported:
            parameters["max_completion_tokens"] = request.max_tokens
        return {name: value for name, value in parameters.items() if name not in self._unsupported}

    def _answer(self, found: Any) -> Answer:
        """What has come, without the thoughts of reasoning models."""
        choices = getattr(found, "choices", None)
        if error := getattr(found, "error", None):
            raise TransientError(f"{self._service.address} gives an error for an answer: {self._said(error)}")
        if not choices:
            raise InputError(
                f"{self._service.address} does not answer as an OpenAI-compatible endpoint does, but with "
                f"{self._said(found)}; check the address, which often ends in /v1, and whether a proxy or a login page "
                "is between"
            )
        message, reason = choices[0].message, choices[0].finish_reason
        content: Any = message.content or ""
        if isinstance(content, list):  # Some services give parts, thoughts among them.
            content = "".join(part.get("text") or "" for part in content)
        refusal = message.refusal or ""
        usage = found.usage
        return Answer(
            without_thoughts(content) or refusal,
            "refusal" if refusal or reason == "content_filter" else "length" if reason == "length" else "stop",
            usage.prompt_tokens if usage else None,
            usage.completion_tokens if usage else None,
        )

    def _unsupported_in(self, error: openai.APIError) -> str | None:
        """The parameter that the endpoint does not know, or "system" where it takes no such messages."""
        text = _words_of(error)
        if getattr(error, "status_code", None) not in (400, 422) or not _UNSUPPORTED.search(text):
            return None
        if _NO_SYSTEM.search(text):
            return "system"
        return next((name for name in OPTIONAL if error.param == name or re.search(rf"\b{name}\b", text)), None)

    def _failure(self, error: openai.APIError) -> Exception:
        """What the error means: again later, or never, and what to do."""
        import openai

        at, said = self._service.address, self._said(_words_of(error))
        if isinstance(error, openai.APITimeoutError):
            return TransientError(f"{at}: no answer in {self._timeout_s:g} s (--timeout)")
        if not isinstance(error, openai.APIStatusError):
            words = self._said(error.__cause__ or error)
            if "CERTIFICATE_VERIFY_FAILED" in words:
                return InputError(f"{at}: its certificate is not trusted: {words}")
            return TransientError(f"no connection to {at}: {words}")
        status, headers = error.status_code, error.response.headers
        if 300 <= status < 400:
            target = headers.get("location", "")
            return InputError(
                f"{at} redirects to {target!r}; nothing was sent there. If that is right, give it instead"
            )
        if status == 402 or error.code in ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"):
            return InputError(f"{at}: the account has no credit left, so waiting does not help: {said}")
        if status in PASSING or status >= 500:
            asked = re.fullmatch(r"\d+(\.\d+)?", headers.get("retry-after", ""))
            return TransientError(f"{at} answers {status}: {said}", retry_after=float(asked[0]) if asked else 0.0)
        if status in (401, 403):
            variable = self._service.key_env
            remedy = f"check the key in ${variable}, and what it is allowed"
            if not self._service.key:
                remedy = f"put a key into ${variable}" if variable else "name the variable of a key with --key-env"
            return InputError(f"{at} refuses ({status}): {said}; {remedy}")
        if status in (404, 405):
            model = self.identity["model"]
            return InputError(f"{at} knows no model {model!r}, or its address lacks an ending as /v1: {said}")
        if status == 413 or _TOO_LONG.search(_words_of(error)):
            return RequestTooLongError(
                f"{at}: the request is too long for the model; put fewer combinations into one request, or ask for "
                f"shorter answers: {said}"
            )
        return InputError(f"{at} does not take the request ({status}): {said}")

    def _said(self, words: object) -> str:
        """The service's own words, quoted since they may hold anything but the key."""
        text = str(words).replace(self._service.key, "[key]") if self._service.key else str(words)
        return repr(text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}...")


def _words_of(error: openai.APIError) -> str:
    """What the service said, wherever it stands in what it sent."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return str(message or error.body or error)


def _client(service: Service, timeout_s: float) -> openai.OpenAI:
    try:
        import openai
    except ImportError as error:
        raise InputError("a model at an endpoint needs the openai library: pip install 'fedmpt[llm]'") from error
    try:
        http_client = openai.DefaultHttpxClient(
            follow_redirects=False,
            event_hooks={"request": [_guard(service)]},
            trust_env=not service.is_here,  # No proxy reaches this machine's own servers.
        )
    except (ValueError, OSError, ImportError) as error:
        raise InputError(
            "what the environment says of proxies and certificates ($HTTPS_PROXY, $ALL_PROXY, $SSL_CERT_FILE and "
            f"others) cannot be used: {error}"
        ) from error
    try:
        return openai.OpenAI(
            base_url=service.address,
            api_key=NO_KEY,  # The library never has the key: the guard adds it. Without any, it takes one from outside.
            timeout=openai.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            max_retries=0,  # Retries are counted, and told to the user, by whoever asks.
            http_client=http_client,
        )
    except Exception as error:  # Of httpx, in whichever version: an IP address with a number too large, say.
        raise InputError(f"{service.address} is no address: {error}") from error


def _guard(service: Service) -> Callable[[Any], None]:
    """The last word on what a request carries: nothing that the environment holds for another service."""

    def guard(request: Any) -> None:
        if request.headers.get("Authorization") == f"Bearer {NO_KEY}":
            del request.headers["Authorization"]
        if not service.is_default:
            for name in set(request.headers) - set(PLAIN_HEADERS):
                if not name.startswith("x-stainless-"):
                    del request.headers[name]
        if service.key:
            request.headers["Authorization"] = f"Bearer {service.key}"

    return guard
