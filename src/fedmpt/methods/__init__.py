"""The methods, by the name that ``--method`` takes."""

from __future__ import annotations

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.methods.zero_shot import ZeroShotConfig

METHODS: dict[str, type[MethodConfig]] = {
    config.name: config for config in (FedMPTConfig, PromptFLConfig, ZeroShotConfig)
}

__all__ = ["METHODS", "Method", "MethodConfig"]
