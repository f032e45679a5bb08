"""Backbones that users bring: a function, in a file or a module, that returns the object of `fedmpt.types.Backbone`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import math
import os
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


class MovedPlugin:
    """A plug-in moved to a device or with its text tower cast. Everything else is the plug-in's own.

    ``plugin`` is the object as it was returned.
    """

    def __init__(self, plugin: Any, device: torch.device) -> None:
        self.plugin = plugin
        self.name: str = plugin.name
        self.image_size: int = plugin.image_size
        self.logit_scale: float = plugin.logit_scale
        self.tokenizer = plugin.tokenizer
        self.text_model = plugin.text_model
        self._device = device

    def __getattr__(self, name: str) -> Any:
        """Members beyond the protocol. Called only for names this object has not got."""
        if name == "plugin":  # not set yet, while being unpickled
            raise AttributeError(name)
        return getattr(self.plugin, name)

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        return self.plugin.preprocess(image)

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
    plugin = _call(factory, spec)
    problems = _problems(plugin)
    if problems:
        raise InputError(
            f"backbone {spec!r} returned a {type(plugin).__name__} that is no backbone: {'; '.join(problems)}. "
            f"See fedmpt.types.Backbone for the members a backbone has."
        )
    for module in _modules(plugin):
        module.requires_grad_(False).eval().to(device)
    # Only the text tower is cast, since we run it ourselves. The image side is the plug-in's own code, which may
    # rely on its dtype (normalisation in fp32, quantised weights, autocast).
    plugin.text_model.to(dtype)
    if device.type == "cpu" and dtype == torch.float32:
        return plugin
    return MovedPlugin(plugin, device)


def function_in_file(path: str, function: str) -> Factory:
    """The callable ``function`` of a Python file, which is run once for it. Its folder does not enter ``sys.path``."""
    file = Path(os.path.expanduser(path)).absolute()  # unlike Path.expanduser, takes an unknown ~user
    if not file.is_file():
        raise InputError(f"backbone {path}:{function}: no file {file}; check the path before the colon")
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
        raise InputError(f"{_place(error, str(file))}: running this file raised {_describe(error)}") from error
    return _function(module, function, where=str(file))


def function_in_module(name: str, function: str) -> Factory:
    """The callable ``function`` of an importable module."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InputError(f"{_place(error)}: importing {name} raised {_describe(error)}") from error
        raise InputError(
            f"backbone {name}:{function}: no module {error.name!r}; install its package, set PYTHONPATH, "
            f"or give the file itself, file.py:{function}"
        ) from error
    except Exception as error:
        raise InputError(f"{_place(error)}: importing {name} raised {_describe(error)}") from error
    return _function(module, function, where=getattr(module, "__file__", None) or name)


def _function(module: ModuleType, function: str, *, where: str) -> Factory:
    found = getattr(module, function, None)
    if callable(found):
        return found
    if found is not None:
        raise InputError(f"{where}: {function!r} is a {type(found).__name__}, not a function")
    # Imported names would drown the module's own.
    own = sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )
    close = difflib.get_close_matches(function, own, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{where}: no function {function!r}; it has {', '.join(own) or 'no function at all'}{hint}")


def _call(factory: Factory, spec: str) -> Any:
    try:
        return factory()
    except Exception as error:
        file = getattr(getattr(factory, "__code__", None), "co_filename", None)
        raise InputError(f"{_place(error, file)}: backbone {spec!r} raised {_describe(error)}") from error


def _place(error: Exception, file: str | None = None) -> str:
    """File and line: the innermost of ``file`` if the error passed through it, else where it was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"{frame.filename}, line {frame.lineno}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _problems(plugin: Any) -> list[str]:
    """Everything that keeps an object from being a backbone, one phrase each."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0

    def is_count(value: Any) -> bool:
        return isinstance(value, int) and is_number(value)

    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "name": ("a non-empty str", lambda value: isinstance(value, str) and bool(value)),
        "image_size": ("a positive int", is_count),
        "logit_scale": ("a positive float", is_number),
        "tokenizer": ("a transformers CLIPTokenizer", lambda value: isinstance(value, CLIPTokenizer)),
        "text_model": (
            "a transformers CLIPTextModelWithProjection",
            lambda value: isinstance(value, CLIPTextModelWithProjection),
        ),
        "preprocess": ("a method", callable),
        "encode_image": ("a method", callable),
    }
    problems = []
    for member, (wanted, fits) in checks.items():
        if not hasattr(plugin, member):
            problems.append(f"{member} is missing (wanted {wanted})")
        elif not fits(getattr(plugin, member)):
            value = getattr(plugin, member)
            shown = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
            problems.append(f"{member} is {shown}, not {wanted}")
    return problems


def _modules(plugin: Any) -> list[nn.Module]:
    attributes = vars(plugin).values() if hasattr(plugin, "__dict__") else ()
    found = [value for value in (plugin, plugin.text_model, *attributes) if isinstance(value, nn.Module)]
    return list({id(module): module for module in found}.values())
