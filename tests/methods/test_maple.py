"""MaPLe against transformers' own towers with hooks: its prompts, their coupling, its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, build
from hooked_clip import image_features, text_features
from pictures import batch_of
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.backbone.text_tower import TextTower
from fedmpt.backbone.views import StrongView
from fedmpt.methods.maple import MaPLe, MaPLeConfig
from fedmpt.methods.parts.prompts import PromptTemplate
from fedmpt.types import Backbone, InputError

CONFIG = MaPLeConfig()
LABELS = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, -1]])


@pytest.fixture(params=["tiny", "medium"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_clip_folder")


def trained(backbone: ClipBackbone, config: MaPLeConfig) -> MaPLe:
    """One whose tokens are as large as those of the towers, so that they are seen."""
    method = build(config, backbone)
    with torch.no_grad():
        method.contexts.mul_(30)
        method.calibration.scale.fill_(1.5)
        method.calibration.bias.fill_(-0.3)
    return method


def pixels_for(backbone: ClipBackbone) -> Tensor:
    size = backbone.image_size
    return torch.randn(len(LABELS), 3, size, size, generator=torch.Generator().manual_seed(3))


def expected(method: MaPLe, folder: Path, backbone: ClipBackbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Text features and probabilities, image by image and class by class."""
    num = method.contexts.shape[1]
    template = PromptTemplate(TextTower(backbone), CLASS_NAMES, num_prefix_context=num)
    contexts = dict(enumerate(method.contexts))
    first = contexts.pop(0)
    text = text_features(backbone.text_model, template.embed(first[None]), contexts)[0]
    prompts = {
        index: (context @ method.couplings[index].weight.T + method.couplings[index].bias).expand(len(pixels), -1, -1)
        for index, context in {0: first, **contexts}.items()
    }
    patches, pooled = image_features(folder, pixels, prompts)
    rows = []
    for image in range(len(pixels)):
        logits = []
        for feature in text:
            tokens = torch.cat([pooled[image][None], patches[image]])
            s = 20 * torch.stack([torch.cosine_similarity(token, feature, dim=0) for token in tokens])
            logits.append(5 * (s.softmax(0) * s).sum())
        row = torch.stack(logits)
        z = (row - row.mean()) / (1 + row.std(correction=0))
        rows.append(1 / (1 + torch.exp(-(method.calibration.scale * z + method.calibration.bias))))
    return text, torch.stack(rows)


@pytest.mark.parametrize(("depth", "num_context"), [(9, 2), (12, 3), (1, 1)])
def test_features_and_gradients_are_those_of_transformers_with_hooks(
    folder: Path, depth: int, num_context: int
) -> None:
    backbone = load_backbone(str(folder))
    method = trained(backbone, replace(CONFIG, depth=depth, num_context=num_context))
    pixels = pixels_for(backbone)
    batch = batch_of(backbone, method.views, pixels, LABELS)
    text, probabilities = expected(method, folder, backbone, pixels)
    torch.testing.assert_close(method.encode_text(), torch.nn.functional.normalize(text, dim=-1), atol=1e-5, rtol=0)
    found = method(batch)
    torch.testing.assert_close(found, probabilities, atol=1e-5, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    parameters = list(method.parameters())
    ours, theirs = (torch.autograd.grad((some * weights).sum(), parameters) for some in (found, probabilities))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-7


@pytest.mark.parametrize(
    ("size", "depth", "expected_depth"),
    [("tiny", 9, 1), ("tiny", 12, 2), ("medium", 9, 2), ("medium", 12, 3), ("medium", 1, 1)],
)
def test_depth_is_a_share_of_the_shallower_tower(
    request: pytest.FixtureRequest, size: str, depth: int, expected_depth: int
) -> None:
    """The tiny CLIP has 3 text and 2 image blocks, the medium one 4 and 3."""
    backbone = load_backbone(str(request.getfixturevalue(f"{size}_clip_folder")))
    method = build(replace(CONFIG, depth=depth), backbone)
    assert len(method.contexts) == len(method.couplings) == expected_depth


def test_bfloat16_towers_give_near_scores_and_gradients(tiny_clip_folder: Path) -> None:
    fp32, bf16 = (load_backbone(str(tiny_clip_folder), dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    losses, norms = [], []
    for backbone in (fp32, bf16):
        method = trained(backbone, replace(CONFIG, depth=12))
        loss = method.loss(batch_of(backbone, method.views, pixels_for(backbone), LABELS))
        gradients = torch.autograd.grad(loss, list(method.parameters()))
        losses.append(loss)
        norms.append(torch.stack([gradient.norm() for gradient in gradients]))
    torch.testing.assert_close(losses[1], losses[0], atol=0, rtol=0.02)
    torch.testing.assert_close(norms[1], norms[0], atol=1e-4, rtol=0.3)


def test_every_block_has_tokens_of_its_own_that_act(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    method = trained(backbone, replace(CONFIG, depth=12))
    batch = batch_of(backbone, method.views, pixels_for(backbone), LABELS)
    text = method.encode_text().detach()
    (by_image,) = torch.autograd.grad(method.loss(batch, text), method.contexts)
    (by_text,) = torch.autograd.grad(method.encode_text()[:, 0].sum(), method.contexts)
    assert (by_image.flatten(1).norm(dim=1) > 0).all()
    assert (by_text.flatten(1).norm(dim=1) > 0).all()


def test_trained_parameters_are_those_of_the_published_size() -> None:
    counts = trained_at_b16(CONFIG)
    calibration = sum(number for name, number in counts.items() if name.startswith("calibration."))
    assert (sum(counts.values()) - calibration, calibration) == (3_555_072, 2)


def test_the_first_context_may_start_from_words(backbone: Backbone) -> None:
    method = build(MaPLeConfig.paper(), backbone)
    two = TextTower(backbone).embed_tokens(torch.tensor(backbone.tokenizer("a photo")["input_ids"][-3:-1]))
    torch.testing.assert_close(method.contexts[0].detach(), two, atol=0, rtol=0)
    # "of a" stays between them and the class: as they are written, with one block's tokens.
    written = [f"a photo of a {name}." for name in CLASS_NAMES]
    ids = backbone.tokenizer(written, padding=True, return_tensors="pt")
    num = len(backbone.tokenizer("a photo", add_special_tokens=False)["input_ids"])
    alone = build(replace(MaPLeConfig.paper(), depth=1, num_context=num), backbone)
    expected = F.normalize(backbone.text_model(**ids).text_embeds, dim=-1)
    torch.testing.assert_close(alone.encode_text(), expected, atol=1e-5, rtol=0)


def test_contexts_start_small_and_couplings_as_torch_draws_them(backbone: Backbone) -> None:
    method = build(replace(CONFIG, depth=12, num_context=50), backbone)
    assert 0.018 < method.contexts.std() < 0.022
    for coupling in method.couplings:
        bound = coupling.in_features**-0.5
        assert 0.9 * bound < coupling.weight.abs().max() <= bound
    assert not torch.equal(method.couplings[0].weight, method.couplings[1].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_context": 0}, "--num-context must be positive, got 0"),
        ({"depth": 0}, "--depth must be in .*, got 0"),
        ({"depth": 13}, "--depth must be in .*, got 13"),
        ({"num_context": 76}, "the text tower takes 77; shorten a name or use fewer context tokens"),
    ],
)
def test_options_out_of_range_are_named(backbone: Backbone, change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **change), backbone)


def test_a_closed_backbone_is_refused(backbone: Backbone) -> None:
    wrapper = StrongView().of(backbone)
    with pytest.raises(InputError, match=f"backbone {backbone.name!r} does not open its own"):
        build(CONFIG, wrapper)
