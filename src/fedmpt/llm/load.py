"""From options to a model: which one is meant, where it is, and which key goes there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.exchange import Exchange
from fedmpt.llm.local import LocalModel
from fedmpt.llm.model import LanguageModel
from fedmpt.llm.options import LOOPBACK, LLMOptions
from fedmpt.types import InputError, check_options

EXCHANGE = "exchange:"
OPENAI = "https://api.openai.com/v1"
_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?(/[^\s?#@]*)?", re.ASCII)


def open_model(options: LLMOptions) -> LanguageModel:
    """The model that the options name, ready to be asked; an InputError if one is wrong, or something is not there.

    With an endpoint, the name is one at that endpoint. Without, a name that ends in .gguf and a folder with a
    config.json are opened here, and any other is a model of the default endpoint.
    """
    check_options(options, "(0, inf)", "timeout", "requests_per_minute", "concurrency", "attempts")
    check_options(options, "[0, inf)", "retries")
    name = options.llm if options.endpoint else options.llm.removeprefix(EXCHANGE)
    if not name.strip():
        raise InputError(
            "--llm is missing: give a model's name at an endpoint, a .gguf file, a model folder, or exchange:FOLDER"
        )
    path = Path(name).expanduser()
    if name != options.llm:
        return Exchange(path)
    looks_like_a_path = name.lower().endswith(".gguf") or name.startswith(("/", "./", "../", "~"))
    if options.endpoint is None and (looks_like_a_path or (path / "config.json").is_file()):
        return LocalModel(path)
    address = options.endpoint or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI
    if not _ADDRESS.fullmatch(address) or address.rstrip("/").endswith("/completions"):
        raise InputError(  # It is not printed: there may be a password in it.
            "--endpoint is no address of an API; give one such as https://example.org/v1, without a user or password, "
            "a query, or /chat/completions; Azure's is https://NAME.openai.azure.com/openai/v1"
        )
    # A key belongs to one service and must never reach another: OpenAI's goes to an address that is given only by name.
    key_env = "OPENAI_API_KEY" if options.key_env is None and options.endpoint is None else options.key_env
    key = _key_in(key_env, address, options) if key_env is not None else ""
    return Endpoint(options, address.rstrip("/"), key=key, key_env=key_env)


def _key_in(variable: str, address: str, options: LLMOptions) -> str:
    """The key in an environment variable; an InputError if it is none, or must not cross the network."""
    key = os.environ.get(variable, "").strip()
    if not key and (options.key_env is not None or address == OPENAI):
        name = "$OPENAI_API_KEY" if options.key_env is None else "the variable that --key-env names"  # Or it is a key.
        raise InputError(f"{name} is not set; put the service's key into it, or give your own server's --endpoint")
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"what is in ${variable} is no key: it has blanks, line breaks or letters other than ASCII")
    if key and not options.allow_plain_http and not (address.startswith("https:") or LOOPBACK.match(address)):
        raise InputError(
            f"{address}: the key in ${variable} would cross the network unencrypted; use https, or --allow-plain-http "
            "if the network is your own"
        )
    return key
