"""Initial values are torch's own, drawn from the given generator alone."""

from __future__ import annotations

import torch
from torch import nn

from fedmpt.methods.parts.initialise import initialise


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
