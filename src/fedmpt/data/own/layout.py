"""Which files of a folder list its images, and in which format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedmpt.data.own.listing import SPLIT_NAMES, Format, Source, SplitName, some
from fedmpt.types import InputError

Sources = tuple[Source, ...]

LAYOUTS: Mapping[Format, str] = {
    "csv": "labels.csv with the columns path and labels, or path and one column a class",
    "coco": "annotations.json, or a pair such as train.json and val.json, in COCO's instances format",
    "voc": "Annotations/*.xml with the images in JPEGImages or images",
    "imagefolder": "metadata.jsonl with file_name and labels",
}
"""What each format looks like, for messages."""

# `instances_train2017.json`: the split, and the folder of its images.
_SPLIT_TOKEN = re.compile(r"(?:.*[^a-z])?((train|test|validation|valid|val)\d*)(?:[^a-z0-9].*)?", re.IGNORECASE)

_COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')


def find_sources(root: Path, *, wanted: Format) -> tuple[Format, Sources]:
    """The format of a folder, and the files that list its images.

    Raises:
        InputError: if there are none, or several formats to choose from.
    """
    try:
        return _find_sources(root, wanted=wanted)
    except OSError as error:
        where = error.filename or root
        raise InputError(f"{where} cannot be read: {error.strerror}; check who may read it") from error


def _find_sources(root: Path, *, wanted: Format) -> tuple[Format, Sources]:
    if not root.is_dir():
        state = "is no folder" if root.exists() else "is missing"
        raise InputError(f"{root} {state}; expected a folder with {'; or '.join(LAYOUTS.values())}")
    formats: Sequence[Format] = list(_FINDERS) if wanted == "auto" else [wanted]
    found = {name: sources for name in formats if (sources := _find(root, name))}
    if "coco" in found and len(found) > 1:  # A table may have any JSON file beside it.
        found = {name: sources for name, sources in found.items() if name != "coco" or all(map(_is_coco, sources))}
    if len(found) > 1:
        listed = ", ".join(f"{name} ({sources[0].path.name})" for name, sources in found.items())
        raise InputError(f"{root} has labels in several formats: {listed}; choose one with format=")
    if not found:
        what = "nothing" if not any(root.iterdir()) else "no labels"
        raise InputError(f"{root} has {what} in it; expected {'; or '.join(LAYOUTS[name] for name in formats)}")
    [(name, sources)] = found.items()
    return name, sources


def _find(root: Path, name: Format) -> Sources:
    """In the folder itself, else in its subfolders train, test and validation."""
    if sources := _FINDERS[name](root):
        return sources
    subfolders = [folder for folder in _visible(root) if folder.is_dir() and folder.name.lower() in SPLIT_NAMES]
    parts: list[Source] = []
    for folder in subfolders:
        split = SPLIT_NAMES[folder.name.lower()]
        parts.extend(Source(source.path, split, (*source.bases, root)) for source in _FINDERS[name](folder))
    return _one_each(root, parts)


def _one_each(root: Path, sources: Sequence[Source]) -> Sources:
    """Sources of different splits.

    Raises:
        InputError: if two are of one split.
    """
    by_split: dict[SplitName | None, Source] = {}
    for source in sources:
        first = by_split.setdefault(source.split, source)
        if first is not source:
            pair = " and ".join(str(path.relative_to(root)) for path in (first.path, source.path))
            raise InputError(f"{root}: {pair} are both lists of {source.split or 'all'} images; keep one")
    return tuple(sources)


def _csv(folder: Path) -> Sources:
    files = _with_suffix(folder, ".csv")
    if named := [path for path in files if path.name.lower() == "labels.csv"]:
        files = named
    if len(files) > 1 and all(path.stem.lower() in SPLIT_NAMES for path in files):
        return _one_each(folder, [_split_source(path, folder) for path in files])
    if len(files) > 1:
        listed = some(path.name for path in files)
        raise InputError(f"{folder} has several tables: {listed}; call the one with the labels labels.csv")
    return tuple(Source(path, None, _bases(folder)) for path in files)


def _coco(folder: Path) -> Sources:
    files = _with_suffix(folder, ".json")
    if (inner := folder / "annotations").is_dir():
        files += _with_suffix(inner, ".json")
    if named := [path for path in files if path.name.lower() == "annotations.json"]:
        files = named
    if len(files) > 1:
        candidates = [path for path in files if _is_instances(path)]
        if not candidates:
            raise InputError(f"{folder}: none of {some(path.name for path in files)} has {LAYOUTS['coco']}")
        files = [path for path in candidates if path.name.startswith("instances")] or candidates
    if len(files) > 1 and all(_SPLIT_TOKEN.fullmatch(path.stem) for path in files):
        return _one_each(folder, [_split_source(path, folder) for path in files])
    if len(files) > 1:
        listed = some(path.name for path in files)
        raise InputError(f"{folder} has several COCO files: {listed}; call the one with the labels annotations.json")
    return tuple(Source(path, None, _split_source(path, folder).bases) for path in files)


def _voc(folder: Path) -> Sources:
    for inner in (folder / "Annotations", folder):
        if inner.is_dir() and _with_suffix(inner, ".xml"):
            bases = (folder / "JPEGImages", folder / "images", inner, folder)
            return (Source(inner, None, tuple(dict.fromkeys(bases))),)
    return ()


def _imagefolder(folder: Path) -> Sources:
    path = folder / "metadata.jsonl"
    return (Source(path, None, _bases(folder)),) if path.is_file() else ()


_FINDERS: Mapping[Format, Callable[[Path], Sources]] = {
    "csv": _csv,
    "coco": _coco,
    "voc": _voc,
    "imagefolder": _imagefolder,
}


def _split_source(path: Path, folder: Path) -> Source:
    """A file whose name says the split; images may be in a folder of that name."""
    match = _SPLIT_TOKEN.fullmatch(path.stem)
    if not match:
        return Source(path, None, _bases(folder))
    inner, word = match[1], match[2].lower()
    return Source(path, SPLIT_NAMES[word], (*_bases(folder), folder / inner, folder / "images" / inner))


def _bases(folder: Path) -> tuple[Path, ...]:
    return folder, folder / "images"


def _is_coco(source: Source) -> bool:
    return _is_instances(source.path)


def _is_instances(path: Path) -> bool:
    """Whether COCO's three lists are in the text; the file may be wrong JSON all the same."""
    content = path.read_bytes()
    return all(key in content for key in _COCO_KEYS)


def _with_suffix(folder: Path, suffix: str) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() == suffix and path.is_file()]


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.name)
