"""Images through the frozen image tower into a feature store."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
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

from fedmpt.data.features.files import BUILD_LOG, DamagedStoreError, Skipped, Store, StoreFacts, read_store, writing
from fedmpt.data.features.fingerprint import common_folder, store_key
from fedmpt.data.features.writer import StoreWriter
from fedmpt.data.images import quiet_pillow, read_image
from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.files import building, publish
from fedmpt.types import Backbone, InputError, Split

DESCRIPTION = "computing image features"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Build:
    """The features of ``split``, to be found in ``cache`` or made; see `fedmpt.data.features.store.open_features`."""

    backbone: Backbone
    split: Split
    cache: Path
    store_dtype: str
    batch_size: int
    device: str
    skip_corrupt: bool
    progress: bool
    data: str

    def open(self) -> Store:
        """The store, computed where there is none."""
        files, dtype = self.split.files, self.store_dtype
        key = store_key(self.backbone, files, store_dtype=dtype, progress=self.progress, cache=self.cache)
        folder, store = self.cache / "features" / key, None
        with contextlib.suppress(DamagedStoreError):
            store = read_store(folder)
        store = store or self._make(folder)
        with contextlib.suppress(OSError):  # When it was last used; a cache may be read-only.
            os.utime(folder / "store.json")
        self._check_skipped(store.facts.skipped)  # It may come from a run that did skip.
        return store

    def _make(self, folder: Path) -> Store:
        with contextlib.ExitStack() as stack:
            with writing(folder.parent):
                part = stack.enter_context(building(folder, on_wait=self._say_waiting))
            store = None
            try:
                store = read_store(folder)  # Of somebody who was waited for.
            except DamagedStoreError as damage:
                _log.warning("%s is damaged (%s); its features are computed again", folder, damage)
            try:
                if store is None:
                    self._compute(part, folder.name)
                    with writing(folder):
                        publish(part, folder)
                        (folder / BUILD_LOG).unlink()
                    store = read_store(folder)
            finally:
                if not (part / BUILD_LOG).exists():
                    shutil.rmtree(part, ignore_errors=True)
        assert store is not None
        return store

    def _compute(self, part: Path, key: str) -> None:
        """Make a finished store of the folder ``part``, from what is there of it already.

        Batches are blocks of the list in its order, so the same images and model give the same bytes again, in one go
        or in several.
        """
        files = self.split.files
        origin = {"data": self.data, "split": self.split.name, "folder": common_folder(files)}
        plan = StoreFacts(key, self.backbone.name, len(files), 0, 0, self.store_dtype, made_for=origin)
        with quiet_pillow(), closing(StoreWriter(part, plan, say=self._say)) as writer:
            writer.resume(progress=self.progress)
            self._check_skipped(writer.skipped)
            done = writer.num_done
            bar = progress_bar(DESCRIPTION, len(files), num_done=done, enabled=self.progress, is_long=True)
            # One block is in the tower while the next is read.
            ahead = 2 * self.batch_size
            stream = map_ahead(partial(_prepare, self.backbone), islice(files, done, None), ahead=ahead)
            with closing(stream), bar as advance:
                while block := list(islice(stream, self.batch_size)):
                    self._compute_block(writer, block)
                    advance(len(block))
            if len(writer.skipped) == len(files):
                reason = writer.skipped[0]["reason"]
                raise InputError(f"none of the {len(files)} images could be read; the first, {files[0]}: {reason}")
            writer.finish()

    def _compute_block(self, writer: StoreWriter, block: Sequence[Tensor | InputError]) -> None:
        """``block`` are the next of the images, as `_prepare` gives them."""
        stop = writer.num_done + len(block)
        read: list[tuple[Path, Tensor]] = []
        skipped: list[Skipped] = []
        for row, item in enumerate(block, writer.num_done):
            file = self.split.files[row]
            if isinstance(item, Tensor):
                read.append((file, item))
            else:
                skipped.append({"row": row, "file": str(file), "reason": str(item).removeprefix(f"{file}: ")})
        self._check_skipped(skipped)
        features: list[Shaped[np.ndarray, "B ..."]] = []
        if read:
            files, pixels = zip(*read, strict=True)
            encoded = _encode(self.backbone, pixels, self.device)
            features = [_stored(values, files, self.store_dtype) for values in encoded]
        writer.write(stop, features, skipped)

    def _check_skipped(self, skipped: Sequence[Skipped]) -> None:
        if skipped and not self.skip_corrupt:
            file, reason = self.split.files[skipped[0]["row"]], skipped[0]["reason"]
            raise InputError(f"{file}: {reason}; or leave such images out with --skip-corrupt")

    def _say(self, what: str) -> None:
        if self.progress:
            print(f"{DESCRIPTION} ({what})", file=sys.stderr)

    def _say_waiting(self, part: Path) -> None:
        self._say(f"waiting for another process, which computes them in {part}; 'fedmpt features list' tells how far")


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
