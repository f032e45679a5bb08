"""Where an endpoint is, and which key goes there.

A key belongs to one service, and must never reach another. So ``$OPENAI_API_KEY`` is for OpenAI's address or the one
in ``$OPENAI_BASE_URL``; an address given by ``--endpoint`` gets a key only where ``--key-env`` names its variable.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fedmpt.types import InputError

OPENAI, OPENAI_KEY_ENV = "https://api.openai.com/v1", "OPENAI_API_KEY"


@dataclass(frozen=True)
class Service:
    """An address to which ``/chat/completions`` is added, and the key for it.

    ``key_env`` is the variable that the key was or would have been in; None where the user named none. ``is_default``
    says that the address is OpenAI's or that of ``$OPENAI_BASE_URL``, so that other settings of the environment that
    the openai library knows (organisation, project, further headers) are meant for it.
    """

    address: str
    is_default: bool
    key: str | None = field(default=None, repr=False)
    key_env: str | None = None

    @property
    def is_here(self) -> bool:
        return urlsplit(self.address).hostname in ("localhost", "127.0.0.1", "::1")


def find_service(endpoint: str | None, key_env: str | None, *, allow_plain_http: bool) -> Service:
    """The service that the options and the environment name.

    Raises:
        InputError: if the address is none or has more in it than an address, the variable of the key is not set, or
            the key would go over plain http to another machine and ``allow_plain_http`` does not say that it may.
    """
    from_environment = os.environ.get("OPENAI_BASE_URL", "").strip()
    where = "--endpoint" if endpoint is not None else "$OPENAI_BASE_URL"
    address = endpoint if endpoint is not None else from_environment or OPENAI
    _check_address(address, where)
    variable = key_env if key_env is not None else OPENAI_KEY_ENV if endpoint is None else None
    key = _key(variable, is_required=key_env is not None or address == OPENAI) if variable is not None else None
    service = Service(address.rstrip("/"), is_default=endpoint is None, key=key, key_env=variable)
    if key and address.startswith("http:") and not service.is_here and not allow_plain_http:
        raise InputError(
            f"{where} {address}: the key in ${variable} would cross the network unencrypted; use https, or "
            "--allow-plain-http if the network is your own"
        )
    return service


def _check_address(address: str, where: str) -> None:
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    # What stands before an @ or behind a ? may be a password: it is not printed.
    shown = "" if "@" in address else f" {address.partition('?')[0]!r}"
    if not is_address or not re.fullmatch(r"[!-~]+", address) or re.search(r"[?#@]|/completions/?$", address):
        raise InputError(
            f"{where}{shown} is no address of an API; give one such as https://example.org/v1, without a user or "
            "password, a query, or /chat/completions; Azure's is https://NAME.openai.azure.com/openai/v1"
        )


def _key(variable: str, *, is_required: bool) -> str | None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):  # It may be the key itself: not to be printed.
        raise InputError("--key-env takes the name of an environment variable, such as OPENAI_API_KEY, not the key")
    key = os.environ.get(variable, "").strip()
    if not key and is_required:
        name = f"${variable}" if variable.isupper() else "the variable that --key-env names"  # It may be a key too.
        raise InputError(f"{name} is not set; put the service's key into it, or give your own server's --endpoint")
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"what is in ${variable} is no key: it has blanks, line breaks or letters other than ASCII")
    return key or None
