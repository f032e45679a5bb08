"""Where tokens of prompts come to stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmpt.backbone import load_backbone
from fedmpt.backbone.text_tower import TextTower
from fedmpt.methods.parts.prompts import PromptTemplate, context_from, random_context, token_ids
from fedmpt.types import Backbone, InputError


@pytest.fixture
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))


def test_layout_is_start_context_condition_context_class_stop_end(backbone: Backbone) -> None:
    tower, tokenizer = TextTower(backbone), backbone.tokenizer
    template = PromptTemplate(
        tower, ["cat", "dining table"], prefix_texts=["the pose"], num_prefix_context=2, num_suffix_context=3
    )
    prefix_context, suffix_context = torch.full((1, 2, tower.width), 7.0), torch.full((3, tower.width), 9.0)
    prompts = template.embed(prefix_context, suffix_context)
    whole = tower.embed_tokens(torch.tensor(tokenizer("the pose dining table.")["input_ids"]))
    condition = len(token_ids(tokenizer, "the pose"))
    found = torch.cat([prompts.prefixes[0, : prompts.prefix_lengths[0]], prompts.suffixes[1, : prompts.ends[1] + 1]])
    expected = [whole[:1], prefix_context[0], whole[1 : 1 + condition], suffix_context, whole[1 + condition :]]
    torch.testing.assert_close(found, torch.cat(expected), atol=0, rtol=0)


def test_context_ends_with_the_phrase_and_is_random_before_it(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    ids = token_ids(backbone.tokenizer, "a dog")
    words = tower.embed_tokens(torch.tensor(ids))

    def start(phrase: str, num_tokens: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return context_from(tower, phrase, num_tokens, generator=generator)

    assert start("a dog", len(ids)).equal(words)
    assert start("a dog", len(ids) - 1).equal(words[1:])
    longer = start("a dog", len(ids) + 3)
    assert longer[3:].equal(words)
    assert longer[:3].equal(start("", 3))
    assert not longer[:3].equal(start("", 3, seed=1))


def test_too_long_a_prompt_is_named(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    long_name = " ".join(["x"] * 80)
    with pytest.raises(InputError, match=r"class 'x x .* has 8\d tokens, the text tower takes 77"):
        PromptTemplate(tower, ["cat", long_name])


def test_empty_class_name(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="class name '' has no tokens"):
        PromptTemplate(TextTower(backbone), ["cat", ""])


def test_random_context_has_coops_spread() -> None:
    drawn = random_context(100, 512, generator=torch.Generator().manual_seed(0))
    assert abs(drawn.std().item() - 0.02) < 0.001
    assert abs(drawn.mean().item()) < 0.001
