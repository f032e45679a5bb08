"""One HTTP request for a file from some byte on.

The standard library is enough: a Range header, redirects and proxies are all that is needed, and a second HTTP library
would have to be declared, and kept up to date, for nothing more. urllib takes proxies from http_proxy, https_proxy and
no_proxy.
"""

from __future__ import annotations

import re
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from fedmpt import __version__
from fedmpt.types import InputError

_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be gone with the next request."""


class PassingError(Exception):
    """The server, or the way to it, failed in a way that may pass; the message is the reason.

    ``wait_s`` is how long the server asks to wait; ``anew`` says that what has come so far is of no use.
    """

    def __init__(self, reason: str, *, wait_s: float = 0.0, anew: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.anew = anew


class NotThereError(InputError):
    """The server has no such file."""


@dataclass(frozen=True)
class Version:
    """By what a server tells one version of a file from another. Empty words where it says nothing."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""

    def condition(self, url: str) -> str:
        """For an If-Range header: send the rest only if the file is still this one. Empty if it cannot be asked.

        Weak ETags are not for ranges (RFC 9110, 13.1.5). Another server has marks of its own; there the checksum tells.
        """
        if url != self.url:
            return ""
        return self.last_modified if not self.etag or self.etag.startswith("W/") else self.etag

    def differs(self, other: Version) -> bool:
        """Whether the same server shows by its marks that this is another version."""
        marks = (self.etag, other.etag) if self.etag and other.etag else (self.last_modified, other.last_modified)
        return self.url == other.url and all(marks) and marks[0] != marks[1]


@dataclass(frozen=True)
class Answer:
    """The body from byte ``start`` on; ``total_bytes`` is the length of the whole file, if the server tells it."""

    version: Version
    start: int
    total_bytes: int | None
    content_type: str
    body: HTTPResponse


def check_mirror(url: str) -> None:
    """Raises InputError if ``url`` is no address that files can be below."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address or not url.isprintable() or " " in url:
        raise InputError(f"--mirror {url!r} is no address; give one such as https://example.org/files")
    if parts.username is not None:
        raise InputError("--mirror has a user name in it; only servers that ask for none can be used")
    if parts.query or parts.fragment:
        raise InputError(f"--mirror {url!r} has something behind its path; give the address of a folder")


def ask(url: str, *, start: int, version: Version, timeout_s: float) -> Answer:
    """The file at ``url`` from byte ``start`` on, or the whole if the server gives no part of it, or has another.

    ``version`` is the one that the first ``start`` bytes are of. The answer's body is to be closed.

    Raises:
        PassingError: if it failed in a way that may pass, or the server will not go on from there.
        NotThereError: if there is no such file.
        InputError: if the server refuses.
    """
    headers = {"User-Agent": f"fedmpt/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if condition := version.condition(url):
            headers["If-Range"] = condition
    body = _send(urllib.request.Request(url, headers=headers), timeout_s)
    try:
        return _understood(url, body, start=start, version=version)
    except BaseException:
        body.close()
        raise


def _send(request: urllib.request.Request, timeout_s: float) -> HTTPResponse:
    try:
        return _opener().open(request, timeout=timeout_s)
    except HTTPError as error:
        with error:
            raise _refusal(request.full_url, error) from error
    except URLError as error:
        if isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise PassingError(reason(error.reason)) from error
        raise InputError(f"{request.full_url}: {error.reason}; take another address with --mirror") from error
    except InvalidURL as error:
        raise InputError(f"{request.full_url} leads to an address that is none: {error}") from error
    except (OSError, HTTPException) as error:
        raise PassingError(reason(error)) from error


def _opener() -> urllib.request.OpenerDirector:
    """Knows http and https and nothing else: no redirect leads to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def reason(error: Exception) -> str:
    """An error of the network in words; many have no message."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words or type(error).__name__


def _refusal(url: str, error: HTTPError) -> Exception:
    # Words of the server are quoted: they may hold anything, a terminal's commands too.
    said = f"{error.code} {error.msg!r}"
    if error.code == 416:
        return PassingError("the server will not go on from there", anew=True)
    if error.code in _PASSING:
        return PassingError(f"the server answers {said}", wait_s=_asked_wait_s(error.headers))
    if error.code in (404, 410):
        return NotThereError(f"{url} is not there ({said}); take another address with --mirror")
    return InputError(f"{url}: the server answers {said}; take another address with --mirror")


def _asked_wait_s(headers: Mapping[str, str] | Message) -> float:
    """Retry-After, seconds or a date. 0 where there is none or it makes no sense."""
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # No date, or one without a time zone.
        return 0.0


def _understood(url: str, body: HTTPResponse, *, start: int, version: Version) -> Answer:
    headers = body.headers
    coding = (headers.get("Content-Encoding") or "identity").strip().lower()
    if body.status not in (200, 206) or coding != "identity":
        raise InputError(f"{url}: the server answers {body.status} with coding {coding!r}; another --mirror may help")
    now = Version(url, (headers.get("ETag") or "").strip(), (headers.get("Last-Modified") or "").strip())
    content_type = headers.get_content_type() if headers.get("Content-Type") else ""
    if body.status == 200:
        length = (headers.get("Content-Length") or "").strip()
        return Answer(now, 0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None, content_type, body)
    found = re.fullmatch(
        r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", (headers.get("Content-Range") or "").strip()
    )
    if found is None or int(found[1]) != start:
        raise PassingError("the server sends another part than asked for", anew=True)
    if version.differs(now):
        raise PassingError("the file on the server has changed", anew=True)
    return Answer(now, start, None if found[2] == "*" else int(found[2]), content_type, body)
