"""Class names from options of a command."""

from __future__ import annotations

from pathlib import Path

from fedmpt.conditions.class_list import read_class_list
from fedmpt.types import InputError


def class_names_of(classes: Path | None, data: str | None, *, cache: Path) -> tuple[str, ...]:
    """Names from a file or from a data set, whichever is given.

    Raises:
        InputError: unless it is just one, or if that is wrong.
    """
    if classes is not None and data is None:
        return read_class_list(classes)
    if data is not None and classes is None:
        from fedmpt.data import load_data

        return load_data(data, cache=cache, progress=True).class_names
    raise InputError("give one of --classes FILE and --data NAME:FOLDER")
