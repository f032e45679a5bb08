"""Setting up a federation by commands, as the engineers of a coordinator and of a site type them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import stat
from pathlib import Path

import pytest
from command_line import Command
from expired import let_expire
from flare_processes import free_port

from fedmpt.federated.flare.admitted import read_admitted
from fedmpt.federated.flare.founding import set_up
from fedmpt.federated.flare.kits import Invitation, assemble
from fedmpt.files import LOCK, exclusive, hold
from fedmpt.runs.config import preset
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.status import SiteStatus, Status


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_nothing_to_a_finished_kit(run: Command, here: Path) -> None:
    (here / "classes.txt").write_text("cat\ndog\n")
    words = "--method promptfl --num-context 4 --rounds 3 --classes classes.txt --deadline 90 --name study --days 30"
    told = run(
        "federation", "init", "fed", "--sites", "clinic-b,clinic-a", "--address", "localhost:8102", *words.split()
    )
    assert told.code == 0, told.err
    words_of_plan = json.loads((here / "fed" / "coordinator" / "federation.json").read_text())
    plan = Plan.from_json(words_of_plan, source="federation.json")
    assert (plan.name, plan.sites, plan.address) == ("study", ("clinic-a", "clinic-b"), "localhost:8102")
    assert (plan.class_names, plan.rules.deadline, plan.run.data) == (("cat", "dog"), 90.0, "sites")
    assert (plan.run.method.name, plan.run.federation.rounds) == ("promptfl", 3)
    assert plan.run.to_json()["method"]["num_context"] == 4
    invitation = json.loads((here / "fed" / "invitations" / "clinic-a.json").read_text())
    assert (invitation["site"], invitation["plan"]) == ("clinic-a", words_of_plan)
    assert f"root certificate: {invitation['root']}\n" in told.out
    assert "fedmpt federation start fed/coordinator" in told.out

    told = run("federation", "request", "fed/invitations/clinic-a.json")
    assert told.code == 0, told.err
    assert invitation["root"] in told.out
    key = here / "clinic-a" / "request" / "clinic-a.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shutil.copy(here / "clinic-a" / "clinic-a.request.zip", here / "sent.zip")

    told = run("federation", "approve", "sent.zip", "--coordinator", "fed/coordinator")
    assert told.code == 0, told.err
    assert str(here / "clinic-a.signed.zip") in told.out
    again = run("federation", "approve", "sent.zip", "--coordinator", "fed/coordinator")
    assert (again.code, again.err.startswith("fedmpt federation: clinic-a was approved before")) == (2, True)
    shutil.move(here / "clinic-a.signed.zip", here / "clinic-a")
    assert assemble(here / "clinic-a").site == "clinic-a"

    told = run("federation", "shut-out", "clinic-a", "--coordinator", "fed/coordinator")
    assert told.code == 0, told.err
    admitted = read_admitted(here / "fed" / "coordinator" / "server" / "local" / "admitted.json")
    assert admitted["clinic-a"].certificate is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sites a,a", "a name is given twice"),
        ("--sites a,B", "'B' is no name"),
        ("--sites a,server", "'server' is a name of the coordinator's own"),
        ("--sites ,", "--sites names no site"),
        ("--sites=", "--sites names no site"),
        ("--sites a", "--min-sites 2 is more than the 1 sites there are"),
        ("--address localhost", "'localhost' is no HOST:PORT"),
        ("--data voc:x", "--data is no option of the coordinator"),
        ("--days 0", "--days must be positive, got 0"),
        ("--days 9 --root-days 8", "--days 9 is more than --root-days 8"),
        ("--method nothing", "unknown method 'nothing'"),
        ("--rounds 0", "--rounds must be positive"),
        ("--deadline 0", "--deadline must be positive"),
        ("--classes none.txt", "none.txt"),
        ("--aggregator median", "a round counts with --min-sites 2, and --aggregator median needs at least 3 clients"),
    ],
)
def test_what_no_federation_can_have_is_refused_before_anything_is_made(
    run: Command, here: Path, words: str, message: str
) -> None:
    told = run("federation", "init", "fed", "--sites", "a,b", "--address", "localhost:8102", *words.split())
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("fedmpt federation: ")
    assert message in told.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("option", ["--setting", "--clients", "--partition", "--out"])
def test_what_divides_images_is_no_option(run: Command, here: Path, option: str) -> None:
    told = run("federation", "init", "fed", "--sites", "a,b", "--address", "localhost:8102", option, "iid")
    assert told.code == 2
    assert option in told.err + told.out
    assert option not in run("federation", "init", "--help").out
    assert list(here.iterdir()) == []


def test_an_invitation_whose_plan_is_none_makes_no_key(run: Command, here: Path) -> None:
    root = "SHA256:" + ":".join(["AB"] * 32)
    (here / "a.json").write_text(json.dumps({"format": 1, "site": "../a", "root": root, "plan": {"format": 1}}))
    told = run("federation", "request", "a.json")
    assert (told.code, told.out) == (2, "")
    assert "a.json: not the plan of a federation" in told.err
    assert [path.name for path in here.iterdir()] == ["a.json"]


def test_the_group_lists_its_commands_and_needs_nvflare(
    run: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "shut-out" in run("federation").out
    assert "give a new folder, for example: fedmpt federation init fed" in run("federation", "init").err
    assert "there are: init, request, approve" in run("federation", "begin").err
    monkeypatch.setattr("fedmpt.cli.federation.find_spec", lambda name: None)
    for words in (("init", "fed"), ("request", "a.json"), ("approve", "a.zip"), ("shut-out", "a")):
        assert "pip install 'fedmpt[federation]'" in run("federation", *words).err


def test_a_site_that_is_not_in_the_plan_makes_no_key(run: Command, here: Path) -> None:
    plan = Plan(name="fed", sites=("a", "b"), address="localhost:1", run=preset("default", "promptfl", data="sites"))
    root = "SHA256:" + ":".join(["AB"] * 32)
    words = {"format": 1, "site": "../../c", "root": root, "plan": plan.to_json()}
    (here / "a.json").write_text(json.dumps(words))
    told = run("federation", "request", "a.json")
    assert (told.code, told.out) == (2, "")
    assert "'../../c', which is not among its plan's sites" in told.err
    assert [path.name for path in here.iterdir()] == ["a.json"]


def test_a_site_becomes_no_node_of_a_simulation(run: Command, here: Path) -> None:
    """A node heeds no policy, and its personal tensors leave it."""
    run_config = preset("default", "promptfl", data="folder:/srv")
    plan = Plan(name="nodes", sites=("a", "b"), address="localhost:1", run=run_config, is_simulation=True)
    root = "SHA256:" + ":".join(["AB"] * 32)
    (here / "a.json").write_text(json.dumps({"format": 1, "site": "a", "root": root, "plan": plan.to_json()}))
    told = run("federation", "request", "a.json")
    assert (told.code, told.out) == (2, "")
    assert "is of fedmpt train --engine flare" in told.err
    assert [path.name for path in here.iterdir()] == ["a.json"]


def test_a_coordinator_starts_once_at_a_time(run: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(name="fed", sites=("a", "b"), address="localhost:1", run=preset("default", "promptfl", data="sites"))
    (here / "federation.json").write_text(json.dumps(plan.to_json()))

    def made(*given: object, **words: object) -> None:
        raise AssertionError("another one runs")

    monkeypatch.setattr("fedmpt.federated.flare.link.Link", made)
    monkeypatch.setattr("fedmpt.federated.flare.authority.assemble_server", made)
    with exclusive(here):
        told = run("federation", "start", str(here))
    assert (told.code, told.out) == (2, "")
    assert f"another process is writing to {here}" in told.err


def test_a_site_joins_once_at_a_time(run: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(name="fed", sites=("a", "b"), address="localhost:1", run=preset("default", "promptfl", data="sites"))
    invitation = Invitation("a", "SHA256:" + ":".join(["AB"] * 32), plan.to_json())
    monkeypatch.setattr("fedmpt.federated.flare.kits.assemble", lambda folder, data: invitation)

    def supervised(*given: object, **words: object) -> int:
        raise AssertionError("another one runs")

    monkeypatch.setattr("fedmpt.federated.flare.supervise.supervise", supervised)
    with exclusive(here):
        told = run("federation", "join", str(here), "--data", "folder:photos")
    assert (told.code, told.out) == (2, "")
    assert "another process is writing to" in told.err


def test_status_says_that_a_federation_that_is_begun_again_gathers(run: Command, here: Path) -> None:
    plan = Plan(name="fed", sites=("a", "b"), address="localhost:1", run=preset("default", "promptfl", data="sites"))
    set_up(here / "fed", plan.to_json(), address=(plan.host, plan.port), days=2, root_days=3, trial=False)
    words = ("federation", "status", "fed/coordinator", "--json")
    assert json.loads(run(*words).out)["state"] == "stopped"
    assert "b: its request is not approved yet: fedmpt federation approve" in run(*words[:-1]).out
    with hold(here / "fed" / "coordinator" / LOCK):
        assert json.loads(run(*words).out)["state"] == "gathering"


def test_status_shows_a_site_that_was_shut_out(run: Command, here: Path) -> None:
    plan = Plan(name="fed", sites=("a", "b"), address="localhost:1", run=preset("default", "promptfl", data="sites"))
    set_up(here / "fed", plan.to_json(), address=(plan.host, plan.port), days=2, root_days=3, trial=True)
    lost = SiteStatus("outside", 1.0, "no answer within 15 s", round=3)
    Status(state="training", sites={"a": SiteStatus("here"), "b": lost}).write(here / "fed" / "coordinator")
    assert run("federation", "shut-out", "b", "--coordinator", "fed/coordinator").code == 0
    told = run("federation", "status", "fed/coordinator").out
    assert "│ shut out │" in told
    assert "b: its certificate is refused\nb: it comes back with a new key: request --renew there" in told
    assert "no answer" not in told
    words = json.loads(run("federation", "status", "fed/coordinator", "--json").out)["sites"]
    assert [(words[site]["state"], words[site]["round"]) for site in "ab"] == [("here", 0), ("shut out", 3)]


def test_a_port_that_is_taken_is_refused(run: Command, here: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = ("localhost", int(other.getsockname()[1]))
        chosen = preset("default", "promptfl", data="sites")
        plan = Plan(name="fed", sites=("a", "b"), address=f"localhost:{address[1]}", run=chosen)
        set_up(here / "fed", plan.to_json(), address=address, days=2, root_days=3, trial=False)
        told = run("federation", "start", "fed/coordinator")
        message = f"fedmpt federation: --address {plan.address}: port {address[1]} is taken"
        assert (told.code, told.err.startswith(message)) == (2, True)


def test_a_certificate_whose_time_is_over_is_named_with_the_remedy(run: Command, here: Path) -> None:
    address = ("localhost", free_port())
    chosen = preset("default", "promptfl", data="sites")
    plan = Plan(name="fed", sites=("a", "b"), address=f"localhost:{address[1]}", run=chosen)
    set_up(here / "fed", plan.to_json(), address=address, days=2, root_days=3, trial=True)

    def refused(certificate: str, remedy: str, *words: str) -> None:
        path = here / "fed" / certificate
        before = path.read_bytes()
        let_expire(path, root_key=here / "fed" / "coordinator" / "authority" / "rootCA.key")
        told = run("federation", *words)
        path.write_bytes(before)
        assert told.code == 2
        assert re.fullmatch(
            rf"fedmpt federation: the certificate \S+{certificate} ended on [0-9-]+; {remedy}.*\n", told.err
        )

    join = ("join", "fed/sites/a", "--data", "folder:photos")
    own = "ask for a new one with fedmpt federation request fed/sites/a/invitation.json --out fed/sites/a --renew, and"
    refused("sites/a/startup/client.crt", own, *join)
    refused("sites/a/startup/rootCA.pem", "the federation has to be set up anew, by its coordinator", *join)
    for name in ("authority/rootCA.pem", "server/startup/server.crt", "operator/startup/client.crt"):
        anew = "set the federation up anew in another folder: fedmpt federation init"
        refused(f"coordinator/{name}", anew, "start", "fed/coordinator")
