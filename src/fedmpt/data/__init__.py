"""Data sets by name, and ``NAME:PATH,option=value`` as users write them."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedmpt.data.voc import load_voc
from fedmpt.types import ImageData, InputError

Loader = Callable[..., ImageData]
"""Takes the folder, and its options by keyword."""

DATASETS: Mapping[str, Loader] = {
    "voc": load_voc,
}
"""Every data set there is. A new one is one file beside this one and one line here."""

# The last `,key=value` words only: a comma within the path stays part of the path.
_OPTIONS = re.compile(r"(?:,[A-Za-z_][A-Za-z0-9_-]*=[^,]*)*$")


def load_data(spec: str) -> ImageData:
    """The data set that ``spec`` names: ``voc:../VOCdevkit`` or ``voc:../VOCdevkit,difficult=absent``.

    Only the first colon separates, so ``voc:C:\\VOCdevkit`` works; ``~`` stands for the home folder.

    Raises:
        InputError: if the name or an option is unknown, the path is missing, or the loader refuses the folder.
    """
    name, colon, rest = spec.partition(":")
    if name not in DATASETS:
        raise InputError(f"{spec!r}: unknown data set {name!r}{_closest(name, DATASETS)}; {_expected()}")
    start = _OPTIONS.search(rest).start()  # type: ignore[union-attr]  # The pattern matches the empty end at least.
    path, words = rest[:start], rest[start:].split(",")[1:]
    if not colon or not path:
        raise InputError(f"{spec!r}: the folder is missing; {_expected()}")
    options = _options(spec, DATASETS[name], words)
    return DATASETS[name](Path(path).expanduser(), **options)


def _options(spec: str, loader: Loader, words: Iterable[str]) -> dict[str, Any]:
    types = get_type_hints(loader)
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    known = {name: types[name] for name, p in inspect.signature(loader).parameters.items() if p.kind is keyword_only}
    options: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"{spec!r}: unknown option {key!r}{_closest(key, known)}; options are: {listed}")
        if key in options:
            raise InputError(f"{spec!r}: option {key!r} is given twice; keep one")
        options[key] = _value(spec, key, text, known[key])
    return options


def _value(spec: str, key: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise InputError(f"{spec!r}: {key} is {text!r}{_closest(text, get_args(kind))}; it may be: {choices}")
        return text
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{spec!r}: {key} is {text!r}, expected a value of type {kind.__name__}") from None


def _closest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _expected() -> str:
    return f"expected NAME:PATH with NAME one of: {', '.join(DATASETS)}"
