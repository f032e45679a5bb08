"""Folders of models in Hugging Face layout, which may come from anybody: nothing is loaded that was not looked at.

transformers reads more than the files one sees: an index of weights may name any path, a config other weights or code
from the network, and an adapter's config another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmpt.files import read_json
from fedmpt.types import InputError

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
IMPLEMENTATIONS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
"""Of a model's layers, those that come with transformers. By other names it may load code from the network."""

_FILE_OF_WEIGHTS = re.compile(r"[\w.-]+\.safetensors")


def weights_in(folder: Path) -> list[Path]:
    """The files of weights in a folder, as they are named there: they may be missing. Raises InputError if an index is
    broken, or names what is no safetensors file in the folder."""
    index = folder / WEIGHTS_INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [folder / WEIGHTS]
    names = settings_in(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index}: weight_map is missing or names no files; copy the file again")
    if strange := sorted(str(name) for name in names.values() if not _FILE_OF_WEIGHTS.fullmatch(str(name))):
        raise InputError(
            f"{index} names {strange[0]!r}, which is no safetensors file in that folder; take a complete model"
        )
    return [folder / name for name in sorted(set(names.values()))]


def check_own(folder: Path) -> None:
    """Raises InputError if the configs in a folder have other weights or code loaded than what lies there."""
    config = folder / "config.json"
    parts = [settings_in(config)]
    while parts:
        for name, value in parts.pop().items():
            known = IMPLEMENTATIONS if name.endswith("_implementation") else (None,)
            if name.endswith(("_implementation", "transformers_weights")) and value not in known:
                raise InputError(
                    f"{config}: {name} names {value!r}, weights or code that are not looked at here; delete that line, "
                    "if the model is complete without, or take another model"
                )
            if isinstance(value, dict):
                parts.append(value)
    if (adapter := folder / "adapter_config.json").exists():
        raise InputError(f"{adapter}: weights that are an adapter's are not read; merge it with its model first")


def settings_in(file: Path) -> dict[str, Any]:
    """A JSON file of settings by name. Raises InputError if it cannot be read or is something else."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, not settings by name; copy it again")
    return content


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars and load reports; what matters in a report is checked and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
