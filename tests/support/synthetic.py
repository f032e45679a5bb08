"""Feature sets in memory, for tests that need no image, no image tower and no disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedmpt.data.features.files import Store, StoreFacts
from fedmpt.data.features.store import FeatureSet, StoredView
from fedmpt.types import Split


def feature_set(patches: Tensor, labels: Tensor, pooled: Tensor | None = None) -> FeatureSet:
    """Patches [images, M, D] and labels [images, C] as a feature set; pooled features are the patches' mean."""
    num_images, num_patches, width = patches.shape
    facts = StoreFacts("key", "synthetic", num_images, num_patches, width, "float32", ())
    pooled = patches.mean(1) if pooled is None else pooled
    files = tuple(Path(f"{number}.jpg") for number in range(num_images))
    split = Split("train", files, labels.to(torch.int8))
    return FeatureSet(Store(facts, patches.numpy(), pooled.numpy()), split, torch.arange(num_images), split.labels)


def with_views(features: FeatureSet, tokens: Mapping[str, Tensor]) -> FeatureSet:
    """A feature set whose images also have these streams of tokens [images, S, T, V], by name."""
    views = {}
    for name, streams in tokens.items():
        first, others = streams.flatten(1, 2)[:, 0], streams.flatten(1, 2)[:, 1:]
        facts = dataclasses.replace(features.store.facts, num_patches=others.shape[1], width=others.shape[2])
        views[name] = StoredView(Store(facts, others.numpy(), first.numpy()), streams.shape[1])
    return dataclasses.replace(features, views=views)


def separable(num_images: int, *, num_classes: int, width: int, num_patches: int = 6, seed: int = 0) -> FeatureSet:
    """Images of one or two classes. Every patch shows one of them: its class's direction, and some noise.

    The directions depend on the sizes alone, so sets of other seeds are of the same world. Every class occurs.
    """
    directions = torch.linalg.qr(torch.randn(width, num_classes, generator=torch.Generator().manual_seed(99)))[0].T
    generator = torch.Generator().manual_seed(seed)
    first = torch.arange(num_images) % num_classes
    second = torch.randint(num_classes, (num_images,), generator=generator)
    is_second = torch.rand(num_images, num_patches, generator=generator) < 0.5
    is_second[:, :2] = torch.tensor([False, True])
    shown = torch.where(is_second, second[:, None], first[:, None])
    noise = torch.randn(num_images, num_patches, width, generator=generator)
    labels = torch.zeros(num_images, num_classes, dtype=torch.int8)
    labels[torch.arange(num_images), first] = labels[torch.arange(num_images), second] = 1
    return feature_set(3 * (directions[shown] + 0.1 * noise), labels)
