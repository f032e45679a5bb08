"""Tokens that enter the text tower at a block, against transformers' own forward on whole prompts with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_prompts import encode_plainly
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.text_tower import DeepTokens, TextTower
from fedmpt.methods.parts.prompts import PromptTemplate, random_context
from fedmpt.types import Backbone

CLASSES = ("cat", "dining table", "a very long class name of many words")
CONDITIONS = ("layout", "the pose of the object")
NUM = 2


@pytest.fixture(params=["tiny", "medium"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    folder: Path = request.getfixturevalue(f"{request.param}_clip_folder")
    return load_backbone(str(folder))


def template_of(backbone: Backbone, *, prefix: int = 0, suffix: int = 0) -> PromptTemplate:
    return PromptTemplate(
        TextTower(backbone),
        CLASSES,
        prefix_texts=CONDITIONS,
        num_prefix_context=prefix,
        num_suffix_context=suffix,
    )


def drawn(*shape: int, seed: int) -> Tensor:
    return (30 * random_context(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


@contextmanager
def hooked(model: Any, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change what transformers' layers get; prompts are rows, condition by condition, class by class."""
    with ExitStack() as stack:
        for index, edit in edits.items():

            def hook(_: Any, arguments: tuple[Tensor, ...], edit: Callable[[Tensor], Tensor] = edit) -> tuple[Any, ...]:
                return edit(arguments[0]), *arguments[1:]

            stack.enter_context(removed_later(model.text_model.encoder.layers[index].register_forward_pre_hook(hook)))
        yield


@contextmanager
def removed_later(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def assert_agree(fast: Tensor, plain: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)
    weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(5))
    ours, theirs = (torch.autograd.grad((found * weights).sum(), inputs) for found in (fast, plain))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
        assert other.norm() > 0


@pytest.mark.parametrize("per_condition", [True, False])
def test_prefix_tokens_replace_the_context_before_their_block(backbone: Backbone, per_condition: bool) -> None:
    template, tower = template_of(backbone, prefix=NUM), TextTower(backbone)
    rows = len(CONDITIONS) if per_condition else 1
    context = drawn(len(CONDITIONS), NUM, tower.width, seed=1)
    deep = {index: drawn(rows, NUM, tower.width, seed=index + 2) for index in range(1, len(tower.layers))}
    prompts = template.embed(context)
    fast = tower.encode(prompts, DeepTokens(prefix=deep))

    def edit(own: Tensor) -> Callable[[Tensor], Tensor]:
        rows = own.expand(len(CONDITIONS), -1, -1).repeat_interleave(len(CLASSES), dim=0)
        return lambda tokens: torch.cat([tokens[:, :1], rows, tokens[:, 1 + NUM :]], dim=1)

    with hooked(backbone.text_model, {index: edit(own) for index, own in deep.items()}):
        plain = encode_plainly(backbone.text_model, prompts)
    assert_agree(fast, plain, context, *deep.values())


@pytest.mark.parametrize("block", [1, -1])
def test_suffix_tokens_may_differ_by_class(backbone: Backbone, block: int) -> None:
    template, tower = template_of(backbone, suffix=NUM), TextTower(backbone)
    block = block % len(tower.layers)
    context, own = drawn(NUM, tower.width, seed=1), drawn(len(CLASSES), NUM, tower.width, seed=2)
    prompts = template.embed(suffix_context=context)
    fast = tower.encode(prompts, DeepTokens(suffix={block: own}))

    def edit(tokens: Tensor) -> Tensor:
        changed = tokens.clone()
        for row in range(len(tokens)):
            start = int(prompts.prefix_lengths[row // len(CLASSES)])
            changed[row, start : start + NUM] = own[row % len(CLASSES)]
        return changed

    with hooked(backbone.text_model, {block: edit}):
        plain = encode_plainly(backbone.text_model, prompts)
    assert_agree(fast, plain, context, own)


def test_inserted_tokens_are_there_during_their_block_alone(backbone: Backbone) -> None:
    """In transformers: put in before the block, taken out before the next; a plain causal mask over the longer row."""
    template, tower = template_of(backbone), TextTower(backbone)
    last = len(tower.layers) - 1
    deep = {index: drawn(1, NUM, tower.width, seed=index) for index in (last - 1, last)}
    prompts = template.embed()
    fast = tower.encode(prompts, DeepTokens(inserted=deep))
    plain = encode_with_inserted(backbone, prompts, deep)
    assert_agree(fast, plain, *deep.values())


def encode_with_inserted(backbone: Backbone, prompts: Any, deep: Mapping[int, Tensor]) -> Tensor:
    """One prompt after the other through transformers' layers with an explicit mask."""
    inner = backbone.text_model.text_model
    found = []
    for prefix, length in zip(prompts.prefixes, prompts.prefix_lengths.tolist(), strict=True):
        for suffix, end in zip(prompts.suffixes, prompts.ends.tolist(), strict=True):
            tokens = torch.cat([prefix[:length], suffix[: end + 1]])[None]
            tokens = tokens + inner.embeddings.position_embedding.weight[: tokens.shape[1]]
            for index, layer in enumerate(inner.encoder.layers):
                own = deep[index] if index in deep else tokens[:, :0]
                tokens = torch.cat([tokens[:, :1], own, tokens[:, 1:]], dim=1)
                size = tokens.shape[1]
                mask = torch.full((size, size), -torch.inf).triu(1)[None, None]
                out = layer(tokens, attention_mask=mask)
                tokens = out[0] if isinstance(out, tuple) else out
                tokens = torch.cat([tokens[:, :1], tokens[:, 1 + own.shape[1] :]], dim=1)
            found.append(backbone.text_model.text_projection(inner.final_layer_norm(tokens[:, -1]))[0])
    return torch.stack(found).unflatten(0, (len(CONDITIONS), len(CLASSES)))


def test_deep_tokens_of_a_block_that_is_not_there_are_our_fault(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    with pytest.raises(AssertionError):
        tower.encode(template_of(backbone).embed(), DeepTokens(inserted={99: drawn(1, NUM, tower.width, seed=0)}))
