"""Which images of a folder are for training and which for the test, and which are in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedmpt.data.own.listing import Listing, Options, SplitName
from fedmpt.types import InputError

Parts = tuple[list[int], list[int], list[str]]
"""Rows of a listing for training and for the test, and what is to be said of the others."""

# Sizes differ between most pictures; where there are more, so many are alike that reading them takes minutes.
MAX_COMPARED = 20_000


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
    train_sizes, test_sizes = _sizes(train), _sizes(test)
    sizes = set(train_sizes.values()) & set(test_sizes.values())
    originals: dict[str, Path] = {}
    for path in (path for path, size in train_sizes.items() if size in sizes):
        originals.setdefault(_digest(path), path)
    digests = {path: _digest(path) for path, size in test_sizes.items() if size in sizes}
    return [(path, originals[digest]) for path, digest in digests.items() if digest and digest in originals]


def _sizes(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: size for path in paths if path.is_file() and (size := path.stat().st_size)}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
