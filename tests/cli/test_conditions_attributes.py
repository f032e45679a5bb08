"""fedmpt conditions attributes, as a user calls it, at an endpoint that answers by rules."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command, Place
from scripted_endpoint import ScriptedEndpoint

from fedmpt.conditions.attributes import read_attributes
from fedmpt.data.datasets.voc import CLASS_NAMES


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


def test_attributes_of_a_data_set_are_written_and_trained_with(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "own.json"
    words = ["--data", f"voc:{place.voc}", "--num", 3, "--cache", tmp_path / "cache", *endpoint.words()]
    made = run("conditions", "attributes", "--out", out, *words)
    assert (made.code, made.out) == (0, ""), made.err
    found = read_attributes(out)
    assert tuple(found.attributes) == CLASS_NAMES
    assert {len(texts) for texts in found.attributes.values()} == {3}
    assert f"\naeroplane: {'; '.join(found.attributes['aeroplane'])}\n" in made.err
    assert "classes: 20, requests: 2, at most 8 with repairs" in made.err
    [command] = [line for line in made.err.splitlines() if line.startswith("train with it: ")]
    assert shlex.split(command) == [
        *["train", "with", "it:", "fedmpt", "train", "--method", "fedmvp", "--attributes"],
        str(out),
    ]
    again = run("conditions", "attributes", "--out", out, *words)
    assert "asked for 0 answers; 2 kept from before" in again.err
    trained = run(*place.train_words(tmp_path / "run", "--method", "fedmvp", "--attributes", out, rounds=1))
    assert trained.code == 0, trained.err
    record = json.loads((tmp_path / "run/checkpoint/checkpoint.json").read_text())["record"]
    assert record["sources"] == {str(out): found.content_hash}


def test_a_budget_that_is_too_small_is_refused_before_anything_is_asked(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    words = ["--data", f"voc:{place.voc}", "--max-requests", 1, "--cache", tmp_path / "cache", *endpoint.words()]
    refused = run("conditions", "attributes", "--out", tmp_path / "own.json", *words)
    assert refused.code == 2
    assert "fedmpt conditions: 20 classes need 2 requests, --max-requests is 1; raise it" in refused.err
    assert endpoint.asked == []


def test_a_class_that_stays_without_attributes_is_named(
    run: Command, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    endpoint.rule = lambda request: '{"1": ["round ears", "long tail", "soft fur", "wet nose"], "2": []}'
    (tmp_path / "classes.txt").write_text("cat\nidea\n")
    words = ["--classes", tmp_path / "classes.txt", "--cache", tmp_path / "cache", *endpoint.words()]
    refused = run("conditions", "attributes", "--out", tmp_path / "own.json", *words)
    assert refused.code == 2
    last = refused.err.splitlines()[-1]
    assert last.startswith('fedmpt conditions: 1 of 2 classes have fewer than 4 usable attributes: "idea"')
    assert not (tmp_path / "own.json").exists()
