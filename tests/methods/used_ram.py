"""A RAM as training might leave it, on the tiny CLIP, for the tests of its parts."""

from __future__ import annotations

import torch
from contract import build, images

from fedmpt.methods.ram import RAM, RAMConfig
from fedmpt.types import Backbone, Batch

CONFIG = RAMConfig()


def used_ram(backbone: Backbone) -> RAM:
    """Adapters that add something, tokens that are not small, running statistics that are not those of the start."""
    method, generator = build(CONFIG, backbone), torch.Generator().manual_seed(3)
    for adapter in method.adapters:
        adapter.up.weight.data = 0.3 * torch.randn(adapter.up.weight.shape, generator=generator)
        for branch in (adapter.point, adapter.window):
            branch.norm.running_var.add_(torch.rand(branch.norm.running_var.shape, generator=generator))
    method.visual_context.data.mul_(50)
    method.context.data.mul_(50)
    return method.eval()


def few(method: RAM, backbone: Backbone) -> Batch:
    return images(method, backbone).batch(torch.arange(4))
