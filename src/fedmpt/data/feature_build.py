"""Images through the frozen image tower into a feature store."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.data.ahead import map_ahead, progress_bar
from fedmpt.data.feature_files import SkippedRow, StoreWriter
from fedmpt.data.images import quiet_pillow, read_image
from fedmpt.types import Backbone, InputError


@dataclass(frozen=True)
class BuildOptions:
    """``device`` is where the tower is; ``num_workers`` threads decode; ``store_dtype`` as NumPy calls it."""

    store_dtype: str
    batch_size: int
    device: str
    skip_corrupt: bool
    progress: bool
    num_workers: int


def build_store(folder: Path, backbone: Backbone, files: Sequence[Path], *, key: str, options: BuildOptions) -> None:
    """Compute the features of ``files`` and write a finished store into ``folder``, which exists and is empty.

    Batches are blocks of the list in its order, so the same images and model give the same bytes again.

    Raises:
        InputError: if an image is corrupt (and not to be skipped) or all are, the backbone breaks its protocol,
            features are not finite or do not fit the number format, or the disk is full.
    """
    skipped: list[SkippedRow] = []
    with (
        quiet_pillow(),
        closing(_LazyWriter(folder, rows=len(files), dtype=options.store_dtype)) as write,
        closing(_blocks(backbone, files, options)) as blocks,
        progress_bar("computing image features", len(files), enabled=options.progress, is_long=True) as advance,
    ):
        for start, block in blocks:
            good = [start + index for index, item in enumerate(block) if isinstance(item, Tensor)]
            corrupt = [(start + index, item) for index, item in enumerate(block) if isinstance(item, InputError)]
            if corrupt and not options.skip_corrupt:
                raise InputError(f"{corrupt[0][1]}; or leave such images out with --skip-corrupt") from corrupt[0][1]
            skipped += [_skipped(row, files[row], error) for row, error in corrupt]
            if good:
                pixels = _stack(backbone, [item for item in block if isinstance(item, Tensor)])
                patches, pooled = _encode(backbone, pixels.to(options.device))
                names = [files[row] for row in good]
                write(good, _stored(patches, names, options.store_dtype), _stored(pooled, names, options.store_dtype))
            advance(len(block))
        if len(skipped) == len(files):
            raise InputError(
                f"none of the {len(files)} images could be read; the first, {files[0]}: {skipped[0].reason}"
            )
        write.finish(key=key, backbone=backbone.name, skipped=skipped)


def _skipped(row: int, path: Path, error: InputError) -> SkippedRow:
    return SkippedRow(row, str(path), str(error).removeprefix(f"{path}: "))


class _LazyWriter:
    """A `StoreWriter` opened by the first features, since only they tell the number of patches and the width."""

    def __init__(self, folder: Path, *, rows: int, dtype: str) -> None:
        self._open = partial(StoreWriter, folder, rows=rows, dtype=dtype)
        self._writer: StoreWriter | None = None
        self._shape: tuple[int, ...] = ()

    def __call__(self, rows: Sequence[int], patches: np.ndarray, pooled: np.ndarray) -> None:
        if self._writer is None:
            self._shape = patches.shape[1:]
            self._writer = self._open(num_patches=self._shape[0], width=self._shape[1])
        if patches.shape[1:] != self._shape:
            raise InputError(
                f"encode_image gave patches of shape {self._shape} first and {patches.shape[1:]} later; the number of "
                "patches and their width must be the same for all images"
            )
        self._writer.write(rows, patches, pooled)

    def finish(self, *, key: str, backbone: str, skipped: Sequence[SkippedRow]) -> None:
        assert self._writer is not None
        self._writer.finish(key=key, backbone=backbone, skipped=skipped)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _blocks(
    backbone: Backbone, files: Sequence[Path], options: BuildOptions
) -> Generator[tuple[int, list[Tensor | InputError]], None, None]:
    """Blocks of the list with their first row, decoded ahead: one block is in the tower while the next is read."""
    prepare = partial(_prepare, backbone)
    ahead = 2 * options.batch_size
    stream = map_ahead(prepare, files, num_workers=options.num_workers, ahead=ahead)
    with closing(stream):
        for start in range(0, len(files), options.batch_size):
            yield start, list(islice(stream, options.batch_size))


def _prepare(backbone: Backbone, path: Path) -> Float[Tensor, "3 H W"] | InputError:
    try:
        image = read_image(path)
    except InputError as error:
        return error
    try:
        pixels = backbone.preprocess(image)
    except Exception as error:
        error.add_note(f"while preprocessing {path}")
        raise
    if not (isinstance(pixels, Tensor) and pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.is_floating_point()):
        raise InputError(
            f"backbone {backbone.name!r}: preprocess must return a float tensor [3, H, W]; for {path} it returned "
            f"{_describe(pixels)}"
        )
    return pixels


def _stack(backbone: Backbone, pixels: Sequence[Tensor]) -> Float[Tensor, "B 3 H W"]:
    shapes = {tuple(item.shape) for item in pixels}
    if len(shapes) > 1:
        raise InputError(
            f"backbone {backbone.name!r}: preprocess must return [3, H, W] of one size for all images; "
            f"it returned {' and '.join(map(str, sorted(shapes)))}"
        )
    return torch.stack(list(pixels))


def _encode(
    backbone: Backbone, pixels: Float[Tensor, "B 3 H W"]
) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
    with torch.no_grad():
        output = backbone.encode_image(pixels)
    tensors = isinstance(output, tuple) and len(output) == 2 and all(isinstance(item, Tensor) for item in output)
    if not tensors or not _is_protocol_shape(*output, num_images=len(pixels)):
        given = ", ".join(map(_describe, output)) if isinstance(output, tuple) else _describe(output)
        raise InputError(
            f"backbone {backbone.name!r}: encode_image must return float tensors (patches [B, M, D], pooled [B, D]) "
            f"for pixels [B, 3, H, W]; for B = {len(pixels)} it returned {given}"
        )
    patches, pooled = output
    return patches.float().cpu(), pooled.float().cpu()


def _is_protocol_shape(patches: Tensor, pooled: Tensor, *, num_images: int) -> bool:
    return (
        patches.is_floating_point()
        and pooled.is_floating_point()
        and patches.ndim == 3
        and patches.numel() > 0
        and patches.shape[0] == num_images
        and pooled.shape == (num_images, patches.shape[2])
    )


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _stored(features: Float[Tensor, "B *rest"], files: Sequence[Path], dtype: str) -> Float[np.ndarray, "B *rest"]:
    """Features in the number format of the store, checked image by image."""
    largest = features.abs().flatten(1).amax(1)  # NaN wins in amax.
    for value, path in zip(largest.tolist(), files, strict=True):
        if not np.isfinite(value):
            raise InputError(f"{path}: the image tower gave features that are not finite (NaN or inf); check the model")
        if value > float(np.finfo(dtype).max):
            raise InputError(f"{path}: a feature of size {value:.4g} does not fit {dtype}; set store_dtype to float32")
    return features.numpy().astype(dtype)
