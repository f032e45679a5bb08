"""FedTPG: the context its network writes, by the equations, and where the context goes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, build
from plain_attention import attend_plainly
from plain_prompts import encode_plainly
from torch import Tensor, nn

from fedmpt.backbone import load_backbone
from fedmpt.methods.fedtpg import FedTPG, FedTPGConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, InputError

CONFIG = FedTPGConfig()


@pytest.fixture(params=["tiny", "medium"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Widths of the text tower and of its features: 48 and 40, and both 64."""
    return load_backbone(str(request.getfixturevalue(f"{request.param}_clip_folder")))


def trained(backbone: Backbone) -> FedTPG:
    """One whose norms and biases are not at the ones and zeros they start from."""
    method = build(CONFIG, backbone)
    assert isinstance(method, FedTPG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return method


def normed(row: Tensor, norm: nn.Module) -> Tensor:
    mean = sum(row) / len(row)
    variance = sum((row - mean) ** 2) / len(row)
    return (row - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


@torch.no_grad()
def test_context_equals_its_equations(backbone: Backbone) -> None:
    method = trained(backbone)
    written = backbone.tokenizer([f"{name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    features = F.normalize(backbone.text_model(**written).text_embeds, dim=-1)
    writer = method.writer
    queries = torch.stack([normed(row, writer.query_norm) for row in method.queries])
    keys = torch.stack([normed(row, writer.context_norm) for row in features])
    assert writer.attention.num_heads == 4
    norm, widen, _, narrow = writer.feed_forward
    context = []
    for attended in attend_plainly(writer.attention, queries, keys, keys):
        value, gate = (widen.weight @ normed(attended, norm) + widen.bias).chunk(2)
        hidden = torch.tensor([v * gelu(g) for v, g in zip(value.tolist(), gate.tolist(), strict=True)])
        context.append(attended + narrow.weight @ hidden + narrow.bias)
    torch.testing.assert_close(method.context(), torch.stack(context), atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_context_stands_before_every_class_name(backbone: Backbone) -> None:
    method = trained(backbone)
    prompts = method.template.embed(method.context()[None])
    torch.testing.assert_close(prompts.prefixes[0, 1:], method.context())
    plain = F.normalize(encode_plainly(backbone.text_model, prompts)[0], dim=-1)
    torch.testing.assert_close(method.encode_text(), plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_context_comes_from_the_set_of_all_names(backbone: Backbone) -> None:
    method = trained(backbone)

    def context_of(names: list[str]) -> Tensor:
        other = CONFIG.build(backbone, names, generator=torch.Generator())
        set_state(other, get_state(method))
        return other.context()

    names = list(CLASS_NAMES)
    torch.testing.assert_close(context_of(names[::-1]), method.context(), atol=1e-4, rtol=1e-4)
    assert (context_of(names[:-1]) - method.context()).abs().max() > 0.01


def test_size_at_b16() -> None:
    sizes = trained_at_b16(CONFIG)
    assert sum(size for name, size in sizes.items() if not name.startswith("calibration.")) == 4_206_080


def test_options_are_checked(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="--num-context must be positive, got 0"):
        build(FedTPGConfig(num_context=0), backbone)
