"""The options of a command that name a language model, and the model that they name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedmpt.llm.model import LanguageModel
from fedmpt.types import InputError

EXCHANGE = "exchange:"
NEEDED = ("json_repair", "pydantic", "tenacity")
"""Libraries of the extra ``llm`` that any model needs, to be asked and to have its answers read."""


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

    def check(self) -> None:
        """Raises InputError if no model is named or a number is out of range, naming its flag."""
        if not self.llm.removeprefix(EXCHANGE).strip():
            raise InputError(
                "--llm is missing: give a model's name at an endpoint, a .gguf file, a model folder, or exchange:FOLDER"
            )
        for flag, seconds in (("--timeout", self.timeout), ("--requests-per-minute", self.requests_per_minute)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise InputError(f"{flag} must be above 0, got {seconds:g}")
        lowest = {"concurrency": 1, "retries": 0, "attempts": 1}
        if wrong := [name for name, least in lowest.items() if getattr(self, name) < least]:
            raise InputError(f"--{wrong[0]} must be {lowest[wrong[0]]} or more, got {getattr(self, wrong[0])}")


def check_installed() -> None:
    """Raises InputError where the libraries are missing that asking needs, whatever the model."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"language models need {', '.join(missing)}; pip install 'fedmpt[llm]'")


def open_model(options: LLMOptions) -> LanguageModel:
    """The model that the options name, ready to be asked; nothing is sent yet.

    With an endpoint, the name is one at that endpoint. Without, a name that ends in .gguf and a folder with a
    config.json are opened here, and any other is a model of the default endpoint.

    Raises:
        InputError: if an option is wrong, or does not fit the others, or what is to be opened is not there.
    """
    options.check()
    path = Path(options.llm.removeprefix(EXCHANGE)).expanduser()
    is_exchange = options.endpoint is None and options.llm.startswith(EXCHANGE)
    if not is_exchange and not (options.endpoint is None and _is_local(options.llm, path)):
        from fedmpt.llm.endpoint import Endpoint
        from fedmpt.llm.service import find_service

        service = find_service(options.endpoint, options.key_env, allow_plain_http=options.allow_plain_http)
        return Endpoint(options.llm, service, timeout_s=options.timeout)
    if options.key_env is not None:
        raise InputError(f"--key-env is for endpoints, and --llm {options.llm} is none; leave it out")
    if is_exchange:
        from fedmpt.llm.exchange import Exchange

        return Exchange(path)
    from fedmpt.llm.local import LocalModel

    return LocalModel(path)


def _is_local(name: str, path: Path) -> bool:
    """Whether a name is that of a file or folder here; if not, it is one of a model at an endpoint."""
    if name.lower().endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"--llm {name}: no such file; paths are relative to the folder that the command runs in")
        return True
    if (path / "config.json").is_file():
        return True
    if name.startswith(("/", "./", "../", "~")) or path.is_absolute():
        wrong = "has no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
        raise InputError(
            f"--llm {name}: {wrong}; a model here is a folder with config.json and weights, or a .gguf file"
        )
    return False
