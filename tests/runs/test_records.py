"""What a checkpoint's record says of clients, where it was written by somebody else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_method import toy

from fedmpt.federated.simulate import Progress
from fedmpt.runs.records import client_names
from fedmpt.types import InputError


def names_of(record: dict[str, Any], *numbers: int, personal: bool = True) -> tuple[str, ...]:
    progress = Progress(rounds_done=1, state={}, personal={number: {"offset": torch.zeros(3)} for number in numbers})
    return client_names(record, toy(personal=personal), progress, source="run/checkpoint")


def test_names_of_clients() -> None:
    assert names_of({"clients": ["a", "b", "c"]}, 0, 2) == ("a", "b", "c")


def test_older_checkpoints_name_no_clients_and_need_none() -> None:
    assert names_of({}, personal=False) == ()


@pytest.mark.parametrize("clients", ["abc", {"a": 0}, None, [0, 1, 2], [["a"]]])
def test_what_is_no_list_of_names(clients: Any) -> None:
    with pytest.raises(InputError, match=r"run/checkpoint: 'clients' in .* not a list of names; restore it"):
        names_of({"clients": clients}, 0)


@pytest.mark.parametrize("record", [{}, {"clients": []}])
def test_personal_scores_need_names(record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="run/checkpoint: the checkpoint's record names no clients; restore it"):
        names_of(record)


@pytest.mark.parametrize("number", [-1, 2])
def test_every_client_with_personal_tensors_has_a_name(number: int) -> None:
    with pytest.raises(InputError, match=f"personal tensors of client {number}, and 'clients' in .* names 2; restore"):
        names_of({"clients": ["a", "b"]}, number, 0)
