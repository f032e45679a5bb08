"""What a tower or its preprocessing may get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_backbone import FakeBackbone, stores
from PIL import Image

from fedmpt.data.features.store import open_features
from fedmpt.types import InputError, Split


def nan_in_second_image(output: Any) -> Any:
    output[0][1, 2, 3] = float("nan")
    return output


def infinite_pooled(output: Any) -> Any:
    output[1][1, 0] = float("-inf")
    return output


@pytest.mark.parametrize("after", [nan_in_second_image, infinite_pooled])
def test_features_that_are_not_finite_name_the_image(split: Split, cache: Path, after: Any) -> None:
    for store_dtype in ("float16", "bfloat16", "float32"):
        with pytest.raises(InputError, match=r"001\.png: the image tower gave features that are not finite"):
            open_features(FakeBackbone(after=after), split, cache=cache, store_dtype=store_dtype)
    assert stores(cache) == []


def test_features_too_large_for_float16(split: Split, cache: Path) -> None:
    backbone = FakeBackbone(after=lambda output: tuple(item * 1e6 for item in output))
    with pytest.raises(InputError, match=r"000\.png: a feature of size .* does not fit float16; set store_dtype to fl"):
        open_features(backbone, split, cache=cache)
    features = open_features(backbone, split, cache=cache, store_dtype="float32")
    assert float(features.batch(torch.arange(10)).patches.abs().max()) > 65504


@pytest.mark.parametrize(
    "after",
    [
        lambda output: output[0],
        lambda output: (output[0][:, 0], output[1]),
        lambda output: (output[0], output[1][:, :5]),
        lambda output: (output[0].transpose(1, 2), output[1]),
        lambda output: (output[0].int(), output[1]),
        lambda output: None,
    ],
)
def test_a_tower_that_breaks_the_protocol(split: Split, cache: Path, after: Any) -> None:
    with pytest.raises(
        InputError, match=r"backbone 'fake': encode_image must return float tensors \(patches \[B, M, D"
    ):
        open_features(FakeBackbone(after=after), split, cache=cache)
    assert stores(cache) == []


def test_the_number_of_patches_must_not_change(split: Split, cache: Path) -> None:
    backbone = FakeBackbone()
    backbone.after = lambda output: (output[0][:, : 5 - len(backbone.batches)], output[1])
    with pytest.raises(InputError, match=r"patches of shape \(4, 6\) first and \(3, 6\) later"):
        open_features(backbone, split, cache=cache, batch_size=4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 3, 8, 8)])
def test_preprocessing_that_breaks_the_protocol(split: Split, cache: Path, shape: tuple[int, ...]) -> None:
    backbone = FakeBackbone()
    backbone.preprocess = lambda image: torch.zeros(shape)
    with pytest.raises(InputError, match=r"preprocess must return a float tensor \[3, H, W\]; for .*000\.png"):
        open_features(backbone, split, cache=cache)


def test_preprocessing_to_several_sizes(split: Split, cache: Path) -> None:
    backbone = FakeBackbone()
    backbone.preprocess = lambda image: torch.zeros(3, image.height, 8)
    with pytest.raises(InputError, match=r"of one size for all images; it returned \(3, 10, 8\) and \(3, 11, 8\)"):
        open_features(backbone, split, cache=cache)


def test_an_error_in_preprocessing_tells_the_image(split: Split, cache: Path) -> None:
    backbone = FakeBackbone()
    inner = backbone.preprocess

    def preprocess(image: Image.Image) -> torch.Tensor:
        if image.size == (9, 11):
            raise ZeroDivisionError("a bug of the plug-in")
        return inner(image)

    backbone.preprocess = preprocess
    with pytest.raises(ZeroDivisionError) as raised:
        open_features(backbone, split, cache=cache)
    assert raised.value.__notes__ == [f"while preprocessing {split.files[1]}"]
