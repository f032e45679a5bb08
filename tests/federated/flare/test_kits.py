"""Kits: who holds which key, what the settings allow, and what is said where a piece is missing or wrong."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
from nvflare.apis.fl_constant import SystemConfigs
from nvflare.apis.workspace import Workspace
from nvflare.app_common.logging.constants import ALLOW_LOG_STREAMING_VAR, is_log_streaming_allowed
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.fuel.utils.config_service import ConfigService
from nvflare.security.security import COMMAND_CATEGORIES, FLAuthorizer

from fedmpt.federated.flare import founding, tool
from fedmpt.federated.flare.authority import assemble_server, expiries
from fedmpt.federated.flare.job import EXECUTOR
from fedmpt.federated.flare.kits import assemble, read_invitation, request
from fedmpt.federated.flare.local import RIGHTS
from fedmpt.types import InputError

ROLES = ("project_admin", "org_admin", "lead", "member")


def openssl(*words: object) -> str:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=True).stdout


def test_private_keys_are_for_their_owner_alone(made: Path) -> None:
    keys = [path for path in made.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert {str(path.relative_to(made)) for path in keys} == {
        "coordinator/authority/rootCA.key",
        "coordinator/server/startup/server.key",
        "coordinator/operator/startup/client.key",
        "sites/clinic-a/request/clinic-a.key",
        "sites/clinic-a/startup/client.key",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    folders = {path.parent for path in keys} | {made / "coordinator", made / "sites" / "clinic-a"}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_openssl_agrees_on_chains_fingerprints_and_ends(made: Path) -> None:
    root = made / "coordinator" / "authority" / "rootCA.pem"
    kit = made / "sites" / "clinic-a"
    paths = {
        "root": root,
        "server": made / "coordinator" / "server" / "startup" / "server.crt",
        "operator": made / "coordinator" / "operator" / "startup" / "client.crt",
        "clinic-a": kit / "startup" / "client.crt",
    }
    for path in paths.values():
        assert openssl("verify", "-CAfile", root, path).strip() == f"{path}: OK"
    shown = openssl("x509", "-in", root, "-noout", "-fingerprint", "-sha256").partition("=")[2].strip()
    assert read_invitation(made / "invitations" / "clinic-a.json").root == f"SHA256:{shown}"
    ends = expiries(made / "coordinator")
    assert ends.keys() == paths.keys()
    for name, path in paths.items():
        shown = openssl("x509", "-in", path, "-noout", "-enddate").partition("=")[2].strip()
        assert ends[name] == datetime.strptime(shown, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert timedelta(days=29) < ends["clinic-a"] - datetime.now(UTC) <= timedelta(days=30)
    assert timedelta(days=299) < ends["root"] - datetime.now(UTC) <= timedelta(days=300)


@pytest.mark.parametrize("kit", ["coordinator/server", "sites/clinic-a"])
def test_nvflare_reads_from_our_settings_that_only_jobs_are_allowed(made: Path, kit: str) -> None:
    authorizer = FLAuthorizer("fedmpt", json.loads((made / kit / "local" / "authorization.json").read_text()))

    def allowed(role: str) -> set[str]:
        user, other = Person("operator@fedmpt.local", "fedmpt", role), Person("x@y.z", "fedmpt", role)
        rights = {*RIGHTS, *COMMAND_CATEGORIES}
        return {right for right in rights if authorizer.authorize(AuthzContext(right, user, other))[0]}

    looks = {command for command, category in COMMAND_CATEGORIES.items() if category == "view"}
    assert {role: allowed(role) for role in ROLES} == {
        "project_admin": set(),
        "org_admin": set(),
        "lead": {"submit_job", "view", *looks},
        "member": set(),
    }
    own = AuthzContext("abort_job", *2 * (Person("operator@fedmpt.local", "fedmpt", "lead"),))
    assert authorizer.authorize(own)[0]


@pytest.mark.parametrize(
    "path", ["subprocess.Popen", "nvflare.app_common.np.np_trainer.NPTrainer", f"{EXECUTOR}s", "fedmpt.files.hold"]
)
def test_nvflare_reads_from_our_settings_that_a_site_runs_our_executor_alone(made: Path, path: str) -> None:
    workspace = Workspace(str(made / "sites" / "clinic-a"), "clinic-a")
    authorizer = ComponentPathAuthorizer()
    authorizer.authorize_component_config({"path": EXECUTOR}, workspace=workspace)
    with pytest.raises(Exception, match="not in allow_list"):
        authorizer.authorize_component_config({"path": path}, workspace=workspace)


@pytest.mark.parametrize("kit", ["coordinator/server", "sites/clinic-a"])
def test_the_classes_that_settings_name_are_there(made: Path, kit: str) -> None:
    resources = json.loads((made / kit / "local" / "resources.json").read_text())
    for component in resources["components"]:
        module, _, name = component["path"].rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_nvflare_reads_from_our_settings_that_a_site_sends_no_logs(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = made / "sites" / "clinic-a" / "local"
    read = json.loads((local / "resources.json").read_text())
    assert not any("Log" in component["path"] for component in read["components"])
    for allowed in (True, False):  # NVFlare's own default is to send them.
        words = read if not allowed else {key: value for key, value in read.items() if key != ALLOW_LOG_STREAMING_VAR}
        monkeypatch.setattr(ConfigService, "_sections", {SystemConfigs.RESOURCES_CONF: words})
        monkeypatch.setattr(ConfigService, "_var_values", {})
        assert is_log_streaming_allowed() is allowed


def test_the_server_stores_nothing_outside_its_kit(trial: Path) -> None:
    assemble_server(trial / "coordinator")  # The folder was moved: `trial` is a copy.
    text = (trial / "coordinator" / "server" / "local" / "resources.json").read_text()
    assert "/tmp/nvflare" not in text
    for name in ("jobs", "snapshots"):
        assert f'"{trial}/coordinator/server/{name}"' in text


def test_assembling_again_changes_nothing(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    assemble(kit)
    assert {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()} == before


def test_a_missing_answer_is_named_with_what_to_send(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    shutil.rmtree(kit / "startup")
    with pytest.raises(InputError, match=r"clinic-a\.signed\.zip is missing: send .*clinic-a\.request\.zip"):
        assemble(kit)


def test_an_answer_of_another_authority_is_refused(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    shutil.copy(kit / "request" / "clinic-a.signed.zip", kit)
    words = json.loads((kit / "invitation.json").read_text())
    words["root"] = "SHA256:" + ":".join(["AB"] * 32)
    (kit / "invitation.json").write_text(json.dumps(words))
    before = (kit / "startup" / "client.crt").read_bytes()
    with pytest.raises(InputError, match=r"cannot be used: Root CA SHA256 fingerprint does not match"):
        assemble(kit)
    assert (kit / "startup" / "client.crt").read_bytes() == before


def test_an_answer_without_the_key_is_refused(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    shutil.move(kit / "request" / "clinic-a.signed.zip", kit)
    shutil.rmtree(kit / "request")
    with pytest.raises(InputError, match=r"request with the private key is missing; make a new request with --renew"):
        assemble(kit)


def test_a_folder_without_invitation_is_no_sites_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no site's folder, which fedmpt federation request makes"):
        assemble(tmp_path)


def test_a_key_is_not_replaced_unless_asked_for(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    with pytest.raises(
        InputError, match=r"has a private key already; send its clinic-a\.request\.zip, or give --renew"
    ):
        request(read_invitation(kit / "invitation.json"), kit, federation="fed")


def test_a_folder_of_another_federation_is_left_alone(trial: Path) -> None:
    kit = trial / "sites" / "clinic-a"
    words = json.loads((kit / "invitation.json").read_text())
    (trial / "other.json").write_text(json.dumps({**words, "root": "SHA256:" + ":".join(["AB"] * 32)}))
    with pytest.raises(InputError, match=r"belongs to site clinic-a of a federation with root SHA256:"):
        request(read_invitation(trial / "other.json"), kit, federation="fed", renew=True)


def test_a_folder_with_other_files_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="has other files in it"):
        request(read_invitation(made / "invitations" / "clinic-a.json"), tmp_path, federation="fed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no invitation"),
        ('{"format": 1}', "is no invitation"),
        ('{"format": 2, "site": "a", "root": "", "plan": {}}', "format 2, this version reads 1"),
        ('{"format": 1, "site": 3, "root": "", "plan": {}}', "it has no site or no plan"),
        ('{"format": 1, "site": "a", "root": "SHA256:00", "plan": {}}', "root is no SHA-256 fingerprint"),
        ("{", "line 1: not valid JSON"),
        (" " * (4 * 2**20 + 1), "too many for an invitation"),
    ],
)
def test_what_is_no_invitation_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_invitation(path)


def test_after_a_failure_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object, **_: object) -> None:
        raise InputError("no space")

    monkeypatch.setattr(founding, "make_request", fails)
    plan = {"name": "fed", "sites": ["a"]}
    with pytest.raises(InputError, match="no space"):
        founding.set_up(tmp_path / "fed", plan, address=("localhost", 1), days=1, root_days=2, trial=False)
    assert list(tmp_path.iterdir()) == []


def test_a_federation_is_not_overwritten(made: Path) -> None:
    with pytest.raises(InputError, match="exists already; give another folder"):
        founding.set_up(made, {"name": "x", "sites": []}, address=("localhost", 1), days=1, root_days=2, trial=False)


def test_nvflares_refusals_are_told_in_one_sentence(tmp_path: Path) -> None:
    words = ("cert", "approve", tmp_path / "none.zip", "-c", tmp_path, "--profile", tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"^it cannot be: .*none\.(zip|yaml)"):
        tool.nvflare(*words, home=tmp_path, refused="it cannot be: {why}")
