"""Class names from options of a command."""

from __future__ import annotations

from pathlib import Path

from fedmpt.conditions.document import read_class_list
from fedmpt.types import InputError


def class_names_of(classes: Path | None, data: str | None, *, cache: Path) -> tuple[str, ...]:
    """Names from a file or from a data set, whichever is given; an InputError unless it is just one."""
    check_one(classes, data)
    if classes is not None:
        return read_class_list(classes)
    from fedmpt.data import load_data

    assert data is not None
    return load_data(data, cache=cache, progress=True).class_names


def check_one(classes: Path | None, data: str | None) -> None:
    """Raises InputError unless one of the two is given."""
    if (classes is None) == (data is None):
        given = "none" if classes is None else "both"
        raise InputError(f"give one of --classes FILE and --data NAME:PATH; got {given}")
