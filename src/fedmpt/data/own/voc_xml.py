"""PASCAL VOC's annotations, one XML file an image, of any classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from fedmpt.data.own.listing import IMAGE_SUFFIXES, Entries, Options, Source, SplitName, label_matrix, some
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import read_text
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError

_EXPECTED = "one image id a line"


def read_voc(source: Source, options: Options, vocabulary: Vocabulary) -> Entries:
    """Images of a folder of annotations; the image of ``a.xml`` is ``a.jpg``, or ``a`` with another suffix.

    A class is unknown in an image that shows only difficult objects of it. The split is that of ImageSets/Main, where
    it is: trainval (else train) and test, else train and val.

    Raises:
        InputError: if an annotation or a list is wrong, or the images of some annotations cannot be told.
    """
    stems, notes = _stems(source.path)
    lists = {} if source.split else _read_lists(source.path.parent / "ImageSets" / "Main", stems, notes)
    if lists:
        unlisted = [stem for stem in stems if stem not in lists]
        notes += [f"{source.path}: in no list of ImageSets/Main, left out: {some(unlisted)}"] if unlisted else []
        stems = [stem for stem in stems if stem in lists]
    images = _images(source.bases)
    places = [str(source.path / f"{stem}.xml") for stem in stems]
    objects = [_read_annotation(Path(place), vocabulary) for place in places]
    class_names, labels = label_matrix([image.keys() for image in objects])
    column_of = {name: column for column, name in enumerate(class_names)}
    for row, image in enumerate(objects):
        for name, value in image.items():
            labels[row, column_of[name]] = value
    return Entries(
        image_names=tuple(_image(stem, images, place) for stem, place in zip(stems, places, strict=True)),
        places=tuple(places),
        class_names=class_names,
        labels=labels,
        unlisted=ABSENT,
        splits=tuple(lists[stem] for stem in stems) if lists else None,
        notes=tuple(notes),
    )


def _stems(folder: Path) -> tuple[list[str], list[str]]:
    """Annotations without their suffix, sorted; and a note on other entries of a folder of annotations."""
    entries = sorted(os.listdir(folder))
    files = [name for name in entries if name.lower().endswith(".xml") and not name.startswith(".")]
    others = [name for name in entries if name not in set(files)] if folder.name == "Annotations" else []
    return [name[:-4] for name in files], [f"{folder}: left out: {some(others)}"] if others else []


def _images(bases: Sequence[Path]) -> Mapping[str, list[str]]:
    """Pictures by their name without suffix, from the first folder that has some."""
    for base in bases:
        names = sorted(os.listdir(base)) if base.is_dir() else []
        pictures = [name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and name[0] != "."]
        if pictures:
            by_stem: dict[str, list[str]] = {}
            for name in pictures:
                by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
            return by_stem
    return {}


def _image(stem: str, images: Mapping[str, list[str]], place: str) -> str:
    names = images.get(stem, [f"{stem}.jpg"])
    if len(names) > 1:
        raise InputError(f"{place}: {' and '.join(names)} may be its image; keep one of them")
    return names[0]


def _read_annotation(path: Path, vocabulary: Vocabulary) -> dict[str, int]:
    """Present or unknown, for each class of an annotation."""
    try:
        parser = ElementTree.XMLParser(target=_PlainXml(path))
        root = ElementTree.parse(path, parser).getroot()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected an annotation in VOC's format") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is no well-formed XML: {error}; save it again in VOC's format") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: the outermost element is {root.tag[:60]!r}; expected annotation, as in VOC's format")
    values: dict[str, int] = {}
    for number, item in enumerate(root.iter("object"), start=1):
        where = f"{path}, object {number}"
        name = vocabulary.name(item.findtext("name") or "", where=where)
        difficult = (item.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise InputError(f"{where}: difficult is {difficult!r}; expected 0 or 1")
        value = PRESENT if difficult == "0" else UNKNOWN
        values[name] = max(value, values.get(name, UNKNOWN))
    return values


class _PlainXml(ElementTree.TreeBuilder):
    """Refuses document types: annotations have none, and their entities may fill the memory or name other files."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise InputError(f"{self._path}: a document type ({name[:60]!r}) is not allowed in annotations; remove it")


def _read_lists(folder: Path, stems: Sequence[str], notes: list[str]) -> dict[str, SplitName]:
    """The split of each image id; empty, with a note, where lists do not make a train and a test."""
    files = {name: folder / f"{name}.txt" for name in ("trainval", "train", "val", "test")}
    present = {name for name, path in files.items() if path.is_file()}
    chosen: dict[str, SplitName] = {}
    if {"trainval", "test"} <= present:
        chosen = {"trainval": "train", "test": "test"}
    elif "train" in present and present & {"val", "test"}:
        given: dict[str, SplitName] = {"train": "train", "val": "validation", "test": "test"}
        chosen = {name: split for name, split in given.items() if name in present}
    elif present:
        notes.append(f"{folder}: {some(sorted(present))} alone gives no split; not used")
    known = set(stems)
    splits: dict[str, SplitName] = {}
    for name, split in chosen.items():
        _read_list(files[name], split, known, splits)
    return splits


def _read_list(path: Path, split: SplitName, known: set[str], splits: dict[str, SplitName]) -> None:
    for number, line in enumerate(read_text(path, expected=_EXPECTED).split("\n"), start=1):
        stem = line.strip()
        if not stem:
            continue
        where = f"{path}, line {number}"
        if stem not in known:
            raise InputError(f"{where}: image id {stem!r} has no annotation {stem}.xml; expected {_EXPECTED}")
        if stem in splits:
            raise InputError(f"{where}: image id {stem!r} is listed twice (earlier in {splits[stem]}); keep one")
        splits[stem] = split
