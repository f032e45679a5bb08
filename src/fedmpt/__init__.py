"""Federated multi-label recognition with a frozen vision-language model.

The names in ``__all__`` are the public interface, described in docs/api.md; everything else may change. They are
loaded when they are first used, so that ``import fedmpt`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmpt.backbone.load import load_backbone
    from fedmpt.data.load import load_data
    from fedmpt.evaluation.context_shift import context_shift
    from fedmpt.evaluation.metrics import multilabel_scores
    from fedmpt.inference.tagger import Tagger, load
    from fedmpt.methods import METHODS
    from fedmpt.methods.parts.transport import sinkhorn
    from fedmpt.runs.config import RunConfig, preset
    from fedmpt.runs.run import train
    from fedmpt.types import InputError

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "InputError",
    "RunConfig",
    "Tagger",
    "context_shift",
    "load",
    "load_backbone",
    "load_data",
    "multilabel_scores",
    "preset",
    "sinkhorn",
    "train",
]

_WHERE = {
    "METHODS": "methods",
    "InputError": "types",
    "RunConfig": "runs.config",
    "Tagger": "inference.tagger",
    "context_shift": "evaluation.context_shift",
    "load": "inference.tagger",
    "load_backbone": "backbone.load",
    "load_data": "data.load",
    "multilabel_scores": "evaluation.metrics",
    "preset": "runs.config",
    "sinkhorn": "methods.parts.transport",
    "train": "runs.run",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fedmpt' has no attribute {name!r}")
    return getattr(import_module(f"fedmpt.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
