"""Personal tensors at a site: a round may come twice, and only what may still be needed is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmpt.runs.federation.personal import PersonalStore
from fedmpt.types import InputError


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"offset": torch.full((3,), value)}


def value_of(store: PersonalStore, index: int) -> float | None:
    found = store.before(index)
    return None if found is None else found["offset"][0].item()


def test_a_round_starts_from_the_last_one_before_it_however_often_it_comes(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path / "personal")
    assert value_of(store, 1) is None
    for index in (1, 2, 3):
        store.store(index, tensors(index), best=0)
    assert value_of(store, 4) == 3
    assert value_of(store, 3) == 2  # The coordinator was stopped before it stored round 3.
    store.store(3, tensors(30), best=0)
    assert value_of(store, 4) == 30


def test_only_the_last_two_rounds_and_the_best_one_are_kept(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path)
    for index in (1, 4, 5, 7, 9):  # A site does not train in every round.
        store.store(index, tensors(index), best=6 if index > 6 else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"round-{index:06d}.safetensors" for index in (5, 7, 9)]
    assert value_of(store, 7) == 5  # Round 6 was the best: the site then had the tensors of round 5.


def test_methods_without_personal_tensors_leave_no_folder(tmp_path: Path) -> None:
    PersonalStore(tmp_path / "personal").store(1, {}, best=0)
    assert not (tmp_path / "personal").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path)
    store.store(1, tensors(1), best=0)
    (tmp_path / "round-000001.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"round-000001.safetensors is damaged"):
        store.before(2)


def test_rounds_that_the_coordinator_does_not_have_are_forgotten(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path)
    store.store(2, tensors(2), best=0)
    store.store(3, tensors(3), best=0)
    store.drop_after(2)
    assert value_of(store, 9) == 2
    store.drop_after(0)  # A new run.
    assert value_of(store, 9) is None
