"""The server's gate: NVFlare's server loads it, and asks it before it listens to a site.

NVFlare has no list of revoked certificates. It also lets a session go on that an earlier server had granted. So the
gate looks at every message of a site: at a registration for the certificate that comes with it, at all others for
whether the site's sessions still count. Connections with a certificate that was refused are closed by the doorman.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.lighter.utils import load_crt_chain_bytes
from nvflare.private.defs import AUTH_CLIENT_NAME_FOR_SJ, CellChannel, CellChannelTopic, CellMessageHeaderKeys

from fedmpt.errors import InputError
from fedmpt.federated.flare.admitted import FILE, Admission, read_admitted
from fedmpt.federated.flare.certificates import fingerprint
from fedmpt.federated.flare.doorman import Doorman

NOT_ADMITTED = "site {site} is not admitted with this certificate"
SESSION_ENDED = "the session of site {site} has ended, it must register anew"
PAUSE = 0.5
"""Seconds between two looks at the list for sites to throw out."""


class Gate(FLComponent):  # type: ignore[misc]  # nvflare has no types.
    """Lets a site in only with the certificate that `fedmpt.federated.flare.admitted` names for it."""

    def __init__(self) -> None:
        super().__init__()
        self._path = Path("local", FILE)
        self._known: Mapping[str, Admission] = {}
        self._stamp: tuple[int, int] | None = None
        self._server: Any = None
        self._doorman: Doorman | None = None
        self._lock = threading.Lock()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.SYSTEM_START:  # In the server's process alone, never in a job's.
            self._server = fl_ctx.get_prop(FLContextKey.SITE_OBJ)
            self._path = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_site_config_dir(), FILE).absolute()
            core = self._server.cell.core_cell
            core.add_incoming_request_filter(channel=CellChannel.SERVER_MAIN, topic="*", cb=self._answer)
            core.add_incoming_filter(channel="*", topic="*", cb=self._drop)
            self._doorman = Doorman(core.communicator.conn_manager, self._is_refused)
            self._throw_out(lambda site: True)  # Who came before the gate stood comes once more.
            threading.Thread(target=self._watch, daemon=True).start()

    def _answer(self, message: Message) -> Message | None:
        """A refusal of what a site says to the server itself, or None. The site's log tells the reason."""
        site = str(message.get_header(CellMessageHeaderKeys.CLIENT_NAME))
        topic = message.get_header(MessageHeaderKey.TOPIC)
        if topic == CellChannelTopic.Challenge:
            return None  # Says nothing of a site yet.
        if topic == CellChannelTopic.Register:
            reason = "" if self._may_register(site, message) else NOT_ADMITTED.format(site=site)
        else:
            reason = "" if self._counts(message) else SESSION_ENDED.format(site=site)
        if not reason:
            return None
        self.logger.warning(reason)
        return make_reply(ReturnCode.UNAUTHENTICATED, error=reason)

    def _drop(self, message: Message) -> Message | None:
        """The same for what the server would pass on to a job: it is dropped, without an answer."""
        if message.get_header(MessageHeaderKey.CHANNEL) == CellChannel.SERVER_MAIN or self._counts(message):
            return None
        return make_reply(ReturnCode.UNAUTHENTICATED, error="not admitted")

    def _may_register(self, site: str, message: Message) -> bool:
        """Whether the certificate is the site's. That the sender has its key is what NVFlare checks next."""
        admission = self._admitted().get(site)
        try:
            shown = fingerprint(load_crt_chain_bytes(message.payload[IdentityChallengeKey.CERT])[0])
        except (KeyError, TypeError, ValueError, IndexError):
            return False
        return admission is not None and admission.certificate == shown

    def _counts(self, message: Message) -> bool:
        """Whether the session of a message still counts. NVFlare has checked that its token is the site's.

        A token that this server process did not grant may have been granted to an earlier certificate.
        """
        name = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        if name in (
            None,
            self._server.my_own_auth_client_name,
            AUTH_CLIENT_NAME_FOR_SJ,
        ):  # A goodbye; the server's own.
            return True
        admission = self._admitted().get(str(name))
        token = message.get_header(CellMessageHeaderKeys.TOKEN)
        is_own = token in self._server.client_manager.get_clients()
        return admission is not None and admission.certificate is not None and (is_own or not admission.refused)

    def _watch(self) -> None:
        """Throw out whoever is no longer admitted, also while nothing is heard of them."""
        while not self._server.shutdown:
            self._admitted()
            time.sleep(PAUSE)

    def _admitted(self) -> Mapping[str, Admission]:
        """The list as it stands now. Nobody is admitted while it cannot be read."""
        with self._lock:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                if stamp == self._stamp:
                    return self._known
                fresh = read_admitted(self._path)
            except (OSError, InputError) as error:
                self.logger.error(f"no site is admitted: {error}")
                stamp, fresh = None, dict.fromkeys(self._known, Admission(None))
            gone = {site for site, before in self._known.items() if fresh.get(site) != before}
            self._known, self._stamp = fresh, stamp
        if gone:
            self._throw_out(gone.__contains__)
        return fresh

    def _is_refused(self, shown: str) -> bool:
        refused = any(shown in admission.refused for admission in self._admitted().values())
        if refused:
            self.logger.warning(f"a connection with a refused certificate ({shown}) was closed")
        return refused

    def _throw_out(self, is_gone: Callable[[str], bool]) -> None:
        for token, client in list(self._server.client_manager.get_clients().items()):
            if is_gone(client.name):
                self.logger.warning(f"site {client.name}: its certificate is no longer admitted, session ended")
                self._server.logout_client(token)
        if self._doorman is not None:
            self._doorman.close_refused()
