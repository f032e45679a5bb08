"""One folder of images and labels, whatever its format, and which of its images are for the test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fedmpt.data.finding import ImageFolder
from fedmpt.data.own.formats import find_sources
from fedmpt.data.own.listing import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    Listing,
    Options,
    SplitName,
    join,
)
from fedmpt.data.reading import align, closest, named, not_shown, refuse_repeated, some
from fedmpt.types import UNKNOWN, ImageData, InputError, Split

Parts = tuple[list[int], list[int], list[str]]
"""Rows of a listing for training and for the test, and what is to be said of the others."""

# Sizes differ between most pictures; where there are more, so many are alike that reading them takes minutes.
MAX_COMPARED = 20_000


def load_folder(path: Path, options: Options) -> ImageData:
    """A folder of images with labels.

    Raises InputError if there are no labels, or a file, a line or an image's path is wrong.
    """
    listing = read_folder(path, options)
    class_names = shared_classes(path, [listing], options)
    train_rows, test_rows, notes = divide(listing, options)
    train = listing.split("train", train_rows, class_names, unlisted=listing.unlisted)
    test = listing.split("test", test_rows, class_names, unlisted=listing.unlisted)
    return with_notes(ImageData("folder", class_names, train, test, notes=(*listing.notes, *notes)))


def load_site(path: Path, options: Options) -> ImageData:
    """The same for one site of a federation, as `fedmpt.data.own.load_clients` reads each of its folders: one image is
    enough, none need be for the test, and the classes are those that the labels name."""
    listing = read_folder(path, options)
    class_names = shared_classes(path, [listing], replace(options, classes=None))
    train_rows, test_rows, notes = divide(listing, options, is_site=True)
    train = listing.split("train", train_rows, class_names, unlisted=listing.unlisted)
    test = listing.split("test", test_rows, class_names, unlisted=listing.unlisted)
    return with_notes(ImageData("folder", class_names, train, test, notes=(*listing.notes, *notes)))


def read_folder(root: Path, options: Options) -> Listing:
    """All images of one folder, with the classes that its own files name.

    Raises InputError if there are no labels, a file is wrong, an image is missing, or one is listed twice.
    """
    reader, sources = find_sources(root, wanted=options.format)
    images = ImageFolder(root, follow_links=options.links == "follow")
    for source in sources:
        images.refuse_link(source.path, where=str(source.path))
    parts = [reader.read(source, options) for source in sources]
    class_names = named(part.class_names for part in parts)
    found = join(
        root.name,
        [
            Split(
                name=source.path.name,
                files=images.all(part.image_names, places=part.places, bases=source.bases),
                labels=align(part.labels, part.class_names, class_names, unlisted=part.unlisted),
                columns=part.columns,
            )
            for source, part in zip(sources, parts, strict=True)
        ],
    )
    places = [place for part in parts for place in part.places]
    refuse_repeated(list(map(str, found.files)), what="image", where=places.__getitem__)
    notes = [note for part in parts for note in part.notes]
    if unnamed := images.unnamed(found.files, suffixes=IMAGE_SUFFIXES):
        notes.append(f"{root}: pictures that no list names are left out: {some(unnamed)}")
    splits: list[SplitName | None] = []
    for source, part in zip(sources, parts, strict=True):
        splits += part.splits or [source.split] * len(part.image_names)
        lacking = [name for name in class_names if name not in part.class_names]
        if lacking and part.unlisted == UNKNOWN:
            notes.append(f"{source.path} says nothing of {some(lacking)}; unknown in its images")
    if splits[0] is None and (by_folder := _splits_by_folder(root, found.files)):
        splits = by_folder
        notes.append(f"{root}: the split is that of the folders which the images are in")
    unlisted = min(part.unlisted for part in parts)
    return Listing(root, found, tuple(splits), class_names, unlisted, tuple(notes))


def _splits_by_folder(root: Path, files: Sequence[Path]) -> list[SplitName | None] | None:
    """The split by the outermost folder of each image, ``images`` aside; None unless all are in folders of splits."""
    keys = [file.relative_to(root).as_posix().removeprefix("images/") for file in files]
    splits: list[SplitName | None] = [SPLIT_NAMES.get(key.split("/")[0].lower()) for key in keys]
    return None if None in splits or len(set(splits)) < 2 else splits


def shared_classes(root: Path, listings: Sequence[Listing], options: Options) -> tuple[str, ...]:
    """The given classes, or all that the listings name, sorted.

    Raises InputError if there are none, or a given one is named nowhere although the labels tell which classes were
    looked for.
    """
    known = named(listing.class_names for listing in listings)
    if options.class_names is None:
        if not known:
            raise InputError(f"{root}: no image has a label; expected at least one class")
        return known
    if all(listing.unlisted == UNKNOWN for listing in listings):
        columns = [column for listing in listings for column in listing.images.columns]
        for name in (name for name in options.class_names if name not in known):
            raise InputError(
                f"{options.classes}: class {name!r} is in no column and no category below {root}"
                f"{closest(name, [*known, *columns])}; take it out, or write it as it is there"
            )
    return options.class_names


def with_notes(data: ImageData) -> ImageData:
    """The data set, with notes on its classes and on pictures that are in both splits added."""
    notes = list(data.notes)
    if written := [name for name in data.class_names if "_" in name]:
        notes.append(f"class names stand in prompts as they are, and have underscores: {some(written)}")
    for split in (data.train, data.test):
        if lacking := not_shown(data.class_names, split):
            notes.append(f"no {split.name} image shows: {some(lacking)}")
    if both := copies(data.train.files, data.test.files):
        one, other = both[0]
        notes.append(f"{len(both)} test pictures are training pictures, too, byte for byte: first {one} is {other}")
    return replace(data, notes=tuple(notes))


def divide(listing: Listing, options: Options, *, is_site: bool = False) -> Parts:
    """The given split, or one by names: an image is held out for the test whatever other images there are.

    Validation images are the test where no others are, and otherwise left out. A site needs training images and may
    have no others; data on their own need test images, which can be scored alone.

    Raises InputError if a part that is needed has no image.
    """
    root = listing.root
    if listing.splits[0] is None:
        return _hold_out(listing, options, is_site=is_site)
    rows: dict[SplitName | None, list[int]] = {"train": [], "test": [], "validation": []}
    for row, split in enumerate(listing.splits):
        rows[split].append(row)
    validation, notes = rows["validation"], []
    if validation and rows["test"]:
        notes.append(f"{root}: {len(validation)} validation images are left out: no part of train or test")
    elif validation:
        rows["test"] = validation
        notes.append(f"{root}: there are no test images; the {len(validation)} validation images are the test")
    needed: SplitName = "train" if is_site else "test"
    if not rows[needed]:
        raise InputError(
            f"{root}: the split that is given has no {needed} images; name some, or give no split to have "
            "some held out as test images (test_share)"
        )
    notes += [f"{root}: no {name} images" for name in ("train", "test") if not rows[name]]
    return rows["train"], rows["test"], notes


def _hold_out(listing: Listing, options: Options, *, is_site: bool) -> Parts:
    root, num_images = listing.root, len(listing.images)
    every = list(range(num_images))
    if options.test_share == 1 and not is_site:
        return [], every, [f"{root}: all {num_images} images are for the test (test_share=1)"]
    if num_images < 2 and not is_site:
        raise InputError(f"{root} has one image only; expected at least one to train and one to test with")
    if num_images < 2:
        return every, [], [f"{root}: its only image is for training, and there is none for the test"]
    places = [place_of(key, options.seed) for key in listing.keys]
    order = sorted(every, key=lambda row: (places[row], listing.keys[row]))
    num_test = min(max(sum(place < options.test_share for place in places), 1), num_images - 1)
    note = (
        f"{root}: no split is given; {num_test} of {num_images} images are held out as test images "
        f"(test_share={options.test_share}, seed={options.seed})"
    )
    return sorted(order[num_test:]), sorted(order[:num_test]), [note]


def place_of(key: str, seed: int) -> float:
    """Where an image stands in [0, 1), by its name alone."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def copies(train: Sequence[Path], test: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each test picture with the first training picture of the same bytes, for up to `MAX_COMPARED` pictures.

    Only files of one size are read; those that cannot be are passed over: whoever opens them as pictures says so.
    """
    if len(train) + len(test) > MAX_COMPARED:
        return []
    sizes = {path: path.stat().st_size for path in (*train, *test) if path.is_file()}
    in_both = {sizes.get(path) for path in train} & {sizes.get(path) for path in test} - {None, 0}

    def digests(paths: Iterable[Path]) -> dict[Path, bytes]:
        alike = (path for path in paths if sizes.get(path) in in_both and os.access(path, os.R_OK))
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in alike}

    originals: dict[bytes, Path] = {}
    for path, digest in digests(train).items():
        originals.setdefault(digest, path)
    return [(path, originals[digest]) for path, digest in digests(test).items() if digest in originals]
