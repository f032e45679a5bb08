"""What NVFlare's client prints, in words for a site's engineer: each thing once, until it changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

UNREACHED = 60.0
"""Seconds without a connection after which that is said."""
QUIET = 12.0
"""Seconds without a new failure after which a connection counts as restored; they come every 5 seconds."""
CONNECTED = re.compile(r"Successfully registered client")
REFUSED = re.compile(r"registration rejected|alert")
UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: (?P<why>.*?)(?: \(_ssl|$)")
ENDED = re.compile(r"must register anew|is disabled")
OPENED = re.compile(r"Connection \[(\S+) .* => .* SSL .*is created: (PID: \d+)")
CLOSED = re.compile(r"Connection \[(\S+) .*is closed (PID: \d+)")
TURNED_AWAY, AT_ONCE = 4, 1.0
"""Connections in a row that the coordinator closes within so many seconds: it does so with a refused certificate."""
FAILED = re.compile(r"failed with exception (?:\w+: )*(?P<why>.*)|re-challenge after|Failed to send heartbeat")


class News:
    """Of one site. ``address`` is the coordinator's."""

    def __init__(
        self, address: str, *, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address, self._note, self._clock = address, note, clock
        self._is_registered, self._said, self._why = False, "", ""
        self._first_failure: float | None = None
        self._last_failure = 0.0
        self._opened: dict[tuple[str, str], float] = {}
        self._turned_away = 0
        self.must_restart = False
        """Whether the server no longer listens to the client until it registers anew, which it does at its start. So it
        is `UNREACHED` seconds after the server has gone, and else the process of a job would stay at the site."""
        self.is_refused = False
        """Whether the coordinator refuses the site's certificate."""

    def begin(self) -> None:
        """The client is started, again or for the first time."""
        self._is_registered, self._first_failure, self.must_restart, self.is_refused = False, None, False, False

    def read(self, line: str) -> None:
        """A line that the client has printed."""
        now = self._clock()
        if CONNECTED.search(line):
            self._is_registered, self._first_failure, self._turned_away, self.is_refused = True, None, 0, False
            self._say(f"connected to {self._address}")
        elif found := UNTRUSTED.search(line):
            self._first_failure = None
            self._say(
                f"this site does not accept the coordinator's certificate ({found['why']}); check this machine's "
                "clock, then ask the coordinator"
            )
        elif REFUSED.search(line):
            self._refused()
        elif found := OPENED.search(line):
            self._opened[found[1], found[2]] = now
        elif found := CLOSED.search(line):
            opened = self._opened.pop((found[1], found[2]), None)
            if opened is not None:
                self._turned_away = self._turned_away + 1 if now - opened < AT_ONCE else 0
            if self._turned_away >= TURNED_AWAY:
                self._refused()
        elif ENDED.search(line):
            self.must_restart = True
        elif failed := FAILED.search(line):
            self._why = failed["why"] or self._why
            self._first_failure = now if self._first_failure is None else self._first_failure
            self._last_failure = now

    def look(self) -> None:
        """Called now and then: says what has lasted for too long, and what is over."""
        now = self._clock()
        if self._first_failure is None:
            return
        if now - self._last_failure > QUIET:
            self._first_failure = None
            if self._is_registered:
                self._say(f"connected to {self._address}")
        elif now - self._first_failure > UNREACHED:
            self.must_restart |= self._is_registered
            why = f" ({self._why})" if self._why else ""
            self._say(
                f"cannot reach {self._address} for {UNREACHED:g} s: the coordinator has not started or has stopped, or "
                "check address and firewall; tries on",
                more=why,
            )

    def _refused(self) -> None:
        self._is_registered, self._first_failure, self.is_refused = False, None, True
        self._say("the coordinator refuses this site's certificate: shut out or not approved; ask the coordinator")

    def _say(self, words: str, *, more: str = "") -> None:
        if words != self._said:
            self._said = words
            self._note(words + more)
