"""Where an endpoint is, and which key goes there.

A key belongs to one service, and must never reach another. So ``$OPENAI_API_KEY`` is for OpenAI's address or the one
in ``$OPENAI_BASE_URL``; an address given by ``--endpoint`` gets a key only where ``--key-env`` names its variable.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from fedmpt.types import InputError

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY_ENV = "OPENAI_API_KEY"


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
    def is_loopback_http(self) -> bool:
        parts = urlsplit(self.address)
        return parts.scheme == "http" and _is_loopback(parts.hostname or "")


def find_service(endpoint: str | None, key_env: str | None, *, allow_plain_http: bool) -> Service:
    """The service that the options and the environment name.

    Azure's service works by its address without versions, ``https://NAME.openai.azure.com/openai/v1``, and
    ``--key-env``; the older addresses with ``?api-version=`` are refused, as all are that have a query.

    Raises:
        InputError: if the address is none or has a user, password or query in it, the variable of the key is not set,
            or the key would go over plain http to another machine and ``allow_plain_http`` does not say that it may.
    """
    if endpoint is not None:
        where, address = "--endpoint", endpoint
    elif from_environment := os.environ.get("OPENAI_BASE_URL", "").strip():
        where, address = "$OPENAI_BASE_URL", from_environment
    else:
        where, address = "the default endpoint", OPENAI
    parts = _checked(address, where)
    variable = key_env if key_env is not None else OPENAI_KEY_ENV if endpoint is None else None
    key = _key(variable, is_required=key_env is not None or where == "the default endpoint")
    if key and parts.scheme == "http" and not _is_loopback(parts.hostname or "") and not allow_plain_http:
        raise InputError(
            f"{where} {address}: the key in ${variable} would cross the network unencrypted; use https, or "
            "--allow-plain-http if the network is your own"
        )
    return Service(address.rstrip("/"), is_default=endpoint is None, key=key, key_env=variable)


def _checked(address: str, where: str) -> SplitResult:
    example = "https://example.org/v1"
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port)
    except ValueError:
        is_address = False
    if "@" in address.partition("//")[2].partition("/")[0]:  # First: what follows would print the password.
        raise InputError(f"{where} has a user or a password in it; name the variable of a key with --key-env instead")
    if not is_address or not address.isascii() or not address.isprintable() or " " in address:
        raise InputError(f"{where} {address!r} is no address; give one such as {example}")
    if "?" in address or "#" in address:
        raise InputError(
            f"{where} has something behind its path: {address.split('?')[0].split('#')[0]!r} is as far as an address "
            "may go; Azure's is https://NAME.openai.azure.com/openai/v1, without api-version"
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise InputError(f"{where} {address!r}: leave out /chat/completions, it is added; such as {example}")
    return parts


def _key(variable: str | None, *, is_required: bool) -> str | None:
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):  # It may be the key itself: not to be printed.
        raise InputError("--key-env takes the name of an environment variable, such as OPENAI_API_KEY, not the key")
    key = os.environ.get(variable, "").strip()
    if not key and not is_required:
        return None
    if not key:
        name = f"${variable}" if variable.isupper() else "the variable that --key-env names"
        raise InputError(f"{name} is not set; put the service's key into it, or give your own server's --endpoint")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"what is in ${variable} is no key: it has blanks, line breaks or letters other than ASCII")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
