"""Whether a site can take part: what has to be the same everywhere, and the message where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import closest
from fedmpt.runs.config import RunConfig, flat
from fedmpt.types import InputError

SAME_VERSION = ("fedmpt", "torch", "transformers", "safetensors")
"""Packages whose versions must agree: they decide the numbers. What follows a ``+``, as in 2.13.0+cpu, may differ."""
MAX_CLASSES = 5000
"""More than any set of labels that these methods are for; counts of pairs of so many take 200 MB."""
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
        remedy = "install the coordinator's versions there, and give join the same --backbone"
        raise InputError(f"it does not fit: {'; '.join(different)}; {remedy}")


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
    letters, and not too many."""
    if not isinstance(words, list) or not all(isinstance(word, str) and len(word) <= 200 for word in words):
        raise InputError(f"{source}: the names of classes are no list of short texts")
    if len(words) > MAX_CLASSES:
        raise InputError(f"{source}: {len(words)} classes, and a federation has at most {MAX_CLASSES}")
    if len(set(words)) < len(words):
        raise InputError(f"{source}: a class is named twice")
    vocabulary = Vocabulary(None)
    return tuple(vocabulary.name(word, where=source, may_be_missing=True) for word in words)


def joined_classes(by_site: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """All classes that any site names, sorted. Raises InputError if they are too many."""
    found = sorted({name for names in by_site.values() for name in names})
    if len(found) > MAX_CLASSES:
        numbers = ", ".join(f"{site} {len(names)}" for site, names in sorted(by_site.items()))
        raise InputError(
            f"the sites name {len(found)} classes ({numbers}), and a federation has at most {MAX_CLASSES}; begin one "
            "with --classes"
        )
    return tuple(found)


def odd_spellings(by_site: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Sites that write a class otherwise than most sites do, each with what is wrong. The others agree.

    Where as many sites write it otherwise, the spelling of the first site in the plan counts. A site that waits
    outside decides nothing: the spellings of the sites with the fewest odd ones are taken first.
    """
    num = Counter(name for names in by_site.values() for name in names)
    most: dict[str, str] = {}
    for name in (name for _, names in sorted(by_site.items()) for name in names):  # The order of the plan.
        if num[name] > num[most.setdefault(name.casefold(), name)]:
            most[name.casefold()] = name
    num_odd = {site: sum(name != most[name.casefold()] for name in names) for site, names in by_site.items()}
    taken: dict[str, str] = {}
    outside = []
    for site in sorted(by_site, key=lambda site: (num_odd[site], site)):
        if all(taken.get(name.casefold(), name) == name for name in by_site[site]):
            taken |= {name.casefold(): name for name in by_site[site]}
        else:
            outside.append(site)
    found = {}
    for site in outside:
        pairs = [(name, other) for name in by_site[site] if (other := taken.get(name.casefold(), name)) != name]
        words = [f"{name!r} ({_sites(num[name])}) is {other!r} ({_sites(num[other])})" for name, other in pairs]
        found[site] = (
            f"its labels write classes otherwise than others do: {', '.join(words)}; rename them in its labels, or "
            "begin a federation with --classes"
        )
    return found


def _sites(number: int) -> str:
    return f"{number} site{'s' if number > 1 else ''}"


def check_known(own: tuple[str, ...], wanted: tuple[str, ...], *, where: str) -> None:
    """Raises InputError if a site's labels name a class that the federation does not have."""
    for name in own:
        if name not in wanted:
            hint = closest(name, wanted)
            raise InputError(
                f"{where}: class {name!r} is none of the federation's {len(wanted)} classes"
                f"{f'{hint} Write it so, take' if hint else '; take'} its labels out, or begin a federation with more "
                "classes"
            )
