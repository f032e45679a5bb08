"""Images through the frozen image tower into a feature store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    """``device`` is where the tower is; ``store_dtype`` as torch calls it."""

    store_dtype: str
    batch_size: int
    device: str
    skip_corrupt: bool
    progress: bool

    def say(self, what: str) -> None:
        """A line about the build, for whoever waits for it."""
        if self.progress:
            print(f"{DESCRIPTION} ({what})", file=sys.stderr)


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
    plan = StoreFacts(key, backbone.name, len(files), 0, 0, options.store_dtype, made_for=made_for)
    with quiet_pillow(), closing(StoreWriter(folder, plan, say=options.say)) as writer:
        writer.resume(progress=options.progress)
        check_skipped(files, writer.skipped, options)
        done, enabled = writer.num_done, options.progress
        bar = progress_bar(DESCRIPTION, len(files), num_done=done, enabled=enabled, is_long=True)
        # One block is in the tower while the next is read.
        stream = map_ahead(partial(_prepare, backbone), islice(files, done, None), ahead=2 * options.batch_size)
        with closing(stream), bar as advance:
            while block := list(islice(stream, options.batch_size)):
                _build_block(writer, backbone, files, block, options)
                advance(len(block))
        if len(writer.skipped) == len(files):
            reason = writer.skipped[0]["reason"]
            raise InputError(f"none of the {len(files)} images could be read; the first, {files[0]}: {reason}")
        writer.finish()


def _build_block(
    writer: StoreWriter,
    backbone: Backbone,
    files: Sequence[Path],
    block: Sequence[Tensor | InputError],
    options: BuildOptions,
) -> None:
    """``block`` are the next of the files, as `_prepare` gives them."""
    stop = writer.num_done + len(block)
    read: list[tuple[Path, Tensor]] = []
    skipped: list[SkippedRow] = []
    for row, item in enumerate(block, writer.num_done):
        if isinstance(item, Tensor):
            read.append((files[row], item))
        else:
            reason = str(item).removeprefix(f"{files[row]}: ")
            skipped.append(SkippedRow(row=row, file=str(files[row]), reason=reason))
    check_skipped(files, skipped, options)
    features: list[Shaped[np.ndarray, "B ..."]] = []
    if read:
        names, pixels = zip(*read, strict=True)
        features = [_stored(values, names, options.store_dtype) for values in _encode(backbone, pixels, options.device)]
    writer.write(stop, features, skipped)


def check_skipped(files: Sequence[Path], skipped: Sequence[SkippedRow], options: BuildOptions) -> None:
    """Raises InputError if an image cannot be read and nobody asked to leave such images out."""
    if skipped and not options.skip_corrupt:
        first = files[skipped[0]["row"]]
        raise InputError(f"{first}: {skipped[0]['reason']}; or leave such images out with --skip-corrupt")


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


def _encode(
    backbone: Backbone, images: Sequence[Float[Tensor, "3 ..."]], device: str
) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
    shapes = sorted({tuple(item.shape) for item in images})
    if len(shapes) > 1:
        raise InputError(
            f"backbone {backbone.name!r}: preprocess must return [3, H, W] of one size for all images; "
            f"it returned {' and '.join(map(str, shapes))}"
        )
    pixels = torch.stack(list(images)).to(device)
    with torch.no_grad():
        output = backbone.encode_image(pixels)
    match output:
        case (Tensor(ndim=3) as patches, Tensor() as pooled) if (
            pooled.shape == (len(pixels), patches.shape[2])
            and len(patches) == len(pixels)
            and patches.is_floating_point()
            and pooled.is_floating_point()
        ):
            return patches.float().cpu(), pooled.float().cpu()
    given = ", ".join(map(_describe, output)) if isinstance(output, tuple) else _describe(output)
    raise InputError(
        f"backbone {backbone.name!r}: encode_image must return float tensors (patches [B, M, D], pooled [B, D]) "
        f"for pixels [B, 3, H, W]; for B = {len(pixels)} it returned {given}"
    )


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
