"""One folder of images and labels, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from fedmpt.data.own.coco_json import read_coco
from fedmpt.data.own.csv_table import read_csv
from fedmpt.data.own.finder import Finder
from fedmpt.data.own.imagefolder import read_imagefolder
from fedmpt.data.own.layout import find_sources
from fedmpt.data.own.listing import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    Entries,
    Format,
    Listing,
    Options,
    Source,
    SplitName,
    align,
    some,
)
from fedmpt.data.own.voc_xml import read_voc
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.types import UNKNOWN, InputError


def read_folder(root: Path, options: Options) -> Listing:
    """All images of one folder, with the classes that its own files name.

    Raises:
        InputError: if there are no labels, a file is wrong, an image is missing, or one is listed twice.
    """
    name, sources = find_sources(root, wanted=options.format)
    vocabulary = Vocabulary(options.classes, source=options.classes_file)
    finder = Finder(root, links=options.links)
    parts = []
    for source in sources:
        finder.annotation(source.path)
        parts.append(_read(name, source, options, vocabulary))
    files = tuple(path for source, part in zip(sources, parts, strict=True) for path in finder.locate(source, part))
    places = [place for part in parts for place in part.places]
    keys = tuple(finder.key(path, place=place) for path, place in zip(files, places, strict=True))
    splits = [split for source, part in zip(sources, parts, strict=True) for split in _splits(source, part)]
    by_folder = _splits_by_folder(keys) if splits[0] is None else None
    splits = by_folder or splits
    _refuse_repeated(files, [finder.target(path) for path in files], places, splits)
    class_names = tuple(sorted({name for part in parts for name in part.class_names}))
    labels = [align(part.labels, part.class_names, class_names, unlisted=part.unlisted) for part in parts]
    unnamed = finder.unnamed(files, suffixes=IMAGE_SUFFIXES)
    notes = [note for part in parts for note in part.notes]
    notes += [f"{root}: pictures that no list names are left out: {some(unnamed)}"] if unnamed else []
    notes += [f"{root}: the split is that of the folders which the images are in"] if by_folder else []
    notes += _unlisted_notes(sources, parts, class_names)
    return Listing(
        root=root,
        files=files,
        keys=keys,
        splits=tuple(splits),
        class_names=class_names,
        labels=torch.cat(labels),
        unlisted=min(part.unlisted for part in parts),
        columns=_columns(parts),
        notes=tuple(notes),
    )


def _read(name: Format, source: Source, options: Options, vocabulary: Vocabulary) -> Entries:
    if name == "csv":
        return read_csv(source.path, options, vocabulary)
    if name == "coco":
        return read_coco(source.path, options, vocabulary)
    if name == "imagefolder":
        return read_imagefolder(source.path, options, vocabulary)
    return read_voc(source, options, vocabulary)


def _splits(source: Source, part: Entries) -> Sequence[SplitName | None]:
    if source.split is not None and part.splits is not None:
        raise InputError(f"{source.path} is a list of {source.split} images and has a column split; remove one of them")
    return part.splits or [source.split] * len(part.image_names)


def _splits_by_folder(keys: Sequence[str]) -> list[SplitName | None] | None:
    """The split by the outermost folder of each image, ``images`` aside; None unless all are in folders of splits."""
    folders = [key.removeprefix("images/").split("/")[0].lower() for key in keys]
    splits: list[SplitName | None] = [SPLIT_NAMES.get(folder) for folder in folders]
    return None if None in splits or len(set(splits)) < 2 else splits


def _refuse_repeated(
    files: Sequence[Path], targets: Sequence[Path], places: Sequence[str], splits: Sequence[SplitName | None]
) -> None:
    first: dict[Path, int] = {}
    by_folded: dict[str, Path] = {}
    for row, target in enumerate(targets):
        # Some file systems take a.jpg and A.jpg for one file.
        alike = by_folded.setdefault(str(target).casefold(), target)
        if alike != target and _is_same_file(alike, target):
            target = alike
        earlier = first.setdefault(target, row)
        if earlier != row:
            parts = f" and once for {splits[row]}, once for {splits[earlier]}" if splits[row] != splits[earlier] else ""
            raise InputError(
                f"{places[row]}: {str(files[row])!r} is listed twice{parts}, first as {str(files[earlier])!r} in "
                f"{places[earlier]}; remove one"
            )


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _columns(parts: Sequence[Entries]) -> Mapping[str, tuple[str, ...]]:
    names = dict.fromkeys(name for part in parts for name in part.columns)
    return {
        name: tuple(word for part in parts for word in part.columns.get(name, ("",) * len(part.image_names)))
        for name in names
    }


def _unlisted_notes(sources: Sequence[Source], parts: Sequence[Entries], class_names: Sequence[str]) -> list[str]:
    notes = []
    for source, part in zip(sources, parts, strict=True):
        lacking = [name for name in class_names if name not in part.class_names]
        if lacking and part.unlisted == UNKNOWN:
            notes.append(f"{source.path} says nothing of {some(lacking)}; unknown in its images")
    return notes
