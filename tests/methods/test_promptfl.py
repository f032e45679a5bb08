"""PromptFL: its prompt, its head, its options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from contract import CLASS_NAMES, build, images, whole

from fedmpt.methods.parts.heads import csra_logits, standardised
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, InputError

CONFIG = PromptFLConfig(num_context=3)


def test_context_stands_before_the_class_name(backbone: Backbone) -> None:
    """With the embeddings of words as context, its text features are those of transformers on the written prompt."""
    method = build(replace(CONFIG, num_context=2, context_init="of a"), backbone)
    written = backbone.tokenizer([f"of a {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    expected = F.normalize(backbone.text_model(**written).text_embeds, dim=-1)
    torch.testing.assert_close(method.encode_text(), expected, atol=1e-5, rtol=0)


def test_prediction_is_the_calibrated_csra_head(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    batch = whole(images(method, backbone))
    scale, bias = torch.tensor(1.7), torch.tensor(-0.4)
    state = get_state(method)
    set_state(method, {**state, "calibration.scale": scale, "calibration.bias": bias})
    logits = csra_logits(torch.cat([batch.pooled[:, None], batch.patches], 1), method.encode_text())
    torch.testing.assert_close(method(batch), 1 / (1 + torch.exp(-scale * standardised(logits) - bias)))


def test_what_travels_is_the_context_and_two_numbers(backbone: Backbone) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in get_state(build(CONFIG, backbone)).items()}
    assert shapes == {"context": (3, 48), "calibration.scale": (), "calibration.bias": ()}


@pytest.mark.parametrize("num_context", [0, -2])
def test_context_must_be_positive(backbone: Backbone, num_context: int) -> None:
    with pytest.raises(InputError, match=f"--num-context must be positive, got {num_context}"):
        build(PromptFLConfig(num_context=num_context), backbone)


def test_words_to_start_from_stand_next_to_the_class(backbone: Backbone) -> None:
    words = build(replace(CONFIG, num_context=2, context_init="of a"), backbone).context.detach()
    longer = build(replace(CONFIG, num_context=2, context_init="dog of a"), backbone).context.detach()
    torch.testing.assert_close(longer, words, atol=0, rtol=0)
    shorter = build(replace(CONFIG, context_init="of a"), backbone).context.detach()
    torch.testing.assert_close(shorter[1:], words, atol=0, rtol=0)
    assert 0 < shorter[0].abs().max() < 0.1


def test_too_long_a_context_is_named(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="the text tower takes 77; shorten a name or use fewer context tokens"):
        build(PromptFLConfig(num_context=76), backbone)
