"""Backbones that users bring: a function, in a file or a module, that returns the object of `fedmpt.types.Backbone`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.wrapped import Wrapped
from fedmpt.types import Backbone, InputError

Factory = Callable[[], Any]


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


def function_in_file(path: str, function: str) -> Factory:
    """The callable ``function`` of a Python file, which is run once for it. Its folder does not enter ``sys.path``."""
    file = Path(path).expanduser().absolute()
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
        raise _failed(error, "running this file", file=str(file)) from error
    return _function(module, function, where=str(file))


def function_in_module(name: str, function: str) -> Factory:
    """The callable ``function`` of an importable module."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        # A package that the module itself imports may be missing too; then the module is there, and fails.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _failed(error, f"importing {name}") from error
        raise InputError(
            f"backbone {name}:{function}: no module {missing!r}; install its package, set PYTHONPATH, "
            f"or give the file itself, file.py:{function}"
        ) from error
    return _function(module, function, where=getattr(module, "__file__", None) or name)


def _function(module: ModuleType, function: str, *, where: str) -> Factory:
    found = getattr(module, function, None)
    if callable(found):
        return found
    # Imported names would drown the module's own.
    own = sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )
    close = difflib.get_close_matches(function, own, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{where}: no function {function!r}; it has {', '.join(own) or 'no function at all'}{hint}")


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

    def is_positive(value: Any) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value) and value > 0

    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "name": ("a non-empty str", lambda value: isinstance(value, str) and bool(value)),
        "image_size": ("a positive int", lambda value: isinstance(value, int) and value > 0),
        "logit_scale": ("a positive float", is_positive),
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
        elif not fits(value := getattr(plugin, member)):
            shown = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
            problems.append(f"{member} is {shown}, not {wanted}")
    return problems
