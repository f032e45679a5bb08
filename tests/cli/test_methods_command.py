"""`fedmpt methods`: what there is, with parameters that equal those of the papers at ViT-B/16 and 20 classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedmpt.cli import methods as methods_command
from fedmpt.cli.main import main
from fedmpt.cli.methods import facts, methods
from fedmpt.methods import METHODS

PROJECT = Path(__file__).resolve().parents[2]

PUBLISHED = {
    "promptfl": 8_192,
    "kgcoop": 2_048,
    "tcp": 331_904,
    "fedtpg": 4_206_080,
    "fedpgp": 10_304,
    "fedawa": 2_048,
    "dualcoop": 16_384,
    "poscoop": 28_672,
    "scpnet": 2_099_200,
    "maple": 3_555_072,
    "zero-shot": 0,
}
"""Of the method alone, where its paper or a published table has an exact number."""

SENT = {"fedpgp": 8_192, "fedotp": 8_192}
"""Of methods that keep a part at home, what they send, without the shared head."""

RAM = 13_016_172
# The learned temperature of the local logits is not in the published count.
RAM_TEMPERATURES = 2


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return {row["name"]: row for row in facts()}


def test_every_method_is_listed_in_the_order_of_the_table(rows: dict[str, Any]) -> None:
    assert list(rows) == list(METHODS)


@pytest.mark.parametrize(("name", "number"), PUBLISHED.items())
def test_trained_parameters_are_the_published_ones(rows: dict[str, Any], name: str, number: int) -> None:
    assert rows[name]["parameters"] == number


def test_ram_has_its_published_parameters_and_two_temperatures(rows: dict[str, Any]) -> None:
    assert rows["ram"]["parameters"] == RAM + RAM_TEMPERATURES


def test_fedmvp_has_the_published_size(rows: dict[str, Any]) -> None:
    assert round(rows["fedmvp"]["parameters"] / 1e6, 2) == 9.88


@pytest.mark.parametrize(("name", "number"), SENT.items())
def test_what_stays_home_is_not_sent(rows: dict[str, Any], name: str, number: int) -> None:
    row = rows[name]
    assert row["personal_parameters"] > 0
    assert row["parameters"] - row["personal_parameters"] == number
    assert row["sent_bytes"] == 4 * (number + row["head_parameters"])


def test_sent_bytes_are_those_of_all_that_travels(rows: dict[str, Any]) -> None:
    for name, row in rows.items():
        if name != "ram":  # Its running statistics travel too.
            assert row["sent_bytes"] == 4 * (row["parameters"] + row["head_parameters"] - row["personal_parameters"])
    statistics = 3 * 2 * 2 * 512
    assert rows["ram"]["sent_bytes"] == 4 * (rows["ram"]["parameters"] + rows["ram"]["head_parameters"] + statistics)


def test_image_tower_methods_say_from_which_block(rows: dict[str, Any]) -> None:
    assert rows["maple"]["reads"] == ["features", "image tower from block 0"]
    assert rows["fedmvp"]["reads"] == ["features", "image tower from block 0", "class attributes"]
    assert rows["ram"]["reads"] == ["features", "image tower from block 9", "the image tower's local stream"]
    assert rows["scpnet"]["reads"] == ["features", "an augmented copy"]
    assert rows["fedmpt"]["reads"] == ["features"]


def test_summaries_fit_a_line(rows: dict[str, Any]) -> None:
    assert all(0 < len(row["summary"]) <= 72 and row["source"] for row in rows.values())


def test_the_command_prints_a_table_or_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "name": "some",
        "summary": "does it",
        "source": "Who 2020",
        "parameters": 12_345,
        "head_parameters": 2,
        "personal_parameters": 45,
        "sent_bytes": 49_208,
        "reads": ["features"],
    }
    monkeypatch.setattr(methods_command, "facts", lambda: [row])
    monkeypatch.setenv("COLUMNS", "120")
    methods([])
    printed = capsys.readouterr().out
    for words in ("some", "does it", "Who 2020", "12,345 + 2", "45 stay home", "49.2 kB", "shared head"):
        assert words in printed
    methods(["--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == "some"
    assert found["parameters"] == 12_345


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["methods", "--help"])
    assert stop.value.code == 0
    assert "fedmpt methods --json" in capsys.readouterr().out


def test_every_method_has_its_section_in_the_documentation() -> None:
    page = (PROJECT / "docs" / "methods.md").read_text(encoding="utf-8")
    named = re.findall(r"^### .*\(`--method ([\w-]+)`\)$", page, flags=re.MULTILINE)
    assert sorted(named) == sorted(METHODS)


def test_the_table_of_the_documentation_is_what_the_command_counts(rows: dict[str, Any]) -> None:
    page = (PROJECT / "docs" / "methods.md").read_text(encoding="utf-8")
    for name, row in rows.items():
        head = f" + {row['head_parameters']}" if row["head_parameters"] else ""
        assert f"| `{name}` | {row['parameters']:,}{head} |" in page


@pytest.mark.parametrize(
    "part", ["federated", "evaluation", "runs/run.py", "runs/partition.py", "inference/tagger.py", "state.py"]
)
def test_nothing_around_the_methods_knows_one_by_its_name(part: str) -> None:
    root = PROJECT / "src" / "fedmpt" / part
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        if path.parent.name == "flare":  # It knows bytes alone; of a connection, "tcp" is no method.
            continue
        # The package has the name of a method, and records its version.
        code = path.read_text(encoding="utf-8").replace('"fedmpt": fedmpt.__version__', "")
        found = [name for name in METHODS if re.search(rf"[\"']{re.escape(name)}[\"']", code)]
        assert not found, path
        assert not re.search(r"isinstance\(\w*method\w*,", code), path
