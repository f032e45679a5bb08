"""What endpoints say when they give no answer, put into what matters: again later, never, or in another way."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from fedmpt.llm.conversation import RequestTooLongError
from fedmpt.llm.model import TransientError
from fedmpt.llm.service import Service
from fedmpt.types import InputError

PASSING = (408, 409, 425, 429)
"""Statuses beside 5xx that may be gone with the next request."""
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
OPTIONAL = ("max_tokens", "temperature", "seed", "stream_options", "stream")
"""Parameters that an endpoint may do without."""
MAX_SAID = 300
"""Characters of a service's own words in a message."""
MIN_KEY = 8
"""Characters of a key that say something about it."""

_UNSUPPORTED = re.compile(
    r"unsupported|not supported|n[o']t support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|forbidden|"
    r"must be verified",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|prompt is too long|exceed_context|too many (input )?tokens", re.IGNORECASE
)
_NO_SYSTEM = re.compile(r"system.{0,20}\brole|\brole\b.{0,40}system", re.IGNORECASE)


class UnsupportedError(Exception):
    """The endpoint does not know a parameter that it was sent, or "system" messages; the text is its name."""


class BlockedError(Exception):
    """A filter of the service does not let the request through."""


class Refusals:
    """Errors of one endpoint as exceptions. Its own words are quoted, since they may hold anything, but for the key."""

    def __init__(self, service: Service, model: str) -> None:
        self._service = service
        self._model = model

    def of_status(self, status: int, body: Any, headers: Mapping[str, str]) -> Exception:
        """The exception for a status of 300 or more; ``body`` is what came with it, parsed if it was JSON.

        It is one of `TransientError`, `InputError` (with `RequestTooLongError`), `UnsupportedError`, `BlockedError`.
        """
        error, said = _error(body), self.said(body)
        at = self._service.address
        if 300 <= status < 400:
            target = self.quoted(headers.get("location", ""))
            return InputError(f"{at} redirects to {target}; nothing was sent there. If that is right, give it instead")
        if {str(error.get("code")), str(error.get("type"))} & set(NO_CREDIT) or status == 402:
            return InputError(f"{at}: the account has no credit left, so waiting does not help: {said}")
        if status in PASSING or status >= 500:
            return TransientError(f"{at} answers {status}: {said}", retry_after=asked_wait_s(headers))
        if status in (401, 403):
            return InputError(self._key_refused(status, said))
        if status in (404, 405):
            return InputError(f"{at} knows no model {self._model!r}, or its address lacks an ending as /v1: {said}")
        if status in (400, 413, 422):
            return self._of_request(status, error, body, said)
        return InputError(f"{at} answers {status}: {said}")

    def _of_request(self, status: int, error: Mapping[str, Any], body: Any, said: str) -> Exception:
        """Something about the request itself was wrong."""
        at, text = self._service.address, _text(body)
        if status == 413 or _TOO_LONG.search(text):
            return RequestTooLongError(
                f"{at}: a request is too long for {self._model!r}; put fewer combinations into one request, or ask for "
                f"shorter answers: {said}"
            )
        if error.get("code") == "content_filter":
            return BlockedError(said)
        if _UNSUPPORTED.search(text):
            if _NO_SYSTEM.search(text):
                return UnsupportedError("system")
            named = [name for name in OPTIONAL if error.get("param") == name]
            if found := named or [name for name in OPTIONAL if re.search(rf"\b{name}\b", text)]:
                return UnsupportedError(found[0])
        return InputError(f"{at} does not take the request ({status}): {said}")

    def of_event(self, body: Mapping[str, Any]) -> Exception:
        """The exception for an error that came under the status 200, as those do that happen on the way."""
        code = str(_error(body).get("code"))
        status = int(code) if re.fullmatch("[345][0-9][0-9]", code) else 500
        found = self.of_status(status, body, {})
        if status == 500 and isinstance(found, TransientError):
            return TransientError(f"{self._service.address} ended an answer with an error: {self.said(body)}")
        return found

    def of_connection(self, error: BaseException) -> Exception:
        """The exception for a connection that could not be made, or was lost."""
        causes = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
            causes.append(cause)
        words = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return InputError(f"{self._service.address}: its certificate is not trusted: {self.quoted(words)}")
        return TransientError(f"no connection to {self._service.address}: {self.quoted(words)}")

    def of_strange(self, start: str) -> InputError:
        """For a reply that is not of this API; ``start`` shows it."""
        address = self._service.address
        return InputError(
            f"{address} does not answer as an OpenAI-compatible endpoint does, but with {self.without_key(start)}; "
            "check the address, which often ends in /v1, and whether a proxy or a login page is between"
        )

    def said(self, body: Any) -> str:
        """The service's own words."""
        message = _error(body).get("message")
        return self.quoted(message if isinstance(message, str) and message else _text(body) or "nothing more")

    def quoted(self, text: str) -> str:
        clean = self.without_key(text)
        return repr(clean if len(clean) <= MAX_SAID else f"{clean[:MAX_SAID]}...")

    def without_key(self, text: str) -> str:
        """The text without the key, and without the start of it that is left where a text was cut."""
        key = self._service.key or ""
        for length in range(len(key), MIN_KEY - 1, -1):
            text = text.replace(key[:length], "[key]")
        return text

    def _key_refused(self, status: int, said: str) -> str:
        if self._service.key:
            remedy = f"check the key in ${self._service.key_env}, and what it is allowed"
        else:
            name = self._service.key_env
            remedy = f"put a key into ${name}" if name else "name the variable that holds a key with --key-env"
        return f"{self._service.address} refuses ({status}): {said}; {remedy}"


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After, seconds or a date, in seconds from now. None where there is none or it makes no sense."""
    if re.fullmatch(r"[0-9]{1,9}", milliseconds := headers.get("retry-after-ms", "").strip()):
        return int(milliseconds) / 1000
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # No date, one without a time zone, or of another age.
        return None


def _error(body: Any) -> Mapping[str, Any]:
    """The object that describes the error: most put it under "error", some use the whole body."""
    if not isinstance(body, dict):
        return {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body


def _text(body: Any) -> str:
    """All that was said, to search in."""
    return body.strip() if isinstance(body, str) else "" if body is None else json.dumps(body, ensure_ascii=False)
