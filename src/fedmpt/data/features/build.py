"""Images through the frozen image tower into a feature store."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fedmpt.data.features.files import Origin, SkippedRow, StoreFacts
from fedmpt.data.features.writer import StoreWriter
from fedmpt.data.images import quiet_pillow, read_image
from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.types import Backbone, InputError

DESCRIPTION = "computing image features"


@dataclass(frozen=True)
class BuildOptions:
    """``device`` is where the tower is; ``num_workers`` threads decode; ``store_dtype`` as torch calls it."""

    store_dtype: str
    batch_size: int
    device: str
    skip_corrupt: bool
    progress: bool
    num_workers: int

    def say(self, what: str) -> None:
        """A line about the build, for whoever waits for it."""
        if self.progress:
            print(f"{DESCRIPTION} ({what})", file=sys.stderr)

    def say_waiting(self, part: Path) -> None:
        self.say(f"waiting for another process, which computes them in {part}; 'fedmpt features list' tells how far")


def build_store(
    folder: Path, backbone: Backbone, files: Sequence[Path], *, key: str, made_for: Origin, options: BuildOptions
) -> None:
    """Compute the features of ``files`` and write a finished store into ``folder``, from what is there of it already.

    Batches are blocks of the list in its order, so the same images and model give the same bytes again, in one go or
    in several.

    Raises:
        InputError: if an image is corrupt (and not to be skipped) or all are, the backbone breaks its protocol,
            features are not finite or do not fit the number format, or the disk is full or too small.
    """
    plan = StoreFacts(key, backbone.name, len(files), 0, 0, options.store_dtype, (), made_for=made_for)
    with quiet_pillow(), closing(StoreWriter(folder, plan, on_size=options.say)) as writer:
        writer.resume(progress=options.progress)
        if writer.skipped and not options.skip_corrupt:
            raise corrupt_image(files, writer.skipped[0])
        with (
            closing(_blocks(backbone, files, options, first=writer.num_done)) as blocks,
            progress_bar(
                DESCRIPTION, len(files), num_done=writer.num_done, enabled=options.progress, is_long=True
            ) as advance,
        ):
            for start, block in blocks:
                _build_block(writer, backbone, files, start, block, options)
                advance(len(block))
        if len(writer.skipped) == len(files):
            first = writer.skipped[0]
            raise InputError(f"none of the {len(files)} images could be read; the first, {files[0]}: {first.reason}")
        writer.finish()


def _build_block(
    writer: StoreWriter,
    backbone: Backbone,
    files: Sequence[Path],
    start: int,
    block: Sequence[Tensor | InputError],
    options: BuildOptions,
) -> None:
    """One block, which begins at row ``start``, from decoded images to the disk."""
    read = {row: item for row, item in enumerate(block, start) if isinstance(item, Tensor)}
    skipped = [
        SkippedRow(row, str(files[row]), str(item).removeprefix(f"{files[row]}: "))
        for row, item in enumerate(block, start)
        if isinstance(item, InputError)
    ]
    if skipped and not options.skip_corrupt:
        raise corrupt_image(files, skipped[0])
    if read:
        names = [files[row] for row in read]
        pixels = _stack(backbone, list(read.values())).to(options.device)
        patches, pooled = (_stored(values, names, options.store_dtype) for values in _encode(backbone, pixels))
        writer.write(list(read), patches, pooled)
    writer.end_block(start + len(block), skipped)


def corrupt_image(files: Sequence[Path], skipped: SkippedRow) -> InputError:
    """The error for an image that cannot be read where nobody asked to leave such images out."""
    return InputError(f"{files[skipped.row]}: {skipped.reason}; or leave such images out with --skip-corrupt")


def _blocks(
    backbone: Backbone, files: Sequence[Path], options: BuildOptions, *, first: int
) -> Generator[tuple[int, list[Tensor | InputError]], None, None]:
    """Blocks of the list with their first row, decoded ahead: one block is in the tower while the next is read."""
    prepare = partial(_prepare, backbone)
    ahead = 2 * options.batch_size
    stream = map_ahead(prepare, islice(files, first, None), num_workers=options.num_workers, ahead=ahead)
    with closing(stream):
        for start in range(first, len(files), options.batch_size):
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
    if not _is_protocol(output, num_images=len(pixels)):
        given = ", ".join(map(_describe, output)) if isinstance(output, tuple) else _describe(output)
        raise InputError(
            f"backbone {backbone.name!r}: encode_image must return float tensors (patches [B, M, D], pooled [B, D]) "
            f"for pixels [B, 3, H, W]; for B = {len(pixels)} it returned {given}"
        )
    patches, pooled = output
    return patches.float().cpu(), pooled.float().cpu()


def _is_protocol(output: object, *, num_images: int) -> bool:
    if not (isinstance(output, tuple) and len(output) == 2 and all(isinstance(item, Tensor) for item in output)):
        return False
    patches, pooled = output
    shapes_fit = patches.ndim == 3 and pooled.shape == (num_images, patches.shape[2]) and len(patches) == num_images
    return shapes_fit and patches.is_floating_point() and pooled.is_floating_point()


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _stored(features: Float[Tensor, "B *rest"], files: Sequence[Path], dtype: str) -> Shaped[np.ndarray, "B *rest"]:
    """Features in the number format of the store, checked image by image; of bfloat16 the bits."""
    format_ = getattr(torch, dtype)
    limit = torch.finfo(format_).max
    largest = features.abs().flatten(1).amax(1)  # NaN wins in amax.
    for value, path in zip(largest.tolist(), files, strict=True):
        if not np.isfinite(value):
            raise InputError(f"{path}: the image tower gave features that are not finite (NaN or inf); check the model")
        if value > limit:
            raise InputError(f"{path}: a feature of size {value:.4g} does not fit {dtype}; set store_dtype to float32")
    stored = features.to(format_)
    return (stored.view(torch.uint16) if format_ == torch.bfloat16 else stored).numpy()
