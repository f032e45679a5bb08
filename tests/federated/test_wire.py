"""What float16 on the way to and from clients does to the server's state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from toy_method import toy

from fedmpt.federated.client import LocalResult
from fedmpt.federated.evaluation import Evaluation
from fedmpt.federated.rounds import Ask, Federation, Rounds
from fedmpt.federated.wire import Wire, through
from fedmpt.state import Update, get_state

CHANGE = 1e-4
"""A fifth of half a step of float16 between 1 and 2."""


@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_changes_that_are_smaller_than_a_step_of_the_format_add_up(wire: Wire) -> None:
    method = toy()
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor.fill_(1.5)
    start = get_state(method)

    def updates(ask: Ask) -> Iterator[LocalResult]:
        for client in ask.clients:
            state = {name: tensor + CHANGE for name, tensor in ask.state.items()}
            yield LocalResult(through(Update(client, state, 5, 1.0), ask.state, wire), {})

    federation = Federation(rounds=20, wire=wire)
    loop = Rounds(
        method=method,
        num_clients=2,
        federation=federation,
        seed=0,
        updates=updates,
        evaluate=lambda state, best: Evaluation(),
    )
    *_, last = loop.run()
    for name, tensor in last.progress.state.items():
        assert (tensor - start[name]).numpy() == pytest.approx(20 * CHANGE, rel=0.01)
