"""Jobs with code, or that name other classes, sent with the operator's own kit through a server that takes anything.

The site refuses them by itself, and nothing has run there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flare_processes import Processes, free_port, wait_for

from fedmpt.federated.flare.founding import set_up
from fedmpt.federated.flare.job import EXECUTOR
from fedmpt.federated.flare.local import OPERATOR, RIGHTS

pytestmark = pytest.mark.slow

WAITS = """
import time
from nvflare.apis.impl.controller import Controller

class Waits(Controller):
    def start_controller(self, fl_ctx): pass
    def stop_controller(self, fl_ctx): pass
    def process_result_of_unknown_task(self, *args, **kwargs): pass
    def control_flow(self, abort_signal, fl_ctx):
        while not abort_signal.triggered:
            time.sleep(0.1)
"""
SUBMITS = """
import sys, time
from nvflare.fuel.flare_api.flare_api import new_secure_session
session = new_secure_session(sys.argv[1], sys.argv[2])
job = session.submit_job(sys.argv[3])
status, deadline = "", time.monotonic() + 12
while time.monotonic() < deadline and not status.startswith("FINISHED"):
    time.sleep(0.3)
    meta = session.get_job_meta(job)
    status = meta["status"]
print(status, meta.get("job_deploy_detail"))
for command in ("ls clinic-a", "cat clinic-a log.txt", "sys_info client"):
    print(session.api.do_command(command)["data"])
session.close()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server that allows its operator everything, and one site with our kit."""
    folder = tmp_path_factory.mktemp("foreign") / "fed"
    set_up(
        folder,
        {"name": "fed", "sites": ["clinic-a"]},
        address=("localhost", free_port()),
        days=10,
        root_days=20,
        trial=True,
    )
    server = folder / "coordinator" / "server"
    everything = {"format_version": "1.0", "permissions": {"lead": dict.fromkeys(RIGHTS, "any")}}
    (server / "local" / "authorization.json").write_text(json.dumps(everything))
    resources = json.loads((server / "local" / "resources.json").read_text())
    (server / "local" / "resources.json").write_text(json.dumps({**resources, "class_allow_list": ["*"]}))
    with Processes(folder.parent / "home") as processes:
        processes.server(server)
        wait_for(server / "log.txt", "Server started")
        processes.client(folder / "sites" / "clinic-a", name="clinic-a")
        wait_for(server / "log.txt", "New client clinic-a@")
        yield folder


def write_job(folder: Path, *, executor: dict[str, object], code: str | None) -> Path:
    """A job whose server part waits, and whose site part names ``executor``; with ``code`` it has a module ``own``."""
    server = {"workflows": [{"id": "waits", "path": "waits.Waits", "args": {}}]}
    client = {"executors": [{"tasks": ["*"], "executor": executor}]}
    for part, name, config in (("at_server", "config_fed_server", server), ("at_site", "config_fed_client", client)):
        (folder / part / "config").mkdir(parents=True)
        (folder / part / "config" / f"{name}.json").write_text(json.dumps({"format_version": 2, **config}))
    (folder / "at_server" / "custom").mkdir()
    (folder / "at_server" / "custom" / "waits.py").write_text(WAITS)
    if code is not None:
        (folder / "at_site" / "custom").mkdir()
        (folder / "at_site" / "custom" / "own.py").write_text(code)
    placed = {"at_server": ["server"], "at_site": ["clinic-a"]}
    meta = {"name": "foreign", "min_clients": 1, "resource_spec": {}, "deploy_map": placed, "byoc": False}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def submit(running: Path, job: Path) -> list[str]:
    """How the job ended, and what the operator was told who then looked around at the site."""
    command = [sys.executable, "-c", SUBMITS, OPERATOR, str(running / "coordinator" / "operator"), str(job)]
    env = {**os.environ, "HOME": str(running)}
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert told.returncode == 0, told.stderr
    return told.stdout.splitlines()[-4:]


def refused_at_the_site(running: Path, text: str) -> bool:
    return any(text in log.read_text() for log in (running / "sites" / "clinic-a").glob("*-*-*-*-*/log.txt"))


def test_a_job_that_names_another_class_is_refused_at_the_site(running: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    executor = {"path": "subprocess.Popen", "args": {"args": ["touch", str(trace)]}}
    ended, *looks = submit(running, write_job(tmp_path / "job", executor=executor, code=None))
    assert refused_at_the_site(
        running, "'subprocess.Popen' at config path 'executors.#1.executor' is not in allow_list"
    )
    assert not trace.exists()
    assert "COMPLETED" not in ended
    assert all("not authorized" in look for look in looks), looks


def test_a_class_as_an_argument_of_ours_is_refused_too(running: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    inner = {"path": "subprocess.Popen", "args": {"args": ["touch", str(trace)]}}
    executor = {"path": EXECUTOR, "args": {"max_bytes": inner}}
    ended, *_ = submit(running, write_job(tmp_path / "job", executor=executor, code=None))
    assert refused_at_the_site(running, "'executors.#1.executor.args.max_bytes' is not in allow_list")
    assert not trace.exists()
    assert "COMPLETED" not in ended


def test_a_job_with_code_is_refused_at_the_site(running: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')\nfrom fedmpt.federated.flare.executor import BridgeExecutor as Own\n"
    job = write_job(tmp_path / "job", executor={"path": "own.Own", "args": {}}, code=code)
    ended, *_ = submit(running, job)
    assert not trace.exists()
    assert "clinic-a: NVFLARE_ERROR: BYOC not permitted" in ended
    assert "COMPLETED" not in ended
