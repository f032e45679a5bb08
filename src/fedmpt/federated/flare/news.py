"""What NVFlare's client prints, in words for a site's engineer: each thing once, until it changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

UNREACHED = 60.0
"""Seconds without a connection after which that is said."""
CONNECTED = re.compile(r"Successfully registered client")
REFUSED = re.compile(r"not admitted with this certificate|is disabled|UNAUTHENTICATED|CERTIFICATE_VERIFY_FAILED")
LOST = re.compile(r"Failed to send heartbeat")


class News:
    def __init__(self, address: str, *, note: Callable[[str], None]) -> None:
        self._address, self._note = address, note
        self._state, self._since = "", 0.0

    def begin(self) -> None:
        self._state, self._since = "new", time.monotonic()

    def read(self, line: str) -> None:
        """A line of the client's; called in another thread."""
        print(line)

    def look(self) -> None:
        """Called now and then."""
