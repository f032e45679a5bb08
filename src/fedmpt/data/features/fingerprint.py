"""What features depend on, as hashes: the frozen model, its preprocessing, the bytes of the images."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fedmpt.data.features.image_hashes import image_hashes
from fedmpt.types import Backbone


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
