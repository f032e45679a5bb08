"""Features of a frozen image tower: computed once per image, read from the disk as they are needed, never stale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from fedmpt.backbone.views import ImageView, tokens_of
from fedmpt.data.features.build import Build
from fedmpt.data.features.files import Store
from fedmpt.data.features.fingerprint import fingerprint
from fedmpt.data.features.selection import Selection, parts_of, select
from fedmpt.types import Backbone, Batch, InputError, Split

__all__ = ["FeatureSet", "fingerprint", "open_features"]

StoreDtype = Literal["float16", "bfloat16", "float32"]
"""Number formats of stored features. bfloat16 has the range of float32 and 8 bits of each number, float16 has 11."""

# On a CPU activations of larger batches are mapped and cleared anew for every layer, which costs more than they save.
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 4, 32


@dataclass(frozen=True, eq=False)
class StoredView:
    """Tokens of all images of a split, in the rows of their features; see `fedmpt.backbone.views`."""

    store: Store | Selection
    num_streams: int

    def read(self, rows: Int64[Tensor, "B"]) -> Float[Tensor, "B S T V"]:
        others, first = self.store.read(rows.numpy())
        return tokens_of(others.float(), first.float(), num_streams=self.num_streams)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features and labels of images, without those left out as corrupt. A `subset` shares the store and costs nothing.

    ``rows`` are the rows of the images in ``store``. ``views`` are what a method reads beside features, by its names.
    """

    store: Store | Selection
    split: Split
    rows: Int64[Tensor, "n"]
    labels: Int8[Tensor, "n C"]
    views: Mapping[str, StoredView] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows.shape[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """The image files, in the order of ``labels``."""
        return tuple(self.split.files[row] for row in self.rows.tolist())

    @property
    def skipped(self) -> tuple[Path, ...]:
        """Images of the whole split that are corrupt and have no features."""
        return tuple(self.split.files[skipped["row"]] for skipped in self.store.facts.skipped)

    def batch(self, rows: Int64[Tensor, "B"], *, device: str | torch.device = "cpu") -> Batch:
        """The images ``rows`` of this set (0 .. len - 1, in any order, repeats allowed), features in fp32."""
        patches, pooled = self.store.read(self.rows[rows].numpy())
        return Batch(
            patches=patches.to(device).float(),
            pooled=pooled.to(device).float(),
            labels=self.labels[rows].to(device),
            views={name: view.read(self.rows[rows]).to(device) for name, view in self.views.items()},
        )

    def subset(self, rows: Int64[Tensor, "B"]) -> FeatureSet:
        """Only the images ``rows`` of this set, in that order; features stay where they are."""
        return replace(self, rows=self.rows[rows], labels=self.labels[rows])

    def with_views(self, names: Collection[str]) -> FeatureSet:
        """The same images, with only these of the views."""
        return replace(self, views={name: view for name, view in self.views.items() if name in names})


def open_features(
    backbone: Backbone,
    split: Split,
    *,
    cache: Path,
    store_dtype: StoreDtype = "float16",
    batch_size: int | None = None,
    device: str = "cpu",
    skip_corrupt: bool = False,
    progress: bool = True,
    data: str = "",
    views: Mapping[str, ImageView] | None = None,
) -> FeatureSet:
    """Features of ``split``, from ``cache`` if model, preprocessing and image bytes are what they were.

    Otherwise they are computed, ``batch_size`` images at a time (as suits the device unless given) on ``device``,
    where the backbone must be. A build that was interrupted goes on where it was; of several processes, one computes
    and the others wait. ``skip_corrupt`` leaves out images that cannot be decoded. ``data`` is how the user named the
    data set, for `fedmpt features list`. ``views`` are computed and stored in the same way. A split with a ``pool``
    shares the features that are stored of the pool's splits.

    Raises:
        InputError: if an option is out of range, an image is missing or corrupt (and not to be skipped) or all
            are, the backbone breaks its protocol, features are not finite or too large for the number format, or the
            cache cannot be written or is too small.
    """
    assert split.labels.shape[0] == len(split)
    if batch_size is None:
        batch_size = CPU_BATCH_SIZE if torch.device(device).type == "cpu" else GPU_BATCH_SIZE
    if store_dtype not in get_args(StoreDtype):
        raise InputError(f"store_dtype is {store_dtype!r}; it may be: {', '.join(get_args(StoreDtype))}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if len(split) == 0:
        raise InputError(f"split {split.name!r} has no images")
    parts = parts_of(split)
    builds = [
        Build(backbone, part, cache, store_dtype, batch_size, device, skip_corrupt, progress, data) for part in parts
    ]

    def opened(tower: Backbone) -> Store | Selection:
        return select([replace(build, backbone=tower).open() for build in builds], parts, split)

    store = opened(backbone)
    stored_views = {
        name: StoredView(opened(view.of(backbone)), view.num_streams) for name, view in (views or {}).items()
    }
    kept = torch.ones(len(split), dtype=torch.bool)
    kept[[entry["row"] for entry in store.facts.skipped]] = False
    rows = kept.nonzero().flatten()
    return FeatureSet(store, split, rows, split.labels[rows], stored_views)
