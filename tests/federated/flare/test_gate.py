"""The gate's answers, message by message. `test_strangers` asks it in a real server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys as Keys

from fedmpt.federated.flare.admitted import Admission, write_admitted
from fedmpt.federated.flare.certificates import fingerprint, read_certificate
from fedmpt.federated.flare.gate import Gate


@dataclass
class Server:
    """What the gate uses of NVFlare's server."""

    tokens: dict[str, str] = field(default_factory=dict)
    shutdown: bool = True  # No watching: each message looks at the list too.
    filters: list[Any] = field(default_factory=list)
    my_own_auth_client_name: str = "server"

    def __post_init__(self) -> None:
        self.client_manager = SimpleNamespace(
            get_clients=lambda: {token: SimpleNamespace(name=name) for token, name in self.tokens.items()}
        )
        core = SimpleNamespace(
            add_incoming_request_filter=lambda channel, topic, cb: self.filters.append(cb),
            add_incoming_filter=lambda channel, topic, cb: self.filters.append(cb),
            communicator=SimpleNamespace(conn_manager=SimpleNamespace(connectors={}, sfm_conns={})),
        )
        self.cell = SimpleNamespace(core_cell=core)

    def logout_client(self, token: str) -> None:
        del self.tokens[token]

    def answer(self, topic: str, *, site: str, token: str = "", certificate: Path | None = None) -> str:
        """A refusal's reason, or nothing."""
        headers = {
            MessageHeaderKey.TOPIC: topic,
            Keys.CLIENT_NAME: site,
            Keys.TOKEN: token,
        }
        payload = {} if certificate is None else {"cert": certificate.read_bytes()}
        reply = self.filters[0](Message(headers, payload))
        assert reply is None or reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
        return "" if reply is None else str(reply.get_header(MessageHeaderKey.ERROR))

    def is_dropped(self, *, site: str | None, token: str, channel: str = "aux") -> bool:
        headers = {
            MessageHeaderKey.CHANNEL: channel,
            Keys.CLIENT_NAME: site,
            Keys.TOKEN: token,
        }
        return self.filters[1](Message(headers, None)) is not None


@pytest.fixture
def kit(made: Path, tmp_path: Path) -> Path:
    """A server's folder, whose list admits clinic-a with its certificate of `made`."""
    for name in ("startup", "local"):
        (tmp_path / name).mkdir()
    admit(tmp_path, fingerprint(read_certificate(certificate(made))))
    return tmp_path


def certificate(made: Path) -> Path:
    return made / "sites" / "clinic-a" / "startup" / "client.crt"


def admit(kit: Path, shown: str | None, *, refused: tuple[str, ...] = ()) -> None:
    path = kit / "local" / "admitted.json"
    write_admitted(path, {"clinic-a": Admission(shown, refused)})
    admit.stamp += 10**9  # type: ignore[attr-defined]
    os.utime(path, ns=(admit.stamp, admit.stamp))  # type: ignore[attr-defined]


admit.stamp = 10**18  # type: ignore[attr-defined]


def guarded(kit: Path, **tokens: str) -> Server:
    server, context = Server(tokens), FLContext()
    context.set_prop(FLContextKey.SITE_OBJ, server, private=True)
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), "server"), private=True)
    Gate().handle_event(EventType.SYSTEM_START, context)
    return server


def test_a_site_registers_with_its_own_certificate_alone(made: Path, kit: Path) -> None:
    server = guarded(kit)
    other = made / "coordinator" / "operator" / "startup" / "client.crt"
    assert server.answer("register", site="clinic-a", certificate=certificate(made)) == ""
    refused = "site clinic-a is not admitted with this certificate"
    assert server.answer("register", site="clinic-a", certificate=other) == refused
    assert server.answer("register", site="clinic-a") == refused
    assert server.answer("register", site="clinic-b", certificate=certificate(made)) != ""
    assert server.answer("challenge", site="clinic-b") == ""


def test_who_came_before_the_gate_has_to_come_again(kit: Path) -> None:
    assert guarded(kit, t1="clinic-a").tokens == {}


def test_a_session_ends_with_its_certificate(made: Path, kit: Path) -> None:
    server = guarded(kit)
    server.tokens |= {"t1": "clinic-a", "t2": "clinic-b"}
    assert server.answer("heartbeat", site="clinic-a", token="t1") == ""
    assert not server.is_dropped(site="clinic-a", token="t1")
    admit(kit, None, refused=("SHA256:old",))
    assert server.is_dropped(site="clinic-a", token="t1")
    assert server.tokens == {"t2": "clinic-b"}
    ended = "the session of site clinic-a has ended, it must register anew"
    assert server.answer("heartbeat", site="clinic-a", token="t1") == ended
    assert server.answer("register", site="clinic-a", certificate=certificate(made)) != ""


def test_a_session_of_an_earlier_server_goes_on_unless_a_certificate_was_replaced(made: Path, kit: Path) -> None:
    server = guarded(kit)
    assert server.answer("heartbeat", site="clinic-a", token="of an earlier server") == ""
    admit(kit, "SHA256:new", refused=("SHA256:old",))
    assert server.answer("heartbeat", site="clinic-a", token="of an earlier server") != ""
    assert server.is_dropped(site="clinic-a", token="of an earlier server")
    server.tokens["t3"] = "clinic-a"  # It came with the new certificate.
    assert server.answer("heartbeat", site="clinic-a", token="t3") == ""


def test_the_servers_own_processes_and_goodbyes_pass(kit: Path) -> None:
    server = guarded(kit)
    assert not server.is_dropped(site="server", token="server")
    assert not server.is_dropped(site="server_job", token="number of a job")
    assert not server.is_dropped(site=None, token="")
    assert server.is_dropped(site="clinic-b", token="of nobody who is listed")


def test_what_is_said_to_the_server_itself_is_answered_not_dropped(kit: Path) -> None:
    server = guarded(kit)
    admit(kit, None, refused=("SHA256:old",))
    assert not server.is_dropped(site="clinic-a", token="t1", channel="task")


def test_without_a_list_nobody_is_admitted(made: Path, kit: Path) -> None:
    server = guarded(kit)
    server.tokens["t1"] = "clinic-a"
    assert server.answer("register", site="clinic-a", certificate=certificate(made)) == ""
    (kit / "local" / "admitted.json").write_text("{")
    assert server.answer("register", site="clinic-a", certificate=certificate(made)) != ""
    assert server.answer("heartbeat", site="clinic-a", token="t1") != ""
    assert server.tokens == {}
