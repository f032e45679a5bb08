"""Zero-shot CLIP against transformers' own text features, head by head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import CLASS_NAMES, build, images, whole
from torch import Tensor

from fedmpt.methods.parts.heads import csra_logits, standardised
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.types import Backbone, Batch, InputError


def text_features(backbone: Backbone, template: str) -> Tensor:
    written = backbone.tokenizer([template.format(name) for name in CLASS_NAMES], padding=True, return_tensors="pt")
    return F.normalize(backbone.text_model(**written).text_embeds, dim=-1)


def expected(head: str, batch: Batch, text: Tensor, logit_scale: float) -> Tensor:
    if head == "csra":
        return standardised(csra_logits(torch.cat([batch.pooled[:, None], batch.patches], 1), text)).sigmoid()
    if head == "pooled":
        return (logit_scale * F.normalize(batch.pooled, dim=-1) @ text.T).softmax(1)
    by_patch = [
        (logit_scale * F.normalize(batch.patches[:, m], dim=-1) @ text.T).softmax(1)
        for m in range(batch.patches.shape[1])
    ]
    return torch.stack(by_patch).mean(0)


@pytest.mark.parametrize("template", ["a photo of a {}.", "the {}.", " {}."])
@pytest.mark.parametrize("head", ["patches", "pooled", "csra"])
def test_heads(backbone: Backbone, head: Any, template: str) -> None:
    method = build(ZeroShotConfig(template=template, head=head), backbone)
    batch = whole(images(method, backbone))
    found = method(batch)
    torch.testing.assert_close(
        found, expected(head, batch, text_features(backbone, template), backbone.logit_scale), atol=1e-5, rtol=0
    )
    if head != "csra":
        torch.testing.assert_close(found.sum(1), torch.ones(len(batch)))


def test_trains_nothing(backbone: Backbone) -> None:
    method = build(ZeroShotConfig(), backbone)
    assert not method.is_trained
    assert not method.state_dict()


@pytest.mark.parametrize("template", ["a photo of a {}", "{} in a photo.", "a photo.", "a {} and a {}.", "", "{}."])
def test_template_must_end_with_the_class(backbone: Backbone, template: str) -> None:
    with pytest.raises(InputError) as caught:
        build(ZeroShotConfig(template=template), backbone)
    assert str(caught.value) == f"--template {template!r} must end with ' {{}}.', as in 'a photo of a {{}}.'"
