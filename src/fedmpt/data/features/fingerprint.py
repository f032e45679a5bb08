"""What features depend on, as hashes: the frozen model, its preprocessing, the bytes of the images."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.files import write_atomically
from fedmpt.types import Backbone, InputError

INDEX_FORMAT = 1

# Clocks of file systems tick slowly: up to two seconds on FAT. A file that was written within this time before it was
# read may be written again without its times telling.
GRANULARITY_NS = 2_000_000_000

# Files that one thread looks after at a time: a task for each file would cost more than asking the system about it.
CHUNK = 32

Entry = list[Any]
"""``[size, mtime_ns, ctime_ns, inode, sha256]``: all but the hash stay while a file's bytes do.

``ctime_ns`` tells of a write after which somebody set the time of change back.
"""


def fingerprint(backbone: Backbone) -> str:
    """Hex SHA-256 of the image side: changes with the model's name, image size, preprocessing or any of its weights.

    Weights are the state dicts of the modules among the backbone's attributes, but for those of the text model; where
    there is no other, what ``encode_image`` makes of a fixed picture stands for the image tower. If the backbone has
    a string ``fingerprint`` of its own, which must change with its image tower, that stands for name and weights.
    """
    digest = hashlib.sha256()
    probe = backbone.preprocess(_probe())
    _add_value(digest, "preprocess", probe)
    own = getattr(backbone, "fingerprint", None)
    if isinstance(own, str):
        _add(digest, "own", own.encode())
        return digest.hexdigest()
    _add(digest, "facts", f"{backbone.name}/{backbone.image_size}".encode())
    modules = _modules(backbone)
    text = {id(value) for value in backbone.text_model.state_dict(keep_vars=True).values()}
    for path, module in modules:
        for name, value in sorted(module.state_dict(keep_vars=True).items()):
            if id(value) not in text:
                _add_value(digest, f"{path}.{name}", value)
    if all(module is backbone.text_model for _, module in modules):
        parameters = (parameter for _, module in modules for parameter in module.parameters())
        device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        with torch.no_grad():
            for tensor in backbone.encode_image(probe[None].to(device)):
                _add_value(digest, "encode_image", tensor)
    return digest.hexdigest()


def text_fingerprint(backbone: Backbone, class_names: Sequence[str]) -> str:
    """Hex SHA-256 of the text side: the text model's weights, the logit scale and the class names' tokens."""
    digest = hashlib.sha256()
    _add(digest, "logit scale", repr(backbone.logit_scale).encode())
    tokens = [list(backbone.tokenizer(name, add_special_tokens=False)["input_ids"]) for name in class_names]
    _add(digest, "tokens", json.dumps(tokens).encode())
    for name, value in sorted(backbone.text_model.state_dict().items()):
        _add_value(digest, name, value)
    return digest.hexdigest()


def store_key(
    backbone: Backbone, files: Sequence[Path], *, store_dtype: str, progress: bool, cache: Path | None = None
) -> str:
    """Hex SHA-256 over model, number format and the bytes of all images in order; names and folders don't count.

    The source file of a backbone that a user wrote counts too: its code may change what features are. ``cache`` keeps
    the hashes of images. Raises InputError if one cannot be read.
    """
    digest = hashlib.sha256()
    _add(digest, "store", json.dumps([fingerprint(backbone), store_dtype, len(files)]).encode())
    _add(digest, "source", _source(backbone))
    for image_hash in image_hashes(files, cache=cache, progress=progress):
        digest.update(image_hash)
    return digest.hexdigest()


def image_hashes(files: Sequence[Path], *, cache: Path | None, progress: bool) -> list[bytes]:
    """SHA-256 of the bytes of each file, in order.

    With a ``cache``, hashes are kept there in ``image_hashes``, one file for each folder of images, and used for files
    whose size, times and inode are what they were. A cache that cannot be read or written is done without.

    Raises:
        InputError: if a file cannot be read.
    """
    root = common_folder(files)
    index = cache / "image_hashes" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json" if cache else None
    known: dict[str, Entry] = {}  # By paths without the root.
    if index:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            words = json.loads(index.read_bytes())
            entries = words["images"].items() if words["format"] == INDEX_FORMAT else ()
            known = {name: entry for name, entry in entries if len(entry) == 5 and bytes.fromhex(entry[4])}
    names = [os.path.abspath(file).removeprefix(root) for file in files]

    def look(chunk: slice) -> list[Entry]:
        return [_hash(file, known.get(name)) for file, name in zip(files[chunk], names[chunk], strict=True)]

    found: list[Entry] = []
    with progress_bar("looking for changed images", len(files), enabled=progress) as advance:
        for chunk in map_ahead(look, [slice(at, at + CHUNK) for at in range(0, len(files), CHUNK)], ahead=32):
            found += chunk
            advance(len(chunk))
    fresh = dict(zip(names, found, strict=True))
    if index and any(known.get(name) != entry for name, entry in fresh.items()):
        others = {name: entry for name, entry in known.items() if name not in fresh and os.path.exists(root + name)}
        with contextlib.suppress(OSError):
            index.parent.mkdir(parents=True, exist_ok=True)
            words = {"format": INDEX_FORMAT, "root": root, "images": {**others, **fresh}}
            write_atomically(index, json.dumps(words).encode())
    return [bytes.fromhex(entry[-1]) for entry in found]


def _hash(path: Path, known: Entry | None) -> Entry:
    try:
        status = path.stat()  # Before it is read: a change meanwhile makes it another.
        signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known and known[:4] == signature:
            return known
        began = time.time_ns()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}; check the data set's folder") from error
    if max(status.st_mtime_ns, status.st_ctime_ns) + GRANULARITY_NS >= began:
        signature[0] = -1  # Times may not tell of its next change, so it is read again the next time.
    return [*signature, digest]


def common_folder(files: Sequence[Path]) -> str:
    """The absolute path of the folder that holds all files, itself or in folders below; empty if there is none."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # On several drives.
        return ""


def _source(backbone: Backbone) -> bytes:
    """The file with the class of a plug-in; nothing for this package's own classes, and where there is no file."""
    plugin: Any = backbone
    while type(plugin).__module__.startswith("fedmpt."):  # Wrappers may lie in each other: a view of a moved plug-in.
        plugin = getattr(plugin, "plugin", None)
    with contextlib.suppress(OSError, TypeError):
        return Path(inspect.getfile(type(plugin))).read_bytes()
    return b""


def _modules(backbone: Backbone) -> list[tuple[str, nn.Module]]:
    """Modules among the attributes, without those that are part of another one."""
    if isinstance(backbone, nn.Module):
        return [("", backbone)]
    found = {id(module): (name, module) for name, module in _modules_in(_attributes(backbone))}
    parts = {id(part) for _, module in found.values() for part in module.modules() if part is not module}
    return [found[key] for key in found if key not in parts]


def _modules_in(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, nn.Module):
            yield name, value
        elif isinstance(value, (list, tuple)):
            yield from _modules_in(dict(enumerate(value)), f"{name}.")
        elif isinstance(value, dict):
            yield from _modules_in(value, f"{name}.")
        elif hasattr(type(value), "encode_image"):  # A wrapper has the fingerprint of its content.
            yield from _modules_in(_attributes(value))


def _attributes(owner: object) -> dict[str, Any]:
    return dict(sorted(getattr(owner, "__dict__", {}).items()))


def _probe() -> Image.Image:
    # Neither square nor of a size that models take, so that cropping, squeezing and interpolation all show.
    rows, columns = np.mgrid[0:193, 0:257]
    channels = (columns, 5 * rows, rows * columns)
    return Image.fromarray(np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8))


def _add_value(digest: Any, name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        _add(digest, f"{name} {value.dtype} {tuple(value.shape)}", content)
    else:  # A module's `get_extra_state` may be anything.
        _add(digest, name, repr(value).encode())


def _add(digest: Any, name: str, content: Any) -> None:
    # Lengths keep neighbours apart: "ab" + "c" is not "a" + "bc".
    digest.update(f"{name} {memoryview(content).nbytes}\n".encode())
    digest.update(content)
