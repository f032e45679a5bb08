"""The federated case as it is: each subfolder holds the data of one site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from fedmpt.data.own import check_classes, image_data, read_options
from fedmpt.data.own.assemble import read_folder
from fedmpt.data.own.division import Parts, divide, select
from fedmpt.data.own.listing import Format, Links, Listing, Options, align, some
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import ImageFolder, closest
from fedmpt.types import ABSENT, UNKNOWN, ImageData, InputError, Split

Unlisted = Literal["unknown", "absent"]

CLIENT_COLUMN = "client"


def load_clients(
    path: Path,
    *,
    format: Format = "auto",
    classes: Path | None = None,
    separator: str = "auto",
    test_share: float = 0.2,
    seed: int = 0,
    links: Links = "refuse",
    unlisted: Unlisted = "unknown",
) -> ImageData:
    """Sites' data from the subfolders of ``path``, each in any format of `fedmpt.data.own.load_folder`, options alike.

    The column ``client`` says whose each image is, by the folder's name; sites are in the order of their names.
    Classes are those of the file ``classes``, or all that any site names, sorted. A class that none of a site's
    labels name is unknown there: the site may not have looked for it, and a wrong negative harms all sites.
    ``unlisted="absent"`` takes it for a negative, except where the site's own table or categories leave it out.

    Raises:
        InputError: if there are no sites, or one has no labels, no training image or anything else wrong.
    """
    if unlisted not in get_args(Unlisted):
        choices = get_args(Unlisted)
        raise InputError(f"unlisted is {unlisted!r}{closest(unlisted, choices)}; it may be: {', '.join(choices)}")
    options = read_options(
        format=format, classes=classes, separator=separator, test_share=test_share, seed=seed, links=links
    )
    folders, notes = _site_folders(path, options)
    sites = [_read_site(folder, options) for folder in folders]
    listings = [site.listing for site in sites]
    check_classes(listings, options)
    class_names = options.classes or _all_classes(listings)
    splits = [_splits(site, class_names, unlisted=unlisted) for site in sites]
    notes += [f"client {site.name}: {note}" for site in sites for note in site.notes(class_names, unlisted=unlisted)]
    train, test = (_concatenated(parts) for parts in zip(*splits, strict=True))
    if not len(test):
        raise InputError(f"{path}: no site has test images; name some in the split of a site, or give no split")
    return image_data("clients", class_names, train, test, notes=notes, client_column=CLIENT_COLUMN)


@dataclass(frozen=True)
class _Site:
    """What one site brings."""

    name: str
    listing: Listing
    parts: Parts

    def unlisted(self, unlisted: Unlisted) -> int:
        return ABSENT if unlisted == "absent" and self.listing.unlisted == ABSENT else UNKNOWN

    def notes(self, class_names: Sequence[str], *, unlisted: Unlisted) -> list[str]:
        notes = [*self.listing.notes, *self.parts.notes]
        if CLIENT_COLUMN in self.listing.columns:
            notes.append(f"its column {CLIENT_COLUMN} gives way to the name of its folder")
        lacking = [name for name in class_names if name not in self.listing.class_names]
        if lacking and self.unlisted(unlisted) == UNKNOWN:
            remedy = "; unlisted=absent makes them negatives" if self.listing.unlisted == ABSENT else ""
            notes.append(f"its labels say nothing of {some(lacking)}: unknown in its images{remedy}")
        elif lacking:
            notes.append(f"its labels say nothing of {some(lacking)}: absent in its images, as unlisted=absent says")
        return notes


def _site_folders(path: Path, options: Options) -> tuple[list[Path], list[str]]:
    if not path.is_dir():
        state = "is no folder" if path.exists() else "is missing"
        raise InputError(f"{path} {state}; expected a folder with one subfolder for each client")
    try:
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check who may read it") from error
    hidden = [entry.name for entry in entries if entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.name not in hidden and entry.is_dir()]
    files = [entry.name for entry in entries if entry.name not in hidden and entry not in folders]
    if not folders:
        hint = f"; it holds {some(files)}: to load it as one data set, write folder:{path}" if files else ""
        raise InputError(f"{path} has no subfolders; expected one for each client{hint}")
    _check_names(path, folders)
    links = ImageFolder(path, follow_links=options.links == "follow")
    for folder in folders:
        links.find(folder.name, where=str(folder))
    notes = [f"{path}: hidden, left out: {some(hidden)}"] if hidden else []
    notes += [f"{path}: no folders of clients, left out: {some(files)}"] if files else []
    return folders, notes


def _check_names(path: Path, folders: Sequence[Path]) -> None:
    """That each name is text, and that they differ in more than white space, which clients' names are without."""
    by_name: dict[str, Path] = {}
    for folder in folders:
        try:
            folder.name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{path}: the name {folder.name!r} on disk is not Unicode; rename the folder") from None
        earlier = by_name.setdefault(folder.name.strip(), folder)
        if earlier != folder:
            raise InputError(
                f"{path}: the clients {earlier.name!r} and {folder.name!r} differ in white space only; rename one"
            )
        if not folder.name.strip():
            raise InputError(f"{path}: the folder {folder.name!r} has no name that a client could have; rename it")


def _read_site(folder: Path, options: Options) -> _Site:
    listing = read_folder(folder, options)
    return _Site(folder.name, listing, divide(listing, options, needs_test=False, needs_train=True))


def _all_classes(listings: Sequence[Listing]) -> tuple[str, ...]:
    """The union, sorted.

    Raises:
        InputError: if two sites write one class in different cases of letters.
    """
    vocabulary = Vocabulary(None)
    names = {
        vocabulary.name(name, where=str(listing.root), may_be_missing=True)
        for listing in listings
        for name in listing.class_names
    }
    return tuple(sorted(names))


def _splits(site: _Site, class_names: Sequence[str], *, unlisted: Unlisted) -> tuple[Split, Split]:
    labels = align(site.listing.labels, site.listing.class_names, class_names, unlisted=site.unlisted(unlisted))
    listing = replace(
        site.listing, columns={**site.listing.columns, CLIENT_COLUMN: (site.name,) * len(site.listing.files)}
    )
    return (
        select(listing, "train", site.parts.train, labels),
        select(listing, "test", site.parts.test, labels),
    )


def _concatenated(splits: Sequence[Split]) -> Split:
    names = dict.fromkeys(name for split in splits for name in split.columns)
    columns: Mapping[str, tuple[str, ...]] = {
        name: tuple(word for split in splits for word in split.columns.get(name, ("",) * len(split))) for name in names
    }
    return Split(
        name=splits[0].name,
        files=tuple(file for split in splits for file in split.files),
        labels=torch.cat([split.labels for split in splits]),
        columns=columns,
    )
