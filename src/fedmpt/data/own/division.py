"""From a listing to train and test, and what a user should hear of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.own.listing import Listing, Options, some
from fedmpt.types import PRESENT, InputError, Split


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
    if listing.splits[0] is None:
        if options.test_share == 1 and not needs_train:
            note = f"{listing.root}: all {len(listing.keys)} images are for the test (test_share=1)"
            return Parts((), tuple(range(len(listing.keys))), (note,))
        return _hold_out(listing, options, needs_test=needs_test)
    rows = {name: [row for row, split in enumerate(listing.splits) if split == name] for name in ("train", "test")}
    validation = [row for row, split in enumerate(listing.splits) if split == "validation"]
    notes: tuple[str, ...] = ()
    if validation and rows["test"]:
        notes = (f"{listing.root}: {len(validation)} validation images are left out: no part of train or test",)
    elif validation:
        rows["test"] = validation
        notes = (f"{listing.root}: there are no test images; the {len(validation)} validation images are the test",)
    for name, is_needed in (("train", needs_train), ("test", needs_test)):
        if not rows[name] and is_needed:
            raise InputError(
                f"{listing.root}: the split that is given has no {name} images; name some, or give no split to have "
                "some held out as test images (test_share)"
            )
    notes += tuple(f"{listing.root}: no {name} images" for name in ("train", "test") if not rows[name])
    return Parts(tuple(rows["train"]), tuple(rows["test"]), notes)


def _hold_out(listing: Listing, options: Options, *, needs_test: bool) -> Parts:
    num_images = len(listing.keys)
    if num_images < 2:
        if needs_test:
            raise InputError(f"{listing.root} has one image only; expected at least one to train and one to test with")
        return Parts((0,), (), (f"{listing.root}: its only image is for training, and there is none for the test",))
    places = [_place(key, options.seed) for key in listing.keys]
    order = sorted(range(num_images), key=lambda row: (places[row], listing.keys[row]))
    num_held_out = sum(place < options.test_share for place in places)
    num_test = min(max(num_held_out, 1), num_images - 1)
    held_out = set(order[:num_test])
    train = tuple(row for row in range(num_images) if row not in held_out)
    note = (
        f"{listing.root}: no split is given; {num_test} of {num_images} images are held out as test images "
        f"(test_share={options.test_share}, seed={options.seed})"
    )
    return Parts(train, tuple(sorted(held_out)), (note,))


def _place(key: str, seed: int) -> float:
    """Of an image in [0, 1), by its name alone."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def select(listing: Listing, name: str, rows: Sequence[int], labels: Int8[Tensor, "images C"]) -> Split:
    """Some images as a split; ``labels`` are those of all images of the listing."""
    return Split(
        name=name,
        files=tuple(listing.files[row] for row in rows),
        labels=labels[list(rows)],
        columns={column: tuple(words[row] for row in rows) for column, words in listing.columns.items()},
    )


def label_notes(class_names: Sequence[str], split: Split) -> Iterator[str]:
    """Classes that no image of a split shows."""
    if not len(split):
        return
    shown = (split.labels == PRESENT).any(dim=0).tolist()
    if lacking := [name for name, is_shown in zip(class_names, shown, strict=True) if not is_shown]:
        yield f"no {split.name} image shows: {some(lacking)}"
