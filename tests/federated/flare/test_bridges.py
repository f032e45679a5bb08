"""The two thin classes in NVFlare's job processes, and what is understood of NVFlare's output."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from fedmpt.federated.flare.controller import checked
from fedmpt.federated.flare.executor import WORKER_SOCKET, BridgeExecutor
from fedmpt.federated.flare.news import News
from fedmpt.federated.flare.processes import Child, remove_jobs
from fedmpt.federated.flare.sockets import is_listening, private_folder, serve
from fedmpt.federated.flare.supervise import _Watched

NUMBER = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", ["executor", "controller", "supervise", "gate"])
def test_job_processes_and_supervisors_do_without_torch(name: str) -> None:
    code = f"import sys, fedmpt.federated.flare.{name}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """An echo; the list has what it was asked."""
    asked: list[bytes] = []

    def handle(content: bytes) -> bytes:
        asked.append(content)
        return content * 2

    with private_folder() as folder:
        monkeypatch.setenv(WORKER_SOCKET, str(folder / "worker"))
        threading.Thread(target=serve, args=(folder / "worker", handle), daemon=True).start()
        while not is_listening(folder / "worker"):
            pass
        yield asked


def execute(executor: BridgeExecutor, **words: object) -> Shareable:
    task = Shareable()
    task.update({"ask": NUMBER, "content": b"x", "seconds": 10.0, "limit": 100, **words})
    return executor.execute("ask", task, FLContext(), Signal())


def test_the_executor_takes_bytes_to_the_worker_and_back(worker: list[bytes]) -> None:
    answer = execute(BridgeExecutor(), content=b"ab")
    assert (answer["ask"], answer["content"]) == (NUMBER, b"abab")
    assert "error" not in answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"content": "text"}, "no message"),
        ({"content": None}, "no message"),
        ({"ask": 3}, "no message"),
        ({"ask": "short"}, "without its number"),
        ({"content": b"x" * 11}, "sent 11 bytes, and 10 are allowed"),
        ({"content": b"x" * 6}, "its answer has 12 bytes, and 10 are allowed"),
        ({"content": b"xx", "limit": 3}, "its answer has 4 bytes, and 3 are allowed"),
    ],
)
def test_the_executor_refuses_what_is_wrong_or_too_long(
    worker: list[bytes], words: dict[str, object], said: str
) -> None:
    answer = execute(BridgeExecutor(max_bytes=10), **words)
    assert said in answer["error"]
    assert "content" not in answer


@pytest.mark.parametrize("odd", [None, "many", -1, True, float("nan"), float("inf"), 10**30])
def test_odd_arguments_of_a_job_lift_no_limit(worker: list[bytes], odd: object) -> None:
    executor = BridgeExecutor(max_bytes=odd)
    assert executor._max_bytes == 2**28
    assert execute(executor, seconds=odd, limit=odd)["content"] == b"xx"


def test_an_executor_without_a_worker_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(WORKER_SOCKET, str(tmp_path / "none"))
    assert execute(BridgeExecutor())["error"] == "its worker: it is not running, or still starting"


class Odd:
    """Something that is no bytes."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"ask": NUMBER, "content": b"ok"}, (b"ok", "")),
        ({"ask": NUMBER, "content": b"too long"}, (b"", "its answer has 8 bytes, and 5 are allowed")),
        ({"ask": "another", "content": b"ok"}, (b"", "its job process sent the answer to something else")),
        ({"ask": NUMBER, "content": Odd()}, (b"", "its job process sent no answer (Odd)")),
        ({"ask": NUMBER, "content": b"ok", "error": "no\nluck"}, (b"", "no luck")),
        ({"ask": NUMBER, "error": 3}, (b"", "its job process sent no answer (NoneType)")),
    ],
)
def test_the_controller_checks_what_comes(words: dict[str, object], expected: tuple[bytes, str]) -> None:
    result = Shareable()
    result.update(words)
    assert checked(result, number=NUMBER, limit=5) == expected


def test_the_controller_takes_nothing_else_for_an_answer() -> None:
    reply = make_reply("EXECUTION_EXCEPTION")
    assert checked(reply, number=NUMBER, limit=5) == (b"", "its job process sent no answer (EXECUTION_EXCEPTION)")
    assert checked([1], number=NUMBER, limit=5)[1] == "its job process sent no answer (NoneType)"


class Site:
    """News with a clock of ours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.news = News("fl.example.org:8102", note=self.said.append, clock=lambda: self.now)
        self.news.begin()

    def reads(self, *lines: str, after: float = 0.0) -> None:
        self.now += after
        for line in lines:
            self.news.read(line)
        self.news.look()


REGISTERED = "FederatedClient - INFO - Successfully registered client:alpha for project fed."
UNKNOWN = "Connector [CH00001 ACTIVE tcp://x:1] failed with exception gaierror: gaierror: [Errno -2] Name unknown"
RETRY = "Authenticator - INFO - re-challenge after 2.0 seconds"
UNTRUSTED = (
    "Connector [CH00001 ACTIVE tcp://x:1] failed with exception SSLCertVerificationError: SSLCertVerificationError: "
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)"
)
HEARTBEAT = "Communicator - INFO - Failed to send heartbeat. Will try again."
OPENED = "Connection [CN00004 127.0.0.1:44318 => 127.0.0.1:44933 SSL localhost] is created: PID: 22229"
CLOSED = "Connection [CN00004 Not Connected] is closed PID: 22229"
UNREACHED = (
    "cannot reach fl.example.org:8102 for 60 s: the coordinator has not started or has stopped, or check address and "
    "firewall; tries on"
)
REFUSED = "the coordinator refuses this site's certificate: shut out or not approved; ask the coordinator"


def test_an_unreachable_coordinator_is_said_once_and_when_it_is_back() -> None:
    site = Site()
    site.reads(UNKNOWN)
    for _ in range(29):
        site.reads(RETRY, after=2.0)
    assert site.said == []
    for _ in range(30):
        site.reads(RETRY, after=2.0)
    assert site.said == [f"{UNREACHED} ([Errno -2] Name unknown)"]
    site.reads(REGISTERED)
    assert site.said[1:] == ["connected to fl.example.org:8102"]
    for _ in range(20):
        site.reads(HEARTBEAT, after=5.0)
    assert len(site.said) == 3
    assert site.said[2].startswith(UNREACHED)
    site.reads(after=13.0)
    assert site.said[3:] == ["connected to fl.example.org:8102"]


def test_a_short_break_is_no_news() -> None:
    site = Site()
    site.reads(REGISTERED)
    for _ in range(4):
        site.reads(HEARTBEAT, after=5.0)
    site.reads(after=100.0)
    assert site.said == ["connected to fl.example.org:8102"]


def test_a_refused_certificate_is_said() -> None:
    site = Site()
    site.reads("ERROR - registration rejected: site alpha is not admitted with this certificate")
    assert site.said == [REFUSED]


def test_a_coordinators_certificate_that_has_ended_is_not_called_a_refusal() -> None:
    site = Site()
    for _ in range(20):
        site.reads(UNTRUSTED, *5 * [RETRY], after=10.0)
    assert site.said == [
        "this site does not accept the coordinator's certificate (certificate has expired); check this machine's "
        "clock, then ask the coordinator"
    ]
    assert not site.news.is_refused


def test_connections_that_are_closed_at_once_are_a_refusal() -> None:
    site = Site()
    site.reads(REGISTERED, OPENED)
    site.reads(CLOSED, HEARTBEAT, after=100.0)  # One that has lived is none.
    for _ in range(3):
        site.reads(OPENED, CLOSED, HEARTBEAT, after=5.0)
    assert site.said == ["connected to fl.example.org:8102"]
    for _ in range(20):
        site.reads(OPENED, CLOSED, HEARTBEAT, after=5.0)
    assert site.said[1:] == [REFUSED]


def test_a_session_that_has_ended_asks_for_a_new_start() -> None:
    site = Site()
    site.reads(REGISTERED)
    assert not site.news.must_restart
    site.reads("Failed to send heartbeat. Exception: the session of site alpha has ended, it must register anew")
    assert site.news.must_restart
    site.news.begin()
    assert not site.news.must_restart


def test_a_client_that_has_lost_its_server_is_started_anew_once_and_leaves_no_job_behind() -> None:
    site = Site()
    for _ in range(20):
        site.reads(RETRY, after=5.0)
    assert not site.news.must_restart, "it never was there: it has no job"
    site.reads(REGISTERED)
    for _ in range(11):
        site.reads(HEARTBEAT, after=5.0)
    assert not site.news.must_restart, "it may be there again soon"
    for _ in range(4):
        site.reads(HEARTBEAT, after=5.0)
    assert site.news.must_restart
    site.news.begin()
    for _ in range(20):
        site.reads(HEARTBEAT, after=5.0)
    assert not site.news.must_restart


def test_a_process_that_is_started_anew_on_purpose_is_not_said_to_have_stopped() -> None:
    said: list[str] = []
    watched = _Watched("it", lambda: Child([sys.executable, "-c", "import time; time.sleep(999)"], env={}), said.append)
    watched.look()
    watched.end()
    watched.look()
    watched.end()
    assert said == []


def test_folders_of_jobs_are_removed_and_nothing_else(tmp_path: Path) -> None:
    jobs = [f"7169849f-1b51-4a9a-b341-1ee51d98eed{digit}" for digit in range(4)]
    for name in (*jobs, "startup", "local", "personal", "transfer", "jobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_jobs(tmp_path, keep=2)
    assert len(list(tmp_path.glob("7169849f*"))) == 2
    assert (tmp_path / "transfer").exists()
    remove_jobs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"startup", "local", "personal"}
