"""A backbone small enough to run in milliseconds, with the seams that tests of the feature store pull at."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fedmpt.data.features.store import FeatureSet
from fedmpt.data.images import read_image
from fedmpt.types import Split

Encode = Callable[[Tensor], Any]


class FakeBackbone:
    """8 x 8 pixels to 4 patches of width 6. ``batches`` keeps the size of every batch that was encoded.

    ``before`` is called with the pixels before each batch, ``after`` may replace what comes out.
    """

    name = "fake"
    image_size = 8
    logit_scale = 100.0
    tokenizer = None

    def __init__(self, *, before: Encode | None = None, after: Callable[[Any], Any] | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self._conv = nn.Conv2d(3, 6, kernel_size=4, stride=4)
        for parameter in self._conv.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.text_model = nn.Linear(2, 2)
        nn.init.ones_(self.text_model.weight)
        nn.init.zeros_(self.text_model.bias)
        self.brightness = 1.0
        self.batches: list[int] = []
        self.before, self.after = before, after

    def preprocess(self, image: Image.Image) -> Tensor:
        squeezed = np.array(image.convert("RGB").resize((8, 8)))
        return torch.from_numpy(squeezed).permute(2, 0, 1).float() / 255 * self.brightness

    def encode_image(self, pixels: Tensor) -> Any:
        self.batches.append(len(pixels))
        if self.before:
            self.before(pixels)
        patches = self._conv(pixels).flatten(2).transpose(1, 2)
        output = patches, patches.mean(1)
        return self.after(output) if self.after else output


def write_split(folder: Path, num_images: int, *, num_classes: int = 3) -> Split:
    """Noise pictures of several sizes as PNG; labels that differ from row to row."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    files = []
    for number in range(num_images):
        pixels = random.integers(0, 256, (10 + number % 3, 9, 3), dtype=np.uint8)
        files.append(folder / f"{number:03d}.png")
        Image.fromarray(pixels).save(files[-1])
    labels = torch.tensor([[(number >> bit) & 1 for bit in range(num_classes)] for number in range(num_images)])
    return Split("train", tuple(files), labels.to(torch.int8))


def stores(cache: Path) -> list[str]:
    """Names of the finished stores in a cache of features; beside them only unfinished ones may lie."""
    names = sorted(folder.name for folder in (cache / "features").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{64}(\.part)?", name) for name in names)
    return [name for name in names if not name.endswith(".part")]


def direct_features(backbone: FakeBackbone, files: tuple[Path, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Without any store, all images in one batch."""
    with torch.no_grad():
        return backbone.encode_image(torch.stack([backbone.preprocess(read_image(file)) for file in files]))


def all_rows(features: FeatureSet) -> torch.Tensor:
    return torch.arange(len(features))
