"""Photos of users: a folder with a table, COCO JSON, VOC XML or metadata.jsonl, or one such folder a site.

It may import what all of `data` may.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fedmpt.data.own.assemble import read_folder
from fedmpt.data.own.copies import MAX_IMAGES, copies
from fedmpt.data.own.division import divide, label_notes, select
from fedmpt.data.own.listing import Format, Links, Listing, Options, align, some
from fedmpt.data.own.vocabulary import read_classes
from fedmpt.data.reading import closest
from fedmpt.types import UNKNOWN, ImageData, InputError, Split


def load_folder(
    path: Path,
    *,
    format: Format = "auto",
    classes: Path | None = None,
    separator: str = "auto",
    test_share: float = 0.2,
    seed: int = 0,
    links: Links = "refuse",
) -> ImageData:
    """A folder of images with labels, in the format that is found there unless ``format`` says which.

    ``classes`` is a text file of class names, one a line, in the order they are to have; without it they are those
    of the labels, sorted. ``separator`` is what separates labels in a cell: one symbol, or ``comma``, ``semicolon``,
    ``space``, ``bar``; by itself it is ``|`` or ``;``, whichever is in use. Without a given split ``test_share`` of
    the images, in (0, 1], are held out by a hash of ``seed`` and their path below the folder; with 1 there is nothing
    to train on, and everything to score. ``links`` says what to do with links out of the folder.

    Raises:
        InputError: if an option is wrong, there are no labels, or a file, a line or an image's path is wrong.
    """
    options = read_options(
        format=format, classes=classes, separator=separator, test_share=test_share, seed=seed, links=links
    )
    listing = read_folder(path, options)
    check_classes([listing], options)
    class_names = options.classes or listing.class_names
    labels = align(listing.labels, listing.class_names, class_names, unlisted=listing.unlisted)
    parts = divide(listing, options)
    train, test = select(listing, "train", parts.train, labels), select(listing, "test", parts.test, labels)
    return image_data("folder", class_names, train, test, notes=(*listing.notes, *parts.notes))


def read_options(
    *, format: Format, classes: Path | None, separator: str, test_share: float, seed: int, links: Links
) -> Options:
    """Options as a user gives them, checked, with the class names read.

    Raises:
        InputError: if one is out of its range, or the file of class names is wrong.
    """
    for name, value, choices in (("format", format, get_args(Format)), ("links", links, get_args(Links))):
        if value not in choices:
            raise InputError(f"{name} is {value!r}{closest(value, choices)}; it may be: {', '.join(choices)}")
    if not 0 < test_share <= 1:
        raise InputError(f"test_share is {test_share}; it must be in (0, 1]: the share of images for the test")
    names = None if classes is None else read_classes(classes)
    return Options(
        format=format,
        classes=names,
        classes_file=classes,
        separator=separator,
        test_share=test_share,
        seed=seed,
        links=links,
    )


def check_classes(listings: Sequence[Listing], options: Options) -> None:
    """That labels tell of each given class in some listing, where labels tell which classes were looked for.

    Raises:
        InputError: if one is named nowhere, or there are no classes at all.
    """
    named = sorted({name for listing in listings for name in listing.class_names})
    root = listings[0].root if len(listings) == 1 else listings[0].root.parent
    if options.classes is None and not named:
        raise InputError(f"{root}: no image has a label; expected at least one class")
    if any(listing.unlisted != UNKNOWN for listing in listings):
        return
    for name in options.classes or ():
        if name not in named:
            hint = closest(name, [*named, *(column for listing in listings for column in listing.columns)])
            raise InputError(
                f"{options.classes_file}: class {name!r} is in no column and no category below {root}{hint}; "
                "take it out, or write it as it is there"
            )


def image_data(
    name: str,
    class_names: Sequence[str],
    train: Split,
    test: Split,
    *,
    notes: Sequence[str],
    client_column: str | None = None,
) -> ImageData:
    """The data set, with notes on its classes and on pictures that are in both splits added."""
    written = [class_name for class_name in class_names if "_" in class_name]
    if written:
        notes = (*notes, f"class names stand in prompts as they are, and have underscores: {some(written)}")
    notes = (*notes, *label_notes(class_names, train), *label_notes(class_names, test))
    if len(train) + len(test) <= MAX_IMAGES and (both := copies(train.files, test.files)):
        one, other = both[0]
        notes = (*notes, f"{len(both)} test pictures are training pictures, too, byte for byte: first {one} is {other}")
    return ImageData(
        name=name,
        class_names=tuple(class_names),
        train=train,
        test=test,
        client_column=client_column,
        notes=tuple(notes),
    )
