"""TCP against transformers' own forward on whole prompts, with a hook on the layer that gets the class's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from b16 import b16_backbone, trained_at_b16
from contract import CLASS_NAMES, build, images, whole
from hooked_clip import edited
from plain_prompts import encode_plainly
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.methods.tcp import TCP, TCPConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone

CONFIG = TCPConfig()


@pytest.fixture(params=["tiny", "medium"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(str(request.getfixturevalue(f"{request.param}_clip_folder")))


def trained(backbone: Backbone) -> TCP:
    """One whose tokens are as large as the tower's, so that they are seen."""
    method = build(CONFIG, backbone)
    assert isinstance(method, TCP)
    with torch.no_grad():
        for parameter in method.meta_net.parameters():
            parameter.mul_(5)
    return method


def class_tokens(method: TCP) -> Tensor:
    """[C, b, W], class by class and token by token."""
    first, _, second = method.meta_net
    rows = []
    for feature in method.hand_written:
        inner = first.weight @ feature + first.bias
        hidden = inner / (1 + torch.exp(-1.702 * inner))
        flat = second.weight @ hidden + second.bias
        rows.append(torch.stack([flat[i * method.tower.width : (i + 1) * method.tower.width] for i in range(4)]))
    return torch.stack(rows)


def test_class_tokens_replace_the_context_behind_the_start_token(backbone: Backbone) -> None:
    method = trained(backbone)
    prompts = method.template.embed(suffix_context=method.context)
    num_layers = len(method.tower.layers)
    block = {3: 2, 4: 3}[num_layers]
    layer = backbone.text_model.text_model.encoder.layers[block]
    own = class_tokens(method)
    with edited({layer: lambda tokens: torch.cat([tokens[:, :1], own, tokens[:, 5:]], dim=1)}):
        plain = F.normalize(encode_plainly(backbone.text_model, prompts)[0], dim=-1)
    found = method.encode_text()
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    parameters = [method.context, *method.meta_net.parameters()]
    ours, theirs = (torch.autograd.grad((text * weights).sum(), parameters) for text in (found, plain))
    for one, other in zip(ours, theirs, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-4 * other.norm()


def test_prompt_below_is_start_context_class(backbone: Backbone) -> None:
    """Without class tokens it would be KgCoOp's prompt, with a context that starts from N(0, 0.02^2)."""
    method = trained(backbone)
    prompts = method.template.embed(suffix_context=method.context)
    assert prompts.prefix_lengths.tolist() == [1]
    torch.testing.assert_close(prompts.suffixes[:, :4], method.context.expand(len(CLASS_NAMES), -1, -1))
    assert 0.015 < method.context.std() < 0.025


@torch.no_grad()
def test_tokens_of_a_class_come_from_its_own_name_alone(backbone: Backbone) -> None:
    method = trained(backbone)
    others = CONFIG.build(backbone, ["the o", "cat", "in the"], generator=torch.Generator())
    set_state(others, get_state(method))
    torch.testing.assert_close(others.encode_text()[1], method.encode_text()[0], atol=1e-5, rtol=0)
    assert (method.class_tokens()[0] - method.class_tokens()[1]).abs().max() > 0.01


def test_loss_holds_the_result_to_hand_written_prompts(backbone: Backbone) -> None:
    method = trained(backbone)
    batch, text = whole(images(method, backbone)), method.encode_text()
    distance = 1 - sum(t @ h for t, h in zip(text, method.hand_written, strict=True)) / len(CLASS_NAMES)
    expected = asymmetric_loss(method(batch), batch.labels) + 8 * distance
    torch.testing.assert_close(method.loss(batch), expected, atol=1e-4, rtol=0)


def test_size_at_b16() -> None:
    sizes = trained_at_b16(CONFIG)
    assert sum(size for name, size in sizes.items() if not name.startswith("calibration.")) == 331_904
    method = CONFIG.build(b16_backbone(), CLASS_NAMES, generator=torch.Generator())
    assert method.block == 8


def test_number_of_tokens_is_an_option(tiny_clip_folder: Path) -> None:
    method = TCPConfig(num_context=3).build(
        load_backbone(str(tiny_clip_folder)), CLASS_NAMES, generator=torch.Generator()
    )
    assert method.class_tokens().shape == (len(CLASS_NAMES), 3, 48)
    assert method.encode_text().shape == (len(CLASS_NAMES), 40)
