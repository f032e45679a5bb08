"""From what a user writes after ``--backbone`` to a frozen backbone.

Imports of transformers stand inside functions: they take seconds, and commands that load no model must not wait.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fedmpt.backbone.clip_files import fetch_from_hub, load_clip
from fedmpt.backbone.plugin import find_factory, load_plugin
from fedmpt.types import Backbone, InputError

DTYPES = (torch.float32, torch.bfloat16)

BUILT_IN = {"scenes-clip": Path(__file__).resolve().parents[1] / "assets" / "scenes-clip"}
"""Models that come with the package, in the same layout as all others."""

FORMS = (
    "a folder with a Hugging Face CLIP model, scenes-clip, a hub id like openai/clip-vit-base-patch16, "
    "file.py:function, or package.module:function"
)

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PLUGIN = re.compile(r"(?P<where>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from. ``function`` is empty unless it is a plug-in, in a file or a module."""

    kind: Literal["folder", "built-in", "plugin", "hub"]
    where: str
    function: str = ""


def load_backbone(
    spec: str = "openai/clip-vit-base-patch16", *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Backbone:
    """The backbone that ``spec`` names (`parse_spec`): every parameter frozen, in evaluation mode, on ``device``.

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
    if source.kind == "plugin":
        return load_plugin(find_factory(source.where, source.function), spec=spec, device=target, dtype=dtype)
    if source.kind == "hub":
        folder, weights = fetch_from_hub(source.where)
    else:
        folder = weights = BUILT_IN[source.where] if source.kind == "built-in" else Path(source.where).expanduser()
    # absolute, not resolve(): a link's own name is what the user knows the model by
    name = folder.absolute().name if source.kind == "folder" else source.where
    return load_clip(folder, weights=weights, name=name, device=target, dtype=dtype)


def parse_spec(spec: str) -> Source:
    """What ``spec`` means. It is read in this order, and the first that fits decides:

    1. a folder that exists: Hugging Face CLIP layout with safetensors weights;
    2. ``scenes-clip``, which comes with the package: another such folder;
    3. ``file.py:function`` or ``package.module:function``, split at the last colon (a Windows drive's colon does not
       count): a plug-in, called without arguments;
    4. what can only be a path: an error, as step 1 did not find it;
    5. a hub id, ``name`` or ``owner/name``: downloaded once, then read from the cache.

    Looks at the disk, opens nothing.

    Raises:
        InputError: if it fits no form, or can only be a path and no folder is there.
    """
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return Source("folder", spec)
    if spec in BUILT_IN:
        return Source("built-in", spec)
    drive = 2 if _DRIVE.match(spec) else 0
    if ":" in spec[drive:]:
        if found := _PLUGIN.fullmatch(spec):
            return Source("plugin", found["where"], found["function"])
        raise InputError(f"backbone {spec!r}: neither file.py:function nor package.module:function; give {FORMS}")
    if path.is_file():
        hint = f"append the function that makes it: {spec}:load" if path.suffix == ".py" else f"give {path.parent}"
        raise InputError(f"backbone {spec!r} is a file, not a folder; {hint}")
    if drive or spec.startswith((".", "~", "/")) or "\\" in spec or spec.count("/") > 1:
        raise InputError(f"backbone {spec!r}: no such folder (looked at {path.absolute()}); give {FORMS}")
    if not _HUB_ID.fullmatch(spec):
        raise InputError(f"backbone {spec!r} is no folder here and cannot be a hub id; give {FORMS}")
    return Source("hub", spec)


def _usable_device(device: str) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without CUDA.
        cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        usable = ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used ({reason}); here there is {', '.join(usable)}") from error
    return target
