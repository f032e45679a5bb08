"""Closes connections that come with a refused certificate, before anything is said.

NVFlare accepts a connection for any certificate of its authority. The connection then has the name of the certificate,
and what the server sends to a site would go to whoever holds it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from nvflare.fuel.f3.connection import Connection, ConnState
from nvflare.fuel.f3.drivers.driver import ConnMonitor

from fedmpt.federated.flare.certificates import fingerprint_of


class Doorman(ConnMonitor):  # type: ignore[misc]  # nvflare has no types.
    """Stands before NVFlare's manager of connections. ``is_refused`` is asked for a certificate's fingerprint."""

    def __init__(self, manager: Any, is_refused: Callable[[str], bool]) -> None:
        self._manager, self._is_refused = manager, is_refused
        self._turned_away: set[str] = set()
        for connector in manager.connectors.values():
            connector.driver.register_conn_monitor(self)

    def state_change(self, connection: Connection) -> None:
        if connection.state == ConnState.CONNECTED and self._refuses(connection):
            self._turned_away.add(connection.name)
            connection.close()
        elif connection.name in self._turned_away:
            self._turned_away.discard(connection.name)
        else:
            self._manager.state_change(connection)

    def close_refused(self) -> None:
        """Those that were there when their certificate was refused."""
        for found in list(self._manager.sfm_conns.values()):
            if self._refuses(found.conn):
                found.conn.close()

    def _refuses(self, connection: Connection) -> bool:
        socket = getattr(connection, "sock", None)
        if not isinstance(socket, ssl.SSLSocket):  # Between the server's own processes.
            return False
        try:
            shown = socket.getpeercert(binary_form=True)
        except (OSError, ValueError):  # It is closed.
            return False
        return shown is not None and self._is_refused(fingerprint_of(shown))
