"""What an endpoint sends back, taken apart: server-sent events or one JSON object, of the chat completions API.

Done here and not by the openai library, which skips over what is no event: a login page and an answer cut off would
both look like an empty answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Literal

from fedmpt.llm.model import Answer, TransientError

MAX_BYTES = 64 * 2**20
"""Of one answer as it is sent; an event of 300 bytes may carry four characters."""
SHOWN = 80
"""Characters of something strange that a message shows."""
CUT = ("length", "max_tokens", "model_length")
BROKEN = ("error", "insufficient_system_resource")
"""Reasons to end by which services say that they failed."""
BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may stand before a reply: white space, and the mark of UTF-8."""


class StrangeReplyError(Exception):
    """Not the chat completions API; the text shows the start of it."""


class ErrorEventError(Exception):
    """An error in place of an answer, under a status that says all is well."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__("error")
        self.body = body


class Reply:
    """An answer as it grows. ``finish`` is the reason to end that was given, None before.

    Args:
        max_chars: at so many characters it counts as cut off.
    """

    def __init__(self, max_chars: int) -> None:
        self.finish: str | None = None
        self.is_full = False
        self.is_done = False
        self._max_chars = max_chars
        self._num_chars = 0
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._usage: Mapping[str, Any] = {}
        self._is_recognised = False
        self._has_choice = False

    @property
    def is_complete(self) -> bool:
        return self.finish is not None or self.is_done or self.is_full

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """All of a body, or as much of it as there is room for.

        Raises:
            TransientError: if it breaks off, is damaged, or has an end and no answer.
            StrangeReplyError: if it is something else.
            ErrorEventError: if it is an error.
        """
        chunks = self._limited(chunks)
        start = b""
        async for chunk in chunks:
            if start := chunk.lstrip(BLANK):
                break
        if start.startswith(b"{"):
            await self._read_json(start, chunks)
        else:
            await self._read_events(start, chunks)
        if not self.is_complete:
            raise TransientError(f"the answer broke off after {self._num_chars} characters")
        if not self._has_choice:
            raise TransientError("an end came, and no answer before it")

    async def _limited(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in chunks:
            yield chunk
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES:
                self.is_full = True
                return

    async def _read_json(self, start: bytes, chunks: AsyncIterator[bytes]) -> None:
        body = bytearray(start)
        async for chunk in chunks:
            body += chunk
        self._take(_parsed(bytes(body).decode("utf-8", "replace")))
        if not self._is_recognised:
            raise StrangeReplyError(_start(body.decode("utf-8", "replace")))
        self.is_done = True

    async def _read_events(self, start: bytes, chunks: AsyncIterator[bytes]) -> None:
        events = Events()
        self._hear(events.feed(start))
        while not self.is_done and not self.is_full:
            chunk = await anext(chunks, None)
            # Where the stream ends, the last event may lack its line breaks.
            self._hear(events.feed(b"\n\n" if chunk is None else chunk))
            if chunk is None:
                break
        if events.strange and not self._is_recognised:
            raise StrangeReplyError(_start(events.strange))
        if events.strange and self.finish is None:  # Some servers put errors there, and end as if all were well.
            raise TransientError(f"the answer was interrupted by {_start(events.strange)}")

    def _hear(self, events: Iterable[tuple[str, str]]) -> None:
        for name, data in events:
            self.is_done = self.is_done or data.strip() == "[DONE]"
            if data.strip() and not self.is_done:
                self._take(_parsed(data), is_error=name == "error")

    def _take(self, event: Any, *, is_error: bool = False) -> None:
        if not isinstance(event, dict):
            raise StrangeReplyError(_start(json.dumps(event)))
        if is_error or event.get("error") or event.get("object") == "error":
            raise ErrorEventError(event)
        if isinstance(usage := event.get("usage"), dict):
            self._usage = usage
        choices = event.get("choices")
        if choices is None:
            return
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise StrangeReplyError(_start(json.dumps(event)))
        self._is_recognised = True
        for place, choice in enumerate(choices):
            if choice.get("index", place) in (0, None):
                self._take_choice(choice)

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        if choice.get("error"):
            raise ErrorEventError(choice)
        self._has_choice = True
        # Some services send both, and the message is then all that has been said so far.
        part = choice.get("message" if choice.get("delta") is None else "delta") or {}
        if not isinstance(part, dict):
            raise StrangeReplyError(_start(json.dumps(choice)))
        text = _text(part.get("content"))
        self._num_chars += len(text)
        self._texts.append(text)
        if isinstance(refusal := part.get("refusal"), str):
            self._num_chars += len(refusal)
            self._refusals.append(refusal)
        if isinstance(finish := choice.get("finish_reason"), str) and finish:
            if finish in BROKEN:
                raise TransientError(f"the service ended the answer with {finish!r}")
            self.finish = finish
        self.is_full = self.is_full or self._num_chars >= self._max_chars

    def answer(self) -> Answer:
        """What has come, without the thoughts of reasoning models."""
        text = _whole("".join(self._texts))[: self._max_chars]
        refusal = _whole("".join(self._refusals))[: self._max_chars]
        finish: Literal["stop", "length", "refusal"] = "stop"
        if refusal or self.finish == "content_filter":
            finish = "refusal"
        elif self.is_full or self.finish in CUT:
            finish = "length"
        tokens = [self._tokens(name) for name in ("prompt_tokens", "completion_tokens")]
        return Answer(without_thoughts(text) or refusal, finish, *tokens)

    def _tokens(self, name: str) -> int | None:
        number = self._usage.get(name)
        return number if type(number) is int and number >= 0 else None


class Events:
    """Server-sent events as they arrive: `feed` gives the name and the data of those that are complete.

    ``strange`` is the first line that no event stream has, empty while there is none.
    """

    def __init__(self) -> None:
        self.strange = ""
        self._line: list[bytes] = []
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            line = b"".join([*self._line, part]).removesuffix(b"\r")
            self._line = []
            yield from self._take(line.decode("utf-8", "replace"))
        self._line.append(rest)

    def _take(self, line: str) -> Iterator[tuple[str, str]]:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif name == "event":
            self._name = value.strip()
        elif not line:
            if self._data:
                yield self._name, "\n".join(self._data)
            self._name, self._data = "", []
        elif name not in ("", "id", "retry"):
            self.strange = self.strange or line


def without_thoughts(text: str) -> str:
    """An answer without the ``<think>...</think>`` that reasoning models put before it, if their server leaves it in.

    Some chat templates open the block in the prompt, so that only its end is in the answer. A block without an end was
    cut off: nothing is left.
    """
    if re.match(r"\s*<think>", text):
        return re.sub(r"^\s*<think>.*?(</think>|\Z)\s*", "", text, count=1, flags=re.DOTALL)
    before, end, after = text.partition("</think>")
    return after.lstrip() if end and "<think>" not in before else text


def _text(content: Any) -> str:
    """Some services give a list of parts, thoughts among them."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict) if part.get("text"))
    return content if isinstance(content, str) else ""


def _whole(text: str) -> str:
    """Halves of surrogate pairs put together, as they come where a server cuts between them; others are replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _parsed(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TransientError(f"the answer is damaged: {_start(data)} is no JSON") from error


def _start(text: str) -> str:
    return repr(text.strip()[:SHOWN])
