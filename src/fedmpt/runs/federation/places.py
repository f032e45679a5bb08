"""What the coordinator hears of an error at a site: names of files at most, not in which folders they are."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from fedmpt.data.load import parse_spec
from fedmpt.runs.federation.joining import WorkerOptions

BELOW = r"(?:(?:(?!\.[A-Za-z]\w*\s)[^'\"\n:;,])*[/\\])?"
"""Folders below a known one, with blanks; a file's name follows. Behind an ending such as .png a blank ends a path."""
QUOTED = re.compile(r"(['\"])(?:[A-Za-z]:)?[/\\](?:(?!\1).)*[/\\]")
ABSOLUTE = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][^/\\\s'\"]+)+[/\\]")
"""An absolute path that is neither known nor in quotes. A blank ends it: nobody can say whether it belongs to it."""


def places_of(options: WorkerOptions) -> frozenset[str]:
    """The folders that a worker knows, in all ways in which an error may write them, and the options that name them."""
    given = [options.kit, options.cache, "~", "."]
    if options.data is not None:
        given.append(str(parse_spec(options.data).keywords.get("path", ".")))
    if options.backbone is not None and Path(options.backbone).expanduser().exists():
        given.append(options.backbone)
    paths = [path for word in given for path in (Path(word), Path(word).expanduser())]
    forms = [form for path in paths for form in (path, path.absolute(), path.resolve())]
    # "/" and "." would be found everywhere.
    return frozenset([*(str(form) for form in forms if form.name), *([options.data] if options.data else [])])


def without_folders(text: str, places: Collection[str] = ()) -> str:
    """The text without folders: the ``places``, what is below them, and what looks like an absolute path."""
    for place in sorted(places, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(place)}[/\\]{BELOW}", "", text)
        if re.search(r"[/\\:]", place):  # "photos" alone may be any word.
            text = re.sub(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", "(a folder)", text)
    return ABSOLUTE.sub("", QUOTED.sub(r"\1", text))
