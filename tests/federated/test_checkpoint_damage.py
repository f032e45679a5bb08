"""Damaged checkpoints: every kind is noticed, named, and leads out of the folder in no case."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import assert_same, change_index, progress, saved, tensor_files

from fedmpt.federated.checkpoint import INDEX, load_checkpoint, save_checkpoint
from fedmpt.types import InputError


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_truncation_of_a_tensor_file_is_noticed(tmp_path: Path, which: int) -> None:
    path = tensor_files(saved(tmp_path))[which]
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"{path.name} is truncated or changed \({length} bytes\); copy the"):
            load_checkpoint(tmp_path)


def test_every_changed_byte_of_a_tensor_file_is_noticed(tmp_path: Path) -> None:
    path = tensor_files(saved(tmp_path))[0]
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(InputError, match="is truncated or changed"):
            load_checkpoint(tmp_path)


def test_every_truncation_of_the_index_is_noticed(tmp_path: Path) -> None:
    content = (saved(tmp_path) / INDEX).read_bytes()
    for length in range(len(content) - 2):
        (tmp_path / INDEX).write_bytes(content[:length])
        with pytest.raises(InputError, match=f"{INDEX}, line .*: not valid JSON"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_tensor_file_is_named(tmp_path: Path, which: int) -> None:
    path = tensor_files(saved(tmp_path))[which]
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is missing from the checkpoint; copy the folder again, whole"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a file"])
def test_no_checkpoint(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "run"
    if what == "an empty folder":
        folder.mkdir()
    elif what == "a file":
        folder.write_text("")
    with pytest.raises(InputError, match=rf"run holds no checkpoint \({INDEX} is missing\); give a run's 'checkpoint'"):
        load_checkpoint(folder)


def test_the_tensors_of_another_checkpoint_are_noticed(tmp_path: Path) -> None:
    mine, other = saved(tmp_path / "mine"), saved(tmp_path / "other", progress(2.0))
    for path, foreign in zip(tensor_files(mine), tensor_files(other), strict=True):
        shutil.copyfile(foreign, path)
    with pytest.raises(InputError, match="is truncated or changed"):
        load_checkpoint(mine)


@pytest.mark.parametrize("version", [4, 99, "2", 0])
def test_a_newer_format_says_so(tmp_path: Path, version: Any) -> None:
    change_index(saved(tmp_path), lambda index: index.update(format=version))
    with pytest.raises(InputError, match=f"format {version}, this version reads 1 to 3; update fedmpt"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("key", ["format", "rounds_done", "state", "memory", "record"])
def test_an_index_that_lacks_something_is_damaged(tmp_path: Path, key: str) -> None:
    change_index(saved(tmp_path), lambda index: {name: index[name] for name in index if name != key})
    with pytest.raises(InputError, match=f"{INDEX} is damaged .KeyError.'{key}'.*restore it from a copy or train"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "state.safetensors"},
        {"state": {"name": "x.safetensors"}},
        {"personal": [1]},
        {"memory": "memory.safetensors"},
        {"record": 7},
        {"rounds_done": "many"},
    ],
)
def test_an_index_with_other_values_is_damaged(tmp_path: Path, damage: dict[str, Any]) -> None:
    change_index(saved(tmp_path), lambda index: index.update(damage))
    with pytest.raises(InputError, match=r"is damaged|is missing"):
        load_checkpoint(tmp_path)


def test_tensor_files_of_something_else_are_damaged(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_index(folder, lambda index: index.update(personal=index["state"]))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(folder)
    content = b"no tensors"
    (folder / "x.safetensors").write_bytes(content)
    odd = {"name": "x.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    change_index(folder, lambda index: index.update(state=odd))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["../{}", "/tmp/{}", "inner/{}", "..", "checkpoint.json"])
def test_only_tensor_files_of_the_folder_are_read(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "run")
    for path in tensor_files(folder):
        shutil.copyfile(path, tmp_path / path.name)
    change_index(folder, lambda index: index["state"].update(name=name.format(index["state"]["name"])))
    with pytest.raises(InputError, match="which is no file of tensors in that folder"):
        load_checkpoint(folder)


@pytest.mark.parametrize("index", [[], 5, {}])
def test_an_index_that_is_another_json_is_damaged(tmp_path: Path, index: Any) -> None:
    (saved(tmp_path) / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_records_that_json_cannot_hold_are_refused_before_the_old_checkpoint_is_lost(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, progress(2.0, rounds_done=4), {"bad": float("nan")})
    assert_same(load_checkpoint(tmp_path).progress, progress(1.0))
