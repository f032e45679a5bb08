"""Whether a site can take part: what has to be the same everywhere, and the message where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import closest
from fedmpt.runs.config import RunConfig, flat
from fedmpt.types import InputError

SAME_VERSION = ("fedmpt", "torch", "transformers", "safetensors")
"""Packages whose versions must agree: they decide the numbers. What follows a ``+``, as in 2.13.0+cpu, may differ."""
OWN = ("data", "backbone", "device", "skip_corrupt", "federation.rounds", "federation.eval_every", "federation.keep")
"""Options that a site may have otherwise, or that are the coordinator's alone."""


def own_versions() -> dict[str, str]:
    """The versions here of what must agree."""
    return {name: version(name).partition("+")[0] for name in SAME_VERSION}


def agreed_options(config: RunConfig) -> dict[str, Any]:
    """The options that must be the same at the coordinator and at every site, by dotted names."""
    found = flat(config.to_json())
    return {name: value for name, value in found.items() if name not in OWN}


def check_same(mine: Mapping[str, Any], theirs: Any, *, site: str) -> None:
    """Raises InputError where a site's word differs from the coordinator's."""
    if different := differences_of(mine, theirs, here="at the coordinator", there=f"at {site}"):
        raise InputError(f"it does not fit: {'; '.join(different)}")


def differences_of(mine: Mapping[str, Any], theirs: Any, *, here: str, there: str) -> list[str]:
    """Where a site's word differs from the coordinator's, in words; ``theirs`` comes from outside and may be anything.

    Nested words are compared by dotted names. ``here`` and ``there`` say whose each value is.
    """
    if not isinstance(theirs, Mapping):
        return [f"it describes itself by {type(theirs).__name__}, not by names and values"]
    own, other = flat(mine), flat(theirs)
    return [
        f"{name} is {other.get(name)!r} {there} and {value!r} {here}"
        for name, value in own.items()
        if other.get(name) != value
    ]


def class_names_of(words: Any, *, source: str) -> tuple[str, ...]:
    """Class names that came from elsewhere. Raises InputError unless they are different texts without invisible
    letters."""
    if not isinstance(words, list) or not all(isinstance(word, str) and len(word) <= 200 for word in words):
        raise InputError(f"{source}: its class names are no list of short texts")
    if len(set(words)) < len(words):
        raise InputError(f"{source}: it names a class twice")
    vocabulary = Vocabulary(None)
    return tuple(vocabulary.name(word, where=source, may_be_missing=True) for word in words)


def joined_classes(by_site: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """All classes that any site names, sorted. Raises InputError where two sites write one class differently."""
    vocabulary = Vocabulary(None)
    found = {
        vocabulary.name(name, where=f"site {site}", may_be_missing=True)
        for site, names in sorted(by_site.items())
        for name in names
    }
    return tuple(sorted(found))


def check_known(own: tuple[str, ...], wanted: tuple[str, ...], *, where: str) -> None:
    """Raises InputError if a site's labels name a class that the federation does not have."""
    for name in own:
        if name not in wanted:
            raise InputError(
                f"{where}: class {name!r} is none of the federation's {len(wanted)} classes{closest(name, wanted)}; "
                "write it as there, take its labels out, or begin a federation with more classes"
            )
