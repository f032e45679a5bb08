"""What a site allows, in a file of its own: ``policy.json`` in the site's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmpt.errors import InputError
from fedmpt.files import read_json, write_json

FILE = "policy.json"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A site's own rules. The site's worker holds to them, whatever the coordinator asks."""

    methods: tuple[str, ...] | None = None
    """Names of the methods that may be trained here; None: any that is installed."""
    min_images: int = 1
    """With fewer training images than this the site takes no part: an update would say too much about each."""
    send_counts: bool = True
    """Whether counts of labels, and of labels that come together, may leave the site."""
    max_bytes: int = 64 * 2**20
    """The longest message that may leave the site."""

    def check(self, *, source: str) -> None:
        """Raises InputError for values that cannot be, naming ``source`` and the field."""
        for name in ("min_images", "max_bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{source}: {name} must be at least 1, got {getattr(self, name)}")
        if self.methods == ():
            raise InputError(f"{source}: methods is an empty list, so nothing could be trained; null allows any")


def read_policy(folder: Path) -> Policy:
    """The policy of a site's folder; the defaults are written there first if it has none.

    Raises:
        InputError: if the file has a field or a value that cannot be. A wrong policy must not pass for none.
    """
    path = folder / FILE
    if not path.exists():
        write_json(path, dataclasses.asdict(Policy()))
    words = read_json(path)
    fields = {item.name for item in dataclasses.fields(Policy)}
    if not isinstance(words, dict):
        raise InputError(f"{path}: expected an object with {', '.join(sorted(fields))}")
    if unknown := sorted(words.keys() - fields):
        raise InputError(f"{path}: unknown field {unknown[0]!r}; there are {', '.join(sorted(fields))}")
    policy = Policy(**{name: _value(name, value, path) for name, value in words.items()})
    policy.check(source=str(path))
    return policy


KINDS: Mapping[str, tuple[type, str]] = {
    "min_images": (int, "a whole number"),
    "max_bytes": (int, "a whole number of bytes"),
    "send_counts": (bool, "true or false"),
}


def _value(name: str, value: Any, path: Path) -> Any:
    if name == "methods":
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f'{path}: methods must be null or a list of names such as ["fedmpt"], got {value!r}')
    kind, words = KINDS[name]
    if type(value) is not kind:
        raise InputError(f"{path}: {name} must be {words}, got {value!r}")
    return value
