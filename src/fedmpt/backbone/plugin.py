"""Backbones that users bring: a function, in a file or a module, that returns the object of `fedmpt.types.Backbone`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fedmpt.types import Backbone, InputError

Factory = Callable[[], Any]


class Wrapped:
    """A backbone around another one: it changes what a subclass says, and all else is the other's own.

    ``plugin`` is the backbone within; fingerprints of features look into a wrapper under that name.
    """

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        # Attributes of its own, since isinstance with a protocol does not ask `__getattr__`.
        self.name: str = plugin.name
        self.image_size: int = plugin.image_size
        self.logit_scale: float = plugin.logit_scale
        self.tokenizer = plugin.tokenizer
        self.text_model = plugin.text_model

    def __getattr__(self, name: str) -> Any:
        """Members beyond the protocol. Called only for names this object has not got."""
        if name == "plugin":  # not set yet, while being unpickled
            raise AttributeError(name)
        return getattr(self.plugin, name)

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        return self.plugin.preprocess(image)


class MovedPlugin(Wrapped):
    """A plug-in moved to a device or with its text tower cast."""

    def __init__(self, plugin: Any, device: torch.device) -> None:
        super().__init__(plugin)
        self._device = device

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        """The plug-in's features of ``pixels`` from any device, as fp32."""
        patches, pooled = self.plugin.encode_image(pixels.to(self._device))
        return patches.float(), pooled.float()


def load_plugin(factory: Factory, *, spec: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """What ``factory`` returns, checked, frozen, and moved if it must be.

    Modules that are attributes of the object move to ``device``; one hidden elsewhere (in a list, a closure) stays
    where the plug-in put it.

    Raises:
        InputError: if ``factory`` raises, or its object lacks members or has some of a wrong type (each is named).
    """
    try:
        plugin = factory()
    except Exception as error:
        file = getattr(getattr(factory, "__code__", None), "co_filename", None)
        raise _failed(error, f"backbone {spec!r}", file=file) from error
    if problems := _problems(plugin):
        raise InputError(
            f"backbone {spec!r} returned a {type(plugin).__name__} that is no backbone: {'; '.join(problems)}. "
            f"See fedmpt.types.Backbone for the members a backbone has."
        )
    attributes = vars(plugin).values() if hasattr(plugin, "__dict__") else ()
    for part in (plugin, plugin.text_model, *attributes):
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval().to(device)
    # Only the text tower is cast, since we run it ourselves. The image side is the plug-in's own code, which may
    # rely on its dtype (normalisation in fp32, quantised weights, autocast).
    plugin.text_model.to(dtype)
    if device.type == "cpu" and dtype == torch.float32:
        return plugin
    return MovedPlugin(plugin, device)


def find_factory(where: str, function: str) -> Factory:
    """The callable ``function`` of a Python file, which is run once for it, or of an importable module. Raises
    InputError if there is no such file, module or function, or running it fails."""
    module = _module_in(Path(where).expanduser().absolute()) if where.endswith(".py") else _imported(where)
    found = getattr(module, function, None)
    if callable(found):
        return found
    # Imported names would drown the module's own.
    own = sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )
    raise InputError(f"{module.__file__}: no function {function!r}; it has {', '.join(own) or 'no function at all'}")


def _module_in(file: Path) -> ModuleType:
    """A file as a module. Its folder does not enter ``sys.path``."""
    if not file.is_file():
        raise InputError(f"backbone: no file {file}; check the path before the colon")
    # The path enters the name so that two files called backbone.py do not replace each other.
    name = f"fedmpt_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(error, "running this file", file=str(file)) from error
    return module


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        # A package that the module itself imports may be missing too; then the module is there, and fails.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _failed(error, f"importing {name}") from error
        raise InputError(
            f"backbone {name}: no module {missing!r}; install its package, set PYTHONPATH, or give the file itself, "
            "file.py:function"
        ) from error


def _failed(error: Exception, what: str, *, file: str | None = None) -> InputError:
    """With file and line: the innermost of ``file`` if the error passed through it, else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    place = (frame.filename, frame.lineno)
    if isinstance(error, SyntaxError) and error.filename:
        place = (error.filename, error.lineno)
    return InputError(f"{place[0]}, line {place[1]}: {what} raised {type(error).__name__}: {error}")


def _problems(plugin: Any) -> list[str]:
    """Everything that keeps an object from being a backbone, one phrase each."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    wanted: dict[str, tuple[str, Any]] = {
        "name": ("str", str),
        "image_size": ("int", int),
        "logit_scale": ("float", (int, float)),
        "tokenizer": ("CLIPTokenizer of transformers", CLIPTokenizer),
        "text_model": ("CLIPTextModelWithProjection of transformers", CLIPTextModelWithProjection),
        "preprocess": ("method", Callable),
        "encode_image": ("method", Callable),
    }
    problems = []
    for member, (kind, types) in wanted.items():
        if not hasattr(plugin, member):
            problems.append(f"{member} is missing (wanted: {kind})")
        elif not isinstance(value := getattr(plugin, member), types):
            problems.append(f"{member} is of type {type(value).__name__} (wanted: {kind})")
    return problems
