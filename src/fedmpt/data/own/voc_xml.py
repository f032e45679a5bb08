"""PASCAL VOC's annotations, one XML file an image, of any classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedmpt.data.datasets.voc import read_annotation
from fedmpt.data.own.listing import IMAGE_SUFFIXES, Entries, Options, Source, SplitName
from fedmpt.data.reading import label_matrix, named, read_text, some
from fedmpt.types import ABSENT, InputError

LAYOUT = "Annotations/*.xml with the images in JPEGImages or images"


def read_voc(source: Source, options: Options) -> Entries:
    """Images of a folder of annotations; the image of ``a.xml`` is ``a.jpg``, or ``a`` with another suffix.

    A class is unknown in an image that shows only difficult objects of it. The split is that of ImageSets/Main, where
    it is: trainval (else train) and test, else train and val.

    Raises InputError if an annotation or a list is wrong, or the images of some annotations cannot be told.
    """
    folder, notes = source.path, list[str]()
    names = sorted(os.listdir(folder))
    files = [name for name in names if name.lower().endswith(".xml") and name[0] != "."]
    stems = [name[:-4] for name in files]
    if len(files) < len(names) and folder.name == "Annotations":
        notes.append(f"{folder}: left out: {some(sorted({*names} - {*files}))}")
    splits = {} if source.split else _read_splits(folder.parent / "ImageSets" / "Main", stems, notes)
    if splits:
        unlisted = [stem for stem in stems if stem not in splits]
        notes += [f"{folder}: in no list of ImageSets/Main, left out: {some(unlisted)}"] if unlisted else []
        stems = [stem for stem in stems if stem in splits]
    places = [str(folder / f"{stem}.xml") for stem in stems]
    to_class = options.vocabulary.name
    rows = [read_annotation(Path(place), lambda word, where: to_class(word, where=where)) for place in places]
    class_names = named(rows)
    images, image_names = _images(source.bases), []
    for stem, place in zip(stems, places, strict=True):
        name, *others = images.get(stem, [f"{stem}.jpg"])
        if others:
            raise InputError(f"{place}: {' and '.join([name, *others])} may be its image; keep one of them")
        image_names.append(name)
    return Entries(
        image_names=tuple(image_names),
        places=tuple(places),
        class_names=class_names,
        labels=label_matrix(rows, class_names),
        unlisted=ABSENT,
        splits=tuple(splits[stem] for stem in stems) if splits else None,
        notes=tuple(notes),
    )


def _images(bases: Sequence[Path]) -> Mapping[str, list[str]]:
    """Pictures by their name without suffix, from the first folder that has some."""
    by_stem: dict[str, list[str]] = {}
    for base in bases:
        for name in sorted(os.listdir(base)) if base.is_dir() else []:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES and name[0] != ".":
                by_stem.setdefault(stem, []).append(name)
        if by_stem:
            break
    return by_stem


def _read_splits(folder: Path, stems: Sequence[str], notes: list[str]) -> dict[str, SplitName]:
    """The split of each image id; empty, with a note, where lists do not make a train and a test."""
    present = {name for name in ("trainval", "train", "val", "test") if (folder / f"{name}.txt").is_file()}
    chosen: dict[str, SplitName] = {}
    if {"trainval", "test"} <= present:
        chosen = {"trainval": "train", "test": "test"}
    elif "train" in present and present & {"val", "test"}:
        chosen = {"train": "train", "val": "validation", "test": "test"}
    elif present:
        notes.append(f"{folder}: {some(sorted(present))} alone gives no split; not used")
    known, splits = set(stems), dict[str, SplitName]()
    for name in [name for name in chosen if name in present]:
        path = folder / f"{name}.txt"
        for number, line in enumerate(read_text(path, expected="one image id a line").split("\n"), start=1):
            stem, where = line.strip(), f"{path}, line {number}"
            if stem and stem not in known:
                raise InputError(f"{where}: image id {stem!r} has no annotation {stem}.xml; add it or remove the line")
            if stem in splits:
                raise InputError(f"{where}: image id {stem!r} is listed twice (earlier in {splits[stem]}); keep one")
            if stem:
                splits[stem] = chosen[name]
    return splits
