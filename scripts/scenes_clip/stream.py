"""Endless training images with what each patch shows and a caption; image i is the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from captions import CONCEPTS, caption
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fedmpt.data.datasets.scenes import CLASS_NAMES, Scene, SceneOptions, object_map, render, sample_scene
from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import SIDE_PX, Style

PATCH_PX = 16
GRID = SIDE_PX // PATCH_PX
WORLD_SEED = 20260324
"""Far from the seeds that people use: the model never sees an image of a data set it is later measured on."""
TRAINING_STYLES: tuple[Style, ...] = ("noto", "twemoji")
"""Fluent is left out, so that a federation has something to learn."""
TRAINING_TIES = 0.6
"""`spurious` of the training images: things come together as they do in the photos of the web, and CLIP's."""

_CAPTION_PURPOSE = 0xCA9710


@dataclass(frozen=True)
class Examples:
    """A batch. ``shares`` says how much of each patch shows each concept; ``present`` is 1 for classes in the image."""

    pixels: UInt8[Tensor, "B 3 H W"]
    shares: Float[Tensor, "B M concepts"]
    present: Float[Tensor, "B C"]
    captions: list[str]


class ExampleStream(IterableDataset[Examples]):
    """Batches ``first`` .. ``last`` - 1 of ``batch_size`` images, with the styles in turn."""

    def __init__(
        self,
        first: int,
        last: int,
        *,
        batch_size: int,
        styles: tuple[Style, ...] = TRAINING_STYLES,
        spurious: float = TRAINING_TIES,
    ) -> None:
        self._batches = range(first, last)
        self._batch_size = batch_size
        self._styles = styles
        self._spurious = spurious

    def __iter__(self) -> Iterator[Examples]:
        for number in self._batches:
            start = number * self._batch_size
            yield self.examples(range(start, start + self._batch_size))

    def examples(self, indices: range) -> Examples:
        scenes = [self.scene(index) for index in indices]
        return Examples(
            pixels=torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2).contiguous(),
            shares=torch.from_numpy(np.stack([patch_shares(scene) for scene in scenes])),
            present=torch.tensor([scene.labels for scene in scenes], dtype=torch.float32),
            captions=[
                caption(scene, Draws(_CAPTION_PURPOSE, index)) for index, scene in zip(indices, scenes, strict=True)
            ],
        )

    def scene(self, index: int) -> Scene:
        """Image ``index``; its style turns with the index."""
        style = self._styles[index % len(self._styles)]
        return sample_scene(SceneOptions(seed=WORLD_SEED, styles=(style,), spurious=self._spurious), "train", index)


def loader(stream: ExampleStream) -> DataLoader[Examples]:
    """Batches drawn by a second process while the first one trains."""
    return DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=8, persistent_workers=False)


def patch_shares(scene: Scene) -> Float[np.ndarray, "M concepts"]:
    """For every patch, row by row, the share of its pixels where each concept is on top."""
    names = [item.name for item in scene.objects] + [scene.background]  # The background's index is -1, as in the map.
    concept = np.array([CONCEPTS.index(name) for name in names])[object_map(scene.objects, scene.style)]
    patches = concept.reshape(GRID, PATCH_PX, GRID, PATCH_PX).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    rows = np.arange(len(patches))[:, None] * len(CONCEPTS)
    counts = np.bincount((rows + patches).ravel(), minlength=len(patches) * len(CONCEPTS))
    return (counts.reshape(len(patches), len(CONCEPTS)) / PATCH_PX**2).astype(np.float32)


assert CONCEPTS[: len(CLASS_NAMES)] == CLASS_NAMES
