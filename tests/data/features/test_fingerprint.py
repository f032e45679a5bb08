from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_backbone import FakeBackbone
from torch import Tensor, nn

from fedmpt.backbone.plugin import MovedPlugin
from fedmpt.backbone.views import StrongView
from fedmpt.data.features.fingerprint import fingerprint, store_key, text_fingerprint
from fedmpt.types import Backbone


def test_the_same_model_has_the_same_fingerprint() -> None:
    assert fingerprint(FakeBackbone()) == fingerprint(FakeBackbone())
    backbone = FakeBackbone()
    assert len(fingerprint(backbone)) == 64
    assert backbone.batches == []  # Weights are read, not run.


def change_one_weight(backbone: FakeBackbone) -> None:
    with torch.no_grad():
        backbone._conv.weight[5, 2, 3, 3] += 1e-6


def change_resampling(backbone: FakeBackbone) -> None:
    old = backbone.preprocess
    backbone.preprocess = lambda image: old(image.resize((64, 64)))


CHANGES: dict[str, Callable[[FakeBackbone], object]] = {
    "name": lambda backbone: setattr(backbone, "name", "other"),
    "image size": lambda backbone: setattr(backbone, "image_size", 9),
    "normalisation": lambda backbone: setattr(backbone, "brightness", 1.0001),
    "resampling": change_resampling,
    "one weight": change_one_weight,
    "number format": lambda backbone: backbone._conv.bfloat16(),
    "a module in a list": lambda backbone: setattr(backbone, "heads", [nn.Linear(2, 2)]),
    "a module in a dict": lambda backbone: setattr(backbone, "heads", {"a": nn.Linear(2, 2)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(change: str) -> None:
    backbone = FakeBackbone()
    before = fingerprint(backbone)
    CHANGES[change](backbone)
    assert fingerprint(backbone) != before


TEXT_CHANGES: dict[str, Callable[[FakeBackbone], object]] = {
    "weights": lambda backbone: nn.init.zeros_(backbone.text_model.weight),
    "number format": lambda backbone: backbone.text_model.bfloat16(),
    "logit scale": lambda backbone: setattr(backbone, "logit_scale", 99.0),
    "tokenizer": lambda backbone: setattr(backbone, "tokenizer", LettersTokenizer(first=2)),
}


class LettersTokenizer:
    bos_token_id, eos_token_id = 0, 1

    def __init__(self, *, first: int = 1) -> None:
        self.first = first

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [self.first + ord(letter) for letter in text]}


@pytest.mark.parametrize("change", TEXT_CHANGES)
def test_changes_of_the_text_side_show_there_and_cost_no_features(change: str) -> None:
    backbone = FakeBackbone()
    backbone.tokenizer = LettersTokenizer()
    before, features = text_fingerprint(backbone, ["cat"]), fingerprint(backbone)
    assert text_fingerprint(backbone, ["dog"]) != before
    TEXT_CHANGES[change](backbone)
    assert text_fingerprint(backbone, ["cat"]) != before
    assert fingerprint(backbone) == features


WRAPPERS: dict[str, Callable[[FakeBackbone], Backbone]] = {
    "itself": lambda plugin: plugin,
    "moved": lambda plugin: MovedPlugin(plugin, torch.device("cpu")),
    "a view of it": lambda plugin: StrongView().of(plugin),
    "a view of it moved": lambda plugin: StrongView().of(MovedPlugin(plugin, torch.device("cpu"))),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_source_of_a_plugin_counts_for_its_features(tmp_path: Path, wrapper: str) -> None:
    """Its code may change what features are without any weight changing."""
    keys = []
    for number, line in enumerate(("", "# another version\n")):
        module = tmp_path / f"plugin{number}.py"
        module.write_text(line + "from fake_backbone import FakeBackbone\n\nclass Mine(FakeBackbone):\n    pass\n")
        spec = importlib.util.spec_from_file_location(module.stem, module)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module.stem] = loaded
        spec.loader.exec_module(loaded)
        backbone = WRAPPERS[wrapper](loaded.Mine())
        keys.append((fingerprint(backbone), store_key(backbone, [], store_dtype="x", progress=False)))
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]


class HiddenTower(FakeBackbone):
    """Like an engine outside torch: no module but the text model."""

    def __init__(self) -> None:
        super().__init__()
        tower = self.__dict__.pop("_conv")
        self.scale = 1.0

        def encode(pixels: Tensor) -> tuple[Tensor, Tensor]:
            patches = self.scale * tower(pixels).flatten(2).transpose(1, 2)
            return patches, patches.mean(1)

        self.encode_image = encode


def test_a_tower_that_is_no_module_is_known_by_its_output() -> None:
    backbone = HiddenTower()
    before = fingerprint(backbone)
    assert before == fingerprint(HiddenTower())
    backbone.scale = 1.01
    assert fingerprint(backbone) != before


def test_a_wrapper_has_the_fingerprint_of_its_content() -> None:
    inner = FakeBackbone()

    class Wrapper(FakeBackbone):
        def __init__(self) -> None:
            self.plugin, self.text_model = inner, inner.text_model

        preprocess = staticmethod(inner.preprocess)

    assert fingerprint(Wrapper()) == fingerprint(inner)
    before = fingerprint(Wrapper())
    change_one_weight(inner)
    assert fingerprint(Wrapper()) != before


def test_a_fingerprint_of_its_own_is_taken_at_its_word() -> None:
    backbone = FakeBackbone()
    backbone.fingerprint = "v1"
    before = fingerprint(backbone)
    change_one_weight(backbone)
    assert fingerprint(backbone) == before
    backbone.brightness = 0.5
    assert fingerprint(backbone) != before  # Preprocessing is looked at all the same.
    backbone.brightness = 1.0
    backbone.fingerprint = "v2"
    assert fingerprint(backbone) != before


def test_a_backbone_may_be_a_module() -> None:
    class Whole(nn.Module):
        name, image_size, logit_scale, tokenizer = "whole", 8, 100.0, None
        preprocess, encode_image = FakeBackbone.preprocess, FakeBackbone.encode_image

        def __init__(self) -> None:
            super().__init__()
            self.text_model, self.brightness = nn.Identity(), 1.0
            self.weight = nn.Parameter(torch.zeros(2))

    backbone = Whole()
    before = fingerprint(backbone)
    backbone.weight.data += 1
    assert fingerprint(backbone) != before


def test_state_that_is_no_tensor_counts() -> None:
    class Quantised(nn.Module):
        scale = 1.0

        def get_extra_state(self) -> dict[str, float]:
            return {"scale": self.scale}

    backbone = FakeBackbone()
    backbone.extra = Quantised()
    before = fingerprint(backbone)
    backbone.extra.scale = 2.0
    assert fingerprint(backbone) != before
