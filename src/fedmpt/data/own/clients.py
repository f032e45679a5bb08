"""The federated case as it is: each subfolder holds the data of one site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from fedmpt.data.finding import ImageFolder
from fedmpt.data.own.folder import divide, read_folder, shared_classes, with_notes
from fedmpt.data.own.formats import visible
from fedmpt.data.own.listing import Listing, Options, join
from fedmpt.data.reading import check_choice, some
from fedmpt.types import ABSENT, UNKNOWN, ImageData, InputError, Split

Unlisted = Literal["unknown", "absent"]

CLIENT_COLUMN = "client"


@dataclass(frozen=True)
class ClientsOptions(Options):
    """``unlisted`` is what a class is in the images of a site none of whose labels name it."""

    unlisted: Unlisted = "unknown"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("unlisted", self.unlisted, get_args(Unlisted))


def load_clients(path: Path, options: ClientsOptions) -> ImageData:
    """Sites' data from the subfolders of ``path``, each in any format of `fedmpt.data.own.load_folder`.

    The column ``client`` says whose each image is, by the folder's name; sites are in the order of their names.
    Classes are those of the file ``classes``, or all that any site names, sorted. A class that none of a site's
    labels name is unknown there: the site may not have looked for it, and a wrong negative harms all sites.
    ``unlisted="absent"`` takes it for a negative, except where the site's own table or categories leave it out.

    Raises InputError if there are no sites, or one has no labels, no training image or anything else wrong.
    """
    folders, notes = _site_folders(path, options)
    listings = [read_folder(folder, options) for folder in folders]
    class_names = shared_classes(path, listings, options)
    splits: dict[str, list[Split]] = {"train": [], "test": []}
    for folder, listing in zip(folders, listings, strict=True):
        *rows_of, said = divide(listing, options, is_site=True)
        otherwise = ABSENT if options.unlisted == "absent" and listing.unlisted == ABSENT else UNKNOWN
        for name, rows in zip(splits, rows_of, strict=True):
            split = listing.split(name, rows, class_names, unlisted=otherwise)
            columns = {**split.columns, CLIENT_COLUMN: (folder.name,) * len(rows)}
            splits[name].append(replace(split, columns=columns))
        said = [*listing.notes, *said, *_notes(listing, class_names, unlisted=otherwise)]
        notes += [f"client {folder.name}: {note}" for note in said]
    train, test = (join(name, parts) for name, parts in splits.items())
    if not len(test):
        raise InputError(f"{path}: no site has test images; name some in the split of a site, or give no split")
    return with_notes(ImageData("clients", class_names, train, test, CLIENT_COLUMN, tuple(notes)))


def _notes(listing: Listing, class_names: Sequence[str], *, unlisted: int) -> Iterator[str]:
    if CLIENT_COLUMN in listing.images.columns:
        yield f"its column {CLIENT_COLUMN} gives way to the name of its folder"
    lacking = [name for name in class_names if name not in listing.class_names]
    if lacking and unlisted == UNKNOWN:
        remedy = "; unlisted=absent makes them negatives" if listing.unlisted == ABSENT else ""
        yield f"its labels say nothing of {some(lacking)}: unknown in its images{remedy}"
    elif lacking:
        yield f"its labels say nothing of {some(lacking)}: absent in its images, as unlisted=absent says"


def _site_folders(path: Path, options: Options) -> tuple[list[Path], list[str]]:
    if not path.is_dir():
        state = "is no folder" if path.exists() else "is missing"
        raise InputError(f"{path} {state}; expected a folder with one subfolder for each client")
    entries = visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if entry not in folders]
    if not folders:
        hint = f"; it holds {some(files)}: to load it as one data set, write folder:{path}" if files else ""
        raise InputError(f"{path} has no subfolders; expected one for each client{hint}")
    links = ImageFolder(path, follow_links=options.links == "follow")
    for folder in folders:
        links.refuse_link(folder, where=str(folder))
    return folders, [f"{path}: no folders of clients, left out: {some(files)}"] if files else []
