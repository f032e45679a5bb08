"""The formats there are, and which files of a folder list its images. A new format is one module and one line here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmpt.data.own import coco_json, csv_table, imagefolder, voc_xml
from fedmpt.data.own.listing import SPLIT_NAMES, Entries, Format, Options, Source
from fedmpt.data.reading import some
from fedmpt.types import InputError

Sources = tuple[Source, ...]

# `instances_train2017.json`: the split, and the folder of its images.
_SPLIT_TOKEN = re.compile(r"(?:.*[^a-z])?((train|test|validation|valid|val)\d*)(?:[^a-z0-9].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Reader:
    """``layout`` says for messages what a folder of the format has; ``find`` looks for the files that list images."""

    layout: str
    find: Callable[[Path], Sources]
    read: Callable[[Source, Options], Entries]


def find_sources(root: Path, *, wanted: Format) -> tuple[Reader, Sources]:
    """The format of a folder, and the files that list its images.

    Raises InputError if there are none, or several formats to choose from.
    """
    readers = READERS if wanted == "auto" else {wanted: READERS[wanted]}
    expected = f"expected a folder with {'; or '.join(reader.layout for reader in readers.values())}"
    if not root.is_dir():
        raise InputError(f"{root} {'is no folder' if root.exists() else 'is missing'}; {expected}")
    found = {name: sources for name, reader in readers.items() if (sources := _find(root, reader))}
    if "coco" in found and len(found) > 1 and not all(coco_json.is_instances(one.path) for one in found["coco"]):
        del found["coco"]  # A table may have any JSON file beside it.
    if len(found) > 1:
        listed = ", ".join(f"{name} ({sources[0].path.name})" for name, sources in found.items())
        raise InputError(f"{root} has labels in several formats: {listed}; choose one with format=")
    if not found:
        raise InputError(f"{root} has {'no labels' if any(root.iterdir()) else 'nothing'} in it; {expected}")
    [(name, sources)] = found.items()
    return READERS[name], sources


def _find(root: Path, reader: Reader) -> Sources:
    """In the folder itself, else in its subfolders train, test and validation."""
    if sources := reader.find(root):
        return sources
    return tuple(
        Source(source.path, SPLIT_NAMES[folder.name.lower()], (*source.bases, root))
        for folder in visible(root)
        if folder.is_dir() and folder.name.lower() in SPLIT_NAMES
        for source in reader.find(folder)
    )


def _choose(folder: Path, files: Sequence[Path], *, main: str, what: str) -> Sources:
    """The file called ``main``, or the only one, or lists of splits, as their names say."""
    files = [path for path in files if path.name.lower() == main] or files
    tokens = [_SPLIT_TOKEN.fullmatch(path.stem) for path in files]
    if len(files) > 1 and not all(tokens):
        listed = some(path.name for path in files)
        raise InputError(f"{folder} has several {what}: {listed}; call the one with the labels {main}")
    sources = []
    for path, token in zip(files, tokens, strict=True):
        inner = (folder / token[1], folder / "images" / token[1]) if token else ()
        split = SPLIT_NAMES[token[2].lower()] if token and len(files) > 1 else None
        sources.append(Source(path, split, (folder, folder / "images", *inner)))
    return tuple(sources)


def _csv(folder: Path) -> Sources:
    return _choose(folder, _with_suffix(folder, ".csv"), main="labels.csv", what="tables")


def _coco(folder: Path) -> Sources:
    files = _with_suffix(folder, ".json")
    if (inner := folder / "annotations").is_dir():
        files += _with_suffix(inner, ".json")
    if len(files) > 1 and not any(path.name.lower() == "annotations.json" for path in files):
        candidates = [path for path in files if coco_json.is_instances(path)]
        if not candidates:
            raise InputError(f"{folder}: none of {some(path.name for path in files)} has {coco_json.LAYOUT}")
        files = [path for path in candidates if path.name.startswith("instances")] or candidates
    return _choose(folder, files, main="annotations.json", what="COCO files")


def _voc(folder: Path) -> Sources:
    for inner in (folder / "Annotations", folder):
        if inner.is_dir() and _with_suffix(inner, ".xml"):
            bases = (folder / "JPEGImages", folder / "images", inner, folder)
            return (Source(inner, None, tuple(dict.fromkeys(bases))),)
    return ()


def _imagefolder(folder: Path) -> Sources:
    path = folder / "metadata.jsonl"
    return (Source(path, None, (folder, folder / "images")),) if path.is_file() else ()


def _with_suffix(folder: Path, suffix: str) -> list[Path]:
    return [path for path in visible(folder) if path.suffix.lower() == suffix and path.is_file()]


def visible(folder: Path) -> list[Path]:
    """Files and folders that are not hidden, by name."""
    return sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.name)


READERS: Mapping[Format, Reader] = {
    "csv": Reader(csv_table.LAYOUT, _csv, csv_table.read_csv),
    "coco": Reader(coco_json.LAYOUT, _coco, coco_json.read_coco),
    "voc": Reader(voc_xml.LAYOUT, _voc, voc_xml.read_voc),
    "imagefolder": Reader(imagefolder.LAYOUT, _imagefolder, imagefolder.read_imagefolder),
}
