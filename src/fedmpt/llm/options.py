"""The options of a command that name a language model and say how it is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from fedmpt.types import InputError

LOOPBACK = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(?![\w.-])")
"""This machine's own servers: on the way there nobody reads along."""


@dataclass(frozen=True, kw_only=True)
class LLMOptions:
    """The language model, and how it is asked."""

    llm: str
    """Model's name at the endpoint; or a .gguf file or model folder, run here; or exchange:FOLDER, answered by hand."""
    endpoint: str | None = None
    """OpenAI-compatible server, as http://localhost:8000/v1; unless given, $OPENAI_BASE_URL or OpenAI's own."""
    key_env: str | None = None
    """Environment variable with the key; unless given, OPENAI_API_KEY without --endpoint and no key with it."""
    allow_plain_http: bool = False
    """Let the key go over http, unencrypted, to another machine."""
    timeout: float = 600.0
    """Seconds to wait for an answer of an endpoint, which comes when it is whole."""
    requests_per_minute: float | None = None
    """Ask at most so often, evenly spaced."""
    concurrency: int = 4
    """Requests under way at once."""
    retries: int = 6
    """Further attempts when the endpoint is busy or cannot be reached, with growing waits."""
    attempts: int = 3
    """Answers to one question: one that cannot be read is sent back with what was wrong."""
    fresh: bool = False
    """Ask anew, and overwrite the answers that were kept."""


def check_installed() -> None:
    """Raises InputError where the libraries are missing that answers of any model are read with."""
    if missing := [name for name in ("json_repair", "pydantic") if find_spec(name) is None]:
        raise InputError(f"language models need {' and '.join(missing)}; pip install 'fedmpt[llm]'")
