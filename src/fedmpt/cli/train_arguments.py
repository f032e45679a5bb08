"""A config as the arguments of the command that gives it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from fedmpt.runs.config import RunConfig, preset


def train_arguments(config: RunConfig) -> list[str]:
    """The options of ``fedmpt train`` that give ``config``: the method, and all that are not the default."""
    start = dict(_flat(preset("default", config.method.name, data="")))
    arguments = ["--method", config.method.name]
    for name, value in _flat(config):
        flag = name.replace("_", "-")
        if value == start[name]:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            # In one argument with the flag, a text may begin with a hyphen. Several texts cannot, here and on the line.
            given = [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
            arguments += ["=".join(given)] if isinstance(value, str) and value.startswith("-") else given
    return arguments


def _flat(config: Any) -> Iterator[tuple[str, Any]]:
    """Options by name; no two parts of a config have the same."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value)
        else:
            yield field.name, value
