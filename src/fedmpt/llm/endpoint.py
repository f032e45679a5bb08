"""A language model behind an OpenAI-compatible endpoint: a service, or a server such as vLLM, Ollama or llama.cpp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fedmpt.llm.model import Answer, Request, TransientError
from fedmpt.llm.refusals import OPTIONAL, BlockedError, Refusals, UnsupportedError
from fedmpt.llm.reply import ErrorEventError, Reply, StrangeReplyError
from fedmpt.llm.service import Service
from fedmpt.types import InputError

if TYPE_CHECKING:
    import openai

TIMEOUT_S = 300.0
CONNECT_TIMEOUT_S = 30.0
MIN_MAX_CHARS, CHARS_PER_TOKEN = 100_000, 20
"""Where an answer is cut that goes on and on. A token is about four characters, so servers that heed ``max_tokens`` end
long before.
"""
MAX_ERROR_BYTES = 2**16
"""Of what comes with a status that says there is no answer. The rest is not read."""
MAX_CONCURRENCY = 64
NO_KEY = "none"
PORTS = {"http": 80, "https": 443}
PLAIN_HEADERS = ("host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent")
"""What every request needs, beside the library's own ``x-stainless-``."""


class Endpoint:
    """A model at an OpenAI-compatible endpoint, asked by streamed chat completions.

    A parameter that the endpoint does not support (``seed``, say) is left out from then on, see `ignored`, and
    ``max_tokens`` becomes ``max_completion_tokens`` where that is wanted. Thoughts of reasoning models are no part of
    an answer. No redirect is followed, and the key is sent to the service's own address only; other settings that the
    openai library takes from the environment reach the default service alone.

    Args:
        model: its name at the endpoint.
        service: where it is, and its key.
        timeout_s: seconds for a whole answer, however it comes.
        max_chars: characters at which an answer counts as cut off ("length"); 20 for each of its ``max_tokens``, and
            100,000 at least, unless given.

    Raises:
        InputError: if the openai library is missing, the address cannot be used, or what the environment says of
            proxies and certificates cannot.
    """

    def __init__(
        self, model: str, service: Service, *, timeout_s: float = TIMEOUT_S, max_chars: int | None = None
    ) -> None:
        self.identity: Mapping[str, str] = {
            "provider": "openai-compatible",
            "endpoint": service.address,
            "model": model,
        }
        self.max_concurrency = MAX_CONCURRENCY
        self.keeps_answers = False
        self._model = model
        self._service = service
        self._timeout_s = timeout_s
        self._max_chars = max_chars
        self._refusals = Refusals(service, model)
        self._unsupported: set[str] = set()
        self._client = _client(service, timeout_s)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Parameters that requests had and the endpoint did not take."""
        return tuple(name for name in ("temperature", "seed") if name in self._unsupported)

    async def ask(self, request: Request) -> Answer:
        """See `LanguageModel`."""
        while True:
            known = frozenset(self._unsupported)
            try:
                return await self._ask_once(request)
            except UnsupportedError as error:
                # Others under way may have learned it meanwhile. What was left out already cannot be mended again.
                if (name := str(error)) in known:
                    raise InputError(
                        f"{self._service.address} does not take requests for {self._model!r}: {name} is not supported"
                    ) from None
                self._unsupported.add(name)
            except BlockedError:
                return Answer("", "refusal")

    async def close(self) -> None:
        await self._client.close()

    async def _ask_once(self, request: Request) -> Answer:
        reply = Reply(self._max_chars or max(MIN_MAX_CHARS, CHARS_PER_TOKEN * request.max_tokens))
        problem = await self._attempt(self._parameters(request), reply)
        # An answer whose end was said is there, whatever happened to the connection afterwards.
        if problem is not None and reply.finish is None:
            raise problem
        return reply.answer()

    async def _attempt(self, parameters: Mapping[str, Any], reply: Reply) -> Exception | None:
        """Fill ``reply``; what went wrong is returned.

        And not raised from the library's errors: those hold the request, with the key in its head.
        """
        import openai

        try:
            async with asyncio.timeout(self._timeout_s):
                await self._send(parameters, reply)
        except TimeoutError:
            return TransientError(f"{self._service.address}: no whole answer in {self._timeout_s:g} s (--timeout)")
        except (RefusedError, openai.APIConnectionError) as error:
            refused = error.__cause__ or error  # Version 2 of the library wraps it.
            if isinstance(refused, RefusedError):
                return self._refusals.of_status(refused.status, refused.body, refused.headers)
            return self._refusals.of_connection(error)
        except StrangeReplyError as error:
            return self._refusals.of_strange(str(error))
        except ErrorEventError as error:
            return self._refusals.of_event(error.body)
        except TransientError as error:
            return TransientError(f"{self._service.address}: {self._refusals.without_key(str(error))}")
        except UnicodeEncodeError as error:
            return InputError(
                f"a request to {self._service.address} cannot be sent, a character in it has no code ({error.reason}); "
                "look at the names of the classes, and at $OPENAI_CUSTOM_HEADERS"
            )
        except Exception as error:
            if _is_of_network(error):
                return self._refusals.of_connection(error)
            raise
        return None

    async def _send(self, parameters: Mapping[str, Any], reply: Reply) -> None:
        completions = self._client.chat.completions.with_streaming_response
        async with completions.create(**parameters) as response:
            await reply.read(response.iter_bytes())

    def _parameters(self, request: Request) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "model": self._model,
            "messages": self._messages(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in self._unsupported.intersection(OPTIONAL):
            del parameters[name]
        if "max_tokens" in self._unsupported:
            parameters["max_completion_tokens"] = request.max_tokens
        if "stream" in self._unsupported:
            parameters.pop("stream_options", None)
        return parameters

    def _messages(self, request: Request) -> list[dict[str, str]]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        if "system" in self._unsupported and len(messages) > 1 and messages[0]["role"] == "system":
            system = messages.pop(0)["content"]
            messages[0] = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
        return messages


class RefusedError(Exception):
    """A status of 300 or more, with the start of what came with it. The text is the status alone: it may be logged."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(str(status))
        self.status = status
        self.headers = headers
        self.body: Any = body.decode("utf-8", "replace")
        with suppress(ValueError, RecursionError):
            self.body = json.loads(self.body)


def _client(service: Service, timeout_s: float) -> openai.AsyncOpenAI:
    try:
        import openai
    except ImportError as error:
        raise InputError("a model at an endpoint needs the openai library: pip install 'fedmpt[llm]'") from error
    try:
        http_client = openai.DefaultAsyncHttpxClient(
            follow_redirects=False,
            event_hooks={"request": [_guard(service)], "response": [_refuse]},
            # No proxy reaches this machine's own servers.
            trust_env=not service.is_loopback_http,
        )
    except Exception as error:
        # Only these say no more than they should; the words of others may hold the password of a proxy.
        words = f": {error}" if isinstance(error, ImportError | OSError) else ""
        raise InputError(
            "what the environment says of proxies and certificates ($HTTPS_PROXY, $ALL_PROXY, $SSL_CERT_FILE and "
            f"others) cannot be used{words}"
        ) from None
    try:
        return openai.AsyncOpenAI(
            base_url=service.address,
            # The library never has the key: the guard adds it. Without any, it would take one from the environment.
            api_key=NO_KEY,
            timeout=openai.Timeout(None, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            max_retries=0,
            http_client=http_client,
        )
    except Exception as error:
        if _is_of_network(error):
            raise InputError(f"{service.address} is no address: {error}") from None
        raise


def _guard(service: Service) -> Callable[[Any], Awaitable[None]]:
    """The last word on what a request carries: httpx calls it for each, after everybody else."""
    own = _origin(service.address)

    async def guard(request: Any) -> None:
        if request.headers.get("Authorization") == f"Bearer {NO_KEY}":
            del request.headers["Authorization"]
        if not service.is_default:
            for name in [name for name in request.headers if not _is_plain(name)]:
                del request.headers[name]
        if service.key and _origin(str(request.url)) == own:
            request.headers["Authorization"] = f"Bearer {service.key}"

    return guard


async def _refuse(response: Any) -> None:
    """Before the openai library reads an error, to the end and be it ever so far."""
    if response.status_code < 300:
        return
    body = b""
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) >= MAX_ERROR_BYTES:
                break
    raise RefusedError(response.status_code, body[:MAX_ERROR_BYTES], response.headers)


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def _is_plain(name: str) -> bool:
    return name.lower() in PLAIN_HEADERS or name.lower().startswith("x-stainless-")


def _is_of_network(error: Exception) -> bool:
    """The openai library lets errors pass while a body is read, of httpx or httpx2, whichever it is built on."""
    libraries = ("httpx", "httpx2", "httpcore", "httpcore2", "anyio")
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in libraries
