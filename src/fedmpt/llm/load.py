"""From the options of a command to a language model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fedmpt.llm.asking import Limits
from fedmpt.llm.model import LanguageModel
from fedmpt.types import InputError

EXCHANGE = "exchange:"
GGUF = ".gguf"


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
    timeout: float = 300.0
    """Seconds that one answer of an endpoint may take."""
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


def open_model(options: LLMOptions) -> LanguageModel:
    """The model that the options name, ready to be asked; nothing is sent yet.

    With an endpoint, the name is one at that endpoint. Without, a name that ends in .gguf and a folder with a
    config.json are opened here, and any other is a model of the default endpoint.

    Raises:
        InputError: if an option is wrong, or does not fit the others, or what is to be opened is not there.
    """
    _check(options)
    if options.endpoint is None and options.llm.startswith(EXCHANGE):
        _refuse_endpoint_options(options)
        from fedmpt.llm.exchange import Exchange

        return Exchange(Path(options.llm.removeprefix(EXCHANGE)).expanduser())
    if options.endpoint is None and (path := _local(options.llm)):
        _refuse_endpoint_options(options)
        from fedmpt.llm.local import open_local

        return open_local(path)
    from fedmpt.llm.endpoint import Endpoint
    from fedmpt.llm.service import find_service

    service = find_service(options.endpoint, options.key_env, allow_plain_http=options.allow_plain_http)
    return Endpoint(options.llm, service, timeout_s=options.timeout)


def limits_of(options: LLMOptions, max_requests: int | None) -> Limits:
    """How much and how fast to ask.

    Raises:
        InputError: if a number is out of range, naming its flag.
    """
    _check(options)
    if max_requests is not None and max_requests < 0:
        raise InputError(f"--max-requests must not be negative, got {max_requests}")
    return Limits(
        max_requests=max_requests,
        attempts=options.attempts,
        retries=options.retries,
        requests_per_minute=options.requests_per_minute,
        concurrency=options.concurrency,
        fresh=options.fresh,
    )


def _check(options: LLMOptions) -> None:
    name = options.llm.removeprefix(EXCHANGE)
    if not name.strip() or not name.isprintable():
        raise InputError(
            f"--llm {options.llm!r} names no model; give a model's name at the endpoint, a .gguf file, a model folder, "
            "or exchange:FOLDER"
        )
    for flag, seconds in (("--timeout", options.timeout), ("--requests-per-minute", options.requests_per_minute)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise InputError(f"{flag} must be above 0, got {seconds:g}")
    for flag, number, lowest in (
        ("--concurrency", options.concurrency, 1),
        ("--retries", options.retries, 0),
        ("--attempts", options.attempts, 1),
    ):
        if number < lowest:
            raise InputError(f"{flag} must be {lowest} or more, got {number}")


def _local(name: str) -> Path | None:
    """The file or folder that a model is in; None for the name of a model at an endpoint."""
    path = Path(name).expanduser()
    if name.lower().endswith(GGUF):
        if not path.is_file():
            raise InputError(f"--llm {name}: no such file; paths are relative to the folder that the command runs in")
        return path
    if (path / "config.json").is_file():
        return path
    if name.startswith(("/", "./", "../", "~")) or path.is_absolute():
        wrong = "has no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
        raise InputError(
            f"--llm {name}: {wrong}; a model here is a folder with config.json and weights, or a .gguf file"
        )
    return None


def _refuse_endpoint_options(options: LLMOptions) -> None:
    if options.key_env is not None:
        raise InputError(f"--key-env is for endpoints, and --llm {options.llm} is none; leave it out")
