"""A language model behind an OpenAI-compatible endpoint: a service, or a server such as vLLM, Ollama or llama.cpp.

Answers are not streamed: every server can do without. The openai library retries what may be gone with the next
request (busy servers, limits of requests, broken connections), and waits as the server asks.
"""

from __future__ import annotations

import re
from typing import Any

from fedmpt.llm.model import Answer, LanguageModel, Request, RequestTooLongError
from fedmpt.llm.options import LOOPBACK, LLMOptions
from fedmpt.types import InputError

_OPTIONAL = ("max_tokens", "temperature", "seed")
_PLAIN = ("host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent")
_TOO_LONG = re.compile(r"context.?(length|size|window)|too long|exceed_context|too many (input )?tokens", re.IGNORECASE)
_NO_SYSTEM = re.compile(r"system.{0,20}\brole|\brole\b.{0,40}system", re.IGNORECASE)


class Endpoint(LanguageModel):
    """A model at an endpoint, asked by chat completions.

    A parameter that the endpoint refuses (``seed``, say) is left out from then on, see ``ignored``; ``max_tokens``
    becomes ``max_completion_tokens``. ``key`` is sent to ``address`` alone; ``key_env`` is the variable it was in. No
    redirect is followed, and what the environment holds for OpenAI reaches nobody else.
    """

    max_concurrency = 64

    def __init__(self, options: LLMOptions, address: str, *, key: str, key_env: str | None) -> None:
        self.identity = {"provider": "openai-compatible", "endpoint": address, "model": options.llm}
        self._key, self._key_env, self._timeout_s = key, key_env, options.timeout
        self._unsupported: set[str] = set()
        try:
            import openai

            timeout, retries = openai.Timeout(options.timeout, connect=30.0), options.retries
            hooks: Any = {"request": [] if key_env == "OPENAI_API_KEY" else [self._strip]}
            # No proxy reaches this machine's own servers, and a key must not go to one unencrypted.
            by_proxy = not LOOPBACK.match(address)
            http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=by_proxy, event_hooks=hooks)
            of_service: Any = {"base_url": address, "api_key": key or "none", "http_client": http}
            self._client = openai.OpenAI(timeout=timeout, max_retries=retries, **of_service)
        except Exception as error:  # The library raises whatever its parts raise on wrong settings.
            # The words of others may hold the password of a proxy.
            said = error if isinstance(error, (ImportError, OSError)) else type(error).__name__
            raise InputError(
                f"no endpoint can be asked: {said}; pip install 'fedmpt[llm]', and check the environment's proxies "
                "and certificates"
            ) from None

    def _strip(self, request: Any) -> None:
        """Leave in a request's head what each needs, and the key: the library adds what is meant for OpenAI."""
        for name in list(request.headers):
            if name.lower() not in _PLAIN and not name.lower().startswith("x-stainless-"):
                del request.headers[name]
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"

    def ask(self, request: Request) -> Answer:
        import openai

        left_out = frozenset(self._unsupported)  # Others under way may learn more meanwhile.
        chosen: Any = {name: getattr(request, name) for name in _OPTIONAL if name not in left_out}
        if "max_tokens" in left_out:
            chosen["max_completion_tokens"] = request.max_tokens
        chosen["messages"] = request.chat(system="system" not in left_out)
        try:
            found: Any = self._client.chat.completions.create(model=self.identity["model"], **chosen)
            choice = found.choices[0]
            text = "".join([choice.message.content or getattr(choice.message, "refusal", None) or ""])
        except openai.APIError as error:
            refused = _refused_parameter(error)
            if refused and refused not in left_out:
                self._unsupported.add(refused)
                self.ignored = tuple(name for name in ("temperature", "seed") if name in self._unsupported)
                return self.ask(request)
            # Not raised from the library's error: that holds the request, with the key in its head.
            raise self._failure(error) from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.identity['endpoint']} does not answer as an OpenAI-compatible endpoint does ({error}); check "
                "the address, which often ends in /v1, and whether a proxy or a login page is between"
            ) from error
        tokens = (found.usage.prompt_tokens, found.usage.completion_tokens) if found.usage else (None, None)
        return Answer(text, "length" if choice.finish_reason == "length" else "stop", *tokens)

    def _failure(self, error: Any) -> InputError:
        """What the error means for a user, and what to do."""
        import openai

        at = self.identity["endpoint"]
        kept = "what was answered is kept, and the same command goes on from there"
        if isinstance(error, openai.APITimeoutError):
            return InputError(f"{at} gave no answer in {self._timeout_s:g} s; wait longer with --timeout")
        said = _words_of(error).replace(self._key or "none", "[key]")[:300]
        if not isinstance(error, openai.APIStatusError):
            reason = error.__cause__ or said
            return InputError(f"no connection to {at}: {reason}; check the address and the network; {kept}")
        if _TOO_LONG.search(said):
            return RequestTooLongError(f"{at}: {said}; lower --per-request, --context-tokens or --max-tokens")
        key = f"check the key in ${self._key_env}" if self._key_env else "name the variable of a key with --key-env"
        remedies = {
            401: f"; {key}",
            403: f"; {key}, and what it is allowed",
            404: f"; check the model's name, {self.identity['model']!r}, and the address, which often ends in /v1",
            429: f"; ask less often (--requests-per-minute), or look at the account's credit; {kept}",
        }
        remedy = remedies.get(error.status_code, f"; it may be busy or down; {kept}" * (error.status_code >= 500))
        return InputError(f"{at} answers {error.status_code}: {said}{remedy}")


def _refused_parameter(error: Any) -> str | None:
    """The parameter that the endpoint does not take, or "system" where it takes no such messages."""
    said = _words_of(error)
    if getattr(error, "status_code", None) not in (400, 422) or _TOO_LONG.search(said):
        return None
    if _NO_SYSTEM.search(said):
        return "system"
    return next((name for name in _OPTIONAL if name == error.param or re.search(rf"\b{name}\b", said)), None)


def _words_of(error: Any) -> str:
    """What the service said, wherever it stands in what it sent."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return str(message or error.body or error.message)
