"""From what a user writes after ``--backbone`` to a frozen backbone.

Imports of transformers stand inside functions: they take seconds, and commands that load no model must not wait.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fedmpt.backbone.clip_files import fetch_from_hub, load_clip
from fedmpt.backbone.plugin import function_in_file, function_in_module, load_plugin
from fedmpt.types import Backbone, InputError

DTYPES = (torch.float32, torch.bfloat16)

BUILT_IN = {"scenes-clip": Path(__file__).resolve().parents[1] / "assets" / "scenes-clip"}
"""Models that come with the package, in the same layout as all others."""

FORMS = (
    "a folder with a Hugging Face CLIP model, scenes-clip, a hub id like openai/clip-vit-base-patch16, "
    "file.py:function, or package.module:function"
)

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from. ``function`` is empty unless ``kind`` is ``file`` or ``module``."""

    kind: Literal["folder", "built-in", "file", "module", "hub"]
    where: str
    function: str = ""


def load_backbone(
    spec: str = "openai/clip-vit-base-patch16", *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Backbone:
    """The backbone that ``spec`` names: every parameter frozen, in evaluation mode, on ``device``.

    ``spec`` is read in this order, and the first that fits decides (`parse_spec`):

    1. a folder that exists: Hugging Face CLIP layout with safetensors weights;
    2. ``scenes-clip``, which comes with the package: another such folder;
    3. ``file.py:function`` or ``package.module:function``, split at the last colon (a Windows drive's colon does not
       count): a plug-in, called without arguments;
    4. what can only be a path: an error, as step 1 did not find it;
    5. a hub id, ``name`` or ``owner/name``: downloaded once, then read from the cache.

    A CLIP model comes as `fedmpt.backbone.image_tower.ClipBackbone` with both towers in ``dtype``, whatever the
    checkpoint's. Of a plug-in only the text tower takes ``dtype``; if it needs neither cast nor move, the
    plug-in's own object is returned. Features are fp32 always.

    Args:
        device: as torch names it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``torch.float32`` or ``torch.bfloat16``.

    Raises:
        InputError: if ``spec`` leads nowhere or to something unfit, or ``device`` or ``dtype`` cannot be used.
    """
    target = _usable_device(device)
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype}: a backbone computes in torch.float32 or torch.bfloat16")
    source = parse_spec(spec)
    if source.kind == "folder":
        folder = _path(source.where)
        # absolute, not resolve(): a link's own name is what the user knows the model by
        return load_clip(folder, weights=folder, name=folder.absolute().name, device=target, dtype=dtype)
    if source.kind == "built-in":
        folder = BUILT_IN[source.where]
        return load_clip(folder, weights=folder, name=source.where, device=target, dtype=dtype)
    if source.kind == "hub":
        folder, weights = fetch_from_hub(source.where)
        return load_clip(folder, weights=weights, name=source.where, device=target, dtype=dtype)
    find = function_in_file if source.kind == "file" else function_in_module
    return load_plugin(find(source.where, source.function), spec=spec, device=target, dtype=dtype)


def parse_spec(spec: str) -> Source:
    """What ``spec`` means, in the order that `load_backbone` documents. Looks at the disk, opens nothing.

    Raises:
        InputError: if it fits no form, or can only be a path and no folder is there.
    """
    if not spec.strip():
        raise InputError(f"backbone {spec!r} is empty; give {FORMS}")
    if os.path.isdir(_path(spec)):
        return Source("folder", spec)
    if spec in BUILT_IN:
        return Source("built-in", spec)
    drive = 2 if _DRIVE.match(spec) else 0
    if ":" in spec[drive:]:
        return _parse_plugin(spec)
    if drive or _only_a_path(spec):
        raise _no_folder(spec)
    if not _HUB_ID.fullmatch(spec):
        raise InputError(f"backbone {spec!r} is no folder here and cannot be a hub id; give {FORMS}")
    return Source("hub", spec)


def _path(spec: str) -> Path:
    return Path(os.path.expanduser(spec))  # unlike Path.expanduser, takes an unknown ~user as it is


def _parse_plugin(spec: str) -> Source:
    where, function = spec.rsplit(":", 1)
    if not function.isidentifier():
        raise InputError(f"backbone {spec!r}: {function!r} behind the colon is no function name; give {FORMS}")
    if where.endswith(".py"):
        return Source("file", where, function)
    if _MODULE.fullmatch(where):
        return Source("module", where, function)
    raise InputError(f"backbone {spec!r}: {where!r} is neither a .py file nor a module name; give {FORMS}")


def _only_a_path(spec: str) -> bool:
    return spec.startswith((".", "~", "/")) or "\\" in spec or spec.count("/") > 1 or os.path.isfile(spec)


def _no_folder(spec: str) -> InputError:
    path = _path(spec)
    if path.is_file() and path.suffix == ".py":
        return InputError(f"backbone {spec!r} is a Python file; append the function that makes it: {spec}:load")
    if path.is_file():
        return InputError(f"backbone {spec!r} is a file; give its folder, {str(path.parent)!r}")
    return InputError(f"backbone {spec!r}: no such folder (looked at {path.absolute()}); give {FORMS}")


def _usable_device(device: str) -> torch.device:
    try:
        target = torch.device(device)
        if target.type == "meta":
            raise RuntimeError("it holds no values")
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); here there is {', '.join(_devices())}"
        ) from error
    return target


def _devices() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
