"""Initial values are torch's own, drawn from the given generator alone; blocks count as in the published towers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedmpt.methods.parts.layers import initialise, scaled_block


def layers() -> nn.Module:
    """Layers of every kind, some within others."""
    return nn.Sequential(
        nn.Linear(5, 3),
        nn.MultiheadAttention(8, 2),
        nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4, bias=False)),
        nn.MultiheadAttention(8, 2, kdim=6, vdim=4),
        nn.Conv2d(4, 2, kernel_size=3),
    )


def test_values_are_those_that_torch_draws_from_its_global_stream() -> None:
    torch.manual_seed(3)
    expected = layers().state_dict()
    module = layers()
    assert not torch.equal(module.state_dict()["0.weight"], expected["0.weight"])
    initialise(module, torch.Generator().manual_seed(3))
    found = module.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_global_randomness_is_neither_read_nor_moved() -> None:
    module = layers()
    before = torch.get_rng_state()
    initialise(module, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("block", "depth", "expected"),
    [
        *((block, 12, block) for block in range(13)),
        (9, 24, 18),
        (8, 3, 2),
        (9, 3, 2),
        (9, 6, 4),
        (6, 6, 3),
        (12, 3, 3),
        # Rounded up, these would lie behind the tower's end.
        (11, 6, 5),
        (11, 1, 0),
        (0, 1, 0),
    ],
)
def test_as_far_into_the_tower(block: int, depth: int, expected: int) -> None:
    assert scaled_block(block, depth) == expected


def test_a_block_that_no_paper_has_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        scaled_block(13, 12)
