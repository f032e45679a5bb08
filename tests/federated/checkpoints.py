"""Checkpoints to damage, and what it means that two are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmpt.federated.checkpoint import INDEX, save_checkpoint
from fedmpt.federated.rounds import Progress

RECORD = {"config": {"seed": 1}, "class_names": ["cat", "dog"], "nothing": None}


def progress(value: float, *, rounds_done: int = 3, personal: bool = True, memory: bool = True) -> Progress:
    state = {"weight": torch.full((4, 3), value), "gate.up": torch.tensor(value)}
    at_home: dict[int, dict[str, Tensor]] = {7: {"offset": torch.full((2,), value)}, 12: {"offset": torch.zeros(2)}}
    remembered = {"server/velocity/weight": torch.full((4, 3), -value), "method/clients": torch.tensor([7, 12])}
    return Progress(
        rounds_done=rounds_done,
        state=state,
        personal=at_home if personal else {},
        memory=remembered if memory else {},
    )


def assert_same(one: Progress, other: Progress) -> None:
    assert one.rounds_done == other.rounds_done
    assert_same_state(one.state, other.state)
    assert_same_state(one.memory, other.memory)
    assert one.personal.keys() == other.personal.keys()
    for client in one.personal:
        assert_same_state(one.personal[client], other.personal[client])


def assert_same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name])


def saved(folder: Path, kept: Progress | None = None) -> Path:
    save_checkpoint(folder, kept or progress(1.0), RECORD)
    return folder


def tensor_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def change_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    changed = change(index)
    (folder / INDEX).write_text(json.dumps(index if changed is None else changed))
