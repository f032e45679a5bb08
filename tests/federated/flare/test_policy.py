"""A site's policy, and the files that keep a kit running."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fedmpt.federated.flare.policy import Policy, read_policy
from fedmpt.federated.flare.units import write_coordinator_units, write_site_units
from fedmpt.types import InputError


def test_a_new_folder_gets_a_policy_to_edit(tmp_path: Path) -> None:
    assert read_policy(tmp_path) == Policy()
    written = json.loads((tmp_path / "policy.json").read_text())
    assert written == {"methods": None, "min_images": 1, "send_counts": True, "max_bytes": 67108864}
    (tmp_path / "policy.json").write_text('{"methods": ["fedmpt", "promptfl"], "min_images": 50}')
    assert read_policy(tmp_path) == Policy(methods=("fedmpt", "promptfl"), min_images=50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected an object"),
        ('{"method": "fedmpt"}', "unknown field 'method'"),
        ('{"methods": "fedmpt"}', "methods must be null or a list"),
        ('{"methods": [1]}', "methods must be null or a list"),
        ('{"methods": []}', "nothing could be trained"),
        ('{"min_images": "50"}', "min_images must be a whole number"),
        ('{"min_images": true}', "min_images must be a whole number"),
        ('{"min_images": 0}', "min_images must be at least 1"),
        ('{"send_counts": 0}', "send_counts must be true or false"),
        ('{"max_bytes": 1e6}', "max_bytes must be a whole number"),
        ("{", "not valid JSON"),
    ],
)
def test_a_wrong_policy_is_no_policy(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "policy.json").write_text(content)
    with pytest.raises(InputError, match=rf"policy\.json.*{message}"):
        read_policy(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    odd = tmp_path / 'a "100%" $HOME folder'
    odd.mkdir()
    return odd


def test_systemd_accepts_the_units(folder: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    write_site_units(folder, "clinic-a", data="folder:/photos of 2024")
    write_coordinator_units(folder, port=8102)
    for name in ("fedmpt-site", "fedmpt-coordinator"):
        text = (folder / f"{name}.service").read_text()
        program = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split()[0]
        (folder / f"{name}.service").write_text(text.replace(program, "ExecStart=/bin/true"))
        verified = subprocess.run(
            ["systemd-analyze", "verify", folder / f"{name}.service"], capture_output=True, text=True
        )
        assert verified.returncode == 0, verified.stderr
        assert verified.stderr == ""


def test_units_name_the_folder_and_the_data(folder: Path) -> None:
    write_site_units(folder, "clinic-a")
    unit = (folder / "fedmpt-site.service").read_text()
    assert "--data folder:/path/to/photos" in unit
    escaped = str(folder).replace('"', '\\"').replace("%", "%%")
    assert f'ReadWritePaths="{escaped}"\n' in unit
    assert f'federation join "{escaped.replace("$", "$$")}" --data' in unit
    write_site_units(folder, "clinic-a", data="folder:/photos")
    assert "--data folder:/photos\n" in (folder / "fedmpt-site.service").read_text()
    write_site_units(folder, "clinic-a")  # What is known of the data stays.
    assert "--data folder:/photos\n" in (folder / "fedmpt-site.service").read_text()


def test_compose_files_mount_kit_and_data(folder: Path) -> None:
    write_site_units(folder, "clinic-a", data="coco:/photos,split=2017")
    [(name, service)] = yaml.safe_load((folder / "compose.yaml").read_text())["services"].items()
    assert (name, service["image"]) == ("site", "fedmpt")
    assert service["command"] == ["federation", "join", "/kit", "--data", "coco:/data"]
    assert service["volumes"] == ["./:/kit", "${DATA:?the folder of the images}:/data:ro"]
    write_coordinator_units(folder, port=8102)
    [(name, service)] = yaml.safe_load((folder / "compose.yaml").read_text())["services"].items()
    assert (name, service["ports"], service["volumes"]) == ("coordinator", ["8102:8102"], ["./:/kit"])
    assert service["command"] == ["federation", "start", "/kit"]
