"""Which images of a listing are for training and which for the test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedmpt.data.own.listing import Listing, Options
from fedmpt.types import InputError


@dataclass(frozen=True)
class Parts:
    """Rows of a listing for training and for the test, and what is to be said of the others."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    notes: tuple[str, ...]


def divide(listing: Listing, options: Options, *, needs_test: bool = True, needs_train: bool = False) -> Parts:
    """The given split, or one by names: an image is held out for the test whatever other images there are.

    Validation images are the test where no others are, and otherwise left out. ``needs_test`` and ``needs_train`` say
    which part may not be empty; what has test images alone can be scored.

    Raises:
        InputError: if a part that is needed has no image.
    """
    root = listing.root
    if listing.splits[0] is None:
        if options.test_share == 1 and not needs_train:
            note = f"{root}: all {len(listing.keys)} images are for the test (test_share=1)"
            return Parts((), tuple(range(len(listing.keys))), (note,))
        return _hold_out(listing, options, needs_test=needs_test)
    rows: dict[str, list[int]] = {"train": [], "test": [], "validation": []}
    for row, split in enumerate(listing.splits):
        assert split is not None
        rows[split].append(row)
    validation, notes = rows["validation"], []
    if validation and rows["test"]:
        notes.append(f"{root}: {len(validation)} validation images are left out: no part of train or test")
    elif validation:
        rows["test"] = validation
        notes.append(f"{root}: there are no test images; the {len(validation)} validation images are the test")
    for name, is_needed in (("train", needs_train), ("test", needs_test)):
        if not rows[name] and is_needed:
            raise InputError(
                f"{root}: the split that is given has no {name} images; name some, or give no split to have "
                "some held out as test images (test_share)"
            )
        if not rows[name]:
            notes.append(f"{root}: no {name} images")
    return Parts(tuple(rows["train"]), tuple(rows["test"]), tuple(notes))


def _hold_out(listing: Listing, options: Options, *, needs_test: bool) -> Parts:
    root, num_images = listing.root, len(listing.keys)
    if num_images < 2:
        if needs_test:
            raise InputError(f"{root} has one image only; expected at least one to train and one to test with")
        return Parts((0,), (), (f"{root}: its only image is for training, and there is none for the test",))
    places = [place_of(key, options.seed) for key in listing.keys]
    order = sorted(range(num_images), key=lambda row: (places[row], listing.keys[row]))
    num_held_out = sum(place < options.test_share for place in places)
    num_test = min(max(num_held_out, 1), num_images - 1)
    note = (
        f"{root}: no split is given; {num_test} of {num_images} images are held out as test images "
        f"(test_share={options.test_share}, seed={options.seed})"
    )
    return Parts(tuple(sorted(order[num_test:])), tuple(sorted(order[:num_test])), (note,))


def place_of(key: str, seed: int) -> float:
    """Where an image stands in [0, 1), by its name alone."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
