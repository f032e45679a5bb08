"""A tie between classes, made in training and cut in the test, on any data set.

For a pair of a context a (a cat) and a target b (a chair), most training images of a without b are moved to the test
set. Training then hardly ever sees a without b, and the test asks whether a model reports b where only a is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Int8, Int64
from torch import Tensor

from fedmpt.data.own.listing import join
from fedmpt.data.pairs import MIN_CONTEXT_ONLY, MIN_JOINT, tied_pairs
from fedmpt.data.reading import closest, some
from fedmpt.seeding import generator
from fedmpt.types import ABSENT, PRESENT, ImageData, InputError, Pair, Split

Cut = Literal["context", "both"]

COLUMN, MOVED = "ties", "moved"
"""The column of a test split that marks moved images, and its word for them; other images have an empty one."""


@dataclass(frozen=True)
class TiesOptions:
    """How a tie is made, as it is written behind the name of a data set.

    ``ties`` is the share of the telling training images that are moved to the test set, in (0, 1]. An image is telling
    if it shows the context of a pair without its target; with ``ties_cut="both"`` also if it shows a target without
    its context and no pair as a whole. ``ties_pairs`` is how many pairs are found, by `fedmpt.data.pairs.tied_pairs`
    on all labels, or names them: ``"bus:person+dining table:chair"``. ``ties_joint`` is the share, in [0, 1), of the
    training images with a whole pair, and telling for none, that move too: in most tests they are few, and scores on
    them coarse. ``ties_seed`` draws the images that move.

    With ``ties_control`` training is not tied, but has as many images as the tied run: half of the moved images (half
    1 or 2) stay in training, the others are in the test, and as many images that are not telling are left out.

    Raises InputError if an option is out of its range.
    """

    ties: float
    ties_cut: Cut = "context"
    ties_pairs: str = "8"
    ties_joint: float = 0.0
    ties_seed: int = 0
    ties_control: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ties <= 1:
            raise InputError(
                f"ties is {self.ties}; it must be in (0, 1]: the share of the telling images that is moved"
            )
        if not 0 <= self.ties_joint < 1:
            raise InputError(f"ties_joint is {self.ties_joint}; it must be in [0, 1): the share of joint images moved")
        if self.ties_pairs.isdecimal() and int(self.ties_pairs) < 1:
            raise InputError(f"ties_pairs is {self.ties_pairs}; give a number of pairs, at least 1, or their names")
        if self.ties_control not in (None, 1, 2):
            raise InputError(f"ties_control is {self.ties_control}; it may be 1 or 2, the half that stays in training")


def cut_ties(
    data: ImageData,
    options: TiesOptions,
    *,
    pairs: tuple[Pair, ...] | None = None,
    pool: tuple[Split, ...] | None = None,
) -> ImageData:
    """The data with telling training images moved to the test set, marked there in the column ``"ties"``.

    ``pairs`` and the ``pool`` of features are the data's own unless given.

    Raises InputError if a pair's class does not exist, no pair is found, nothing would be moved, a control has not
    images enough, or the data have a column ``"ties"`` already.
    """
    if COLUMN in data.train.columns or COLUMN in data.test.columns:
        raise InputError(
            f"{data.name} has a column {COLUMN!r} of its own, and the option ties marks moved images in one of that "
            "name; rename the column"
        )
    pairs, pool = pairs or _pairs(data, options), pool or (data.train, data.test)
    telling = telling_images(data.train.labels, pairs, cut=options.ties_cut)
    moved = _drawn(data, options, telling, pairs)
    joint = joint_images(data.train.labels, pairs) & ~telling
    both = _shuffled(joint, options.ties_seed, "ties joint")[: round(options.ties_joint * int(joint.sum()))]
    taken = telling.index_fill(0, both, True)
    described = f"training images with {_named(data, pairs)}"
    described += " or the other way round" if options.ties_cut == "both" else ""
    if options.ties_control is None:
        left_out = moved[:0]
        note = f"ties cut: {len(moved)} of {int(telling.sum())} {described} are moved from training to test"
    else:
        half = len(moved) // 2
        halves = moved[:half], moved[half:]
        back, moved = halves if options.ties_control == 1 else halves[::-1]
        left_out = _left_out(data, options, taken, num=len(back))
        note = (
            f"ties control {options.ties_control}: {len(moved)} {described} are moved from training to test, the other "
            f"half ({len(back)}) stay, and as many others are left out"
        )
    is_kept = torch.ones(len(data.train), dtype=torch.bool)
    if len(both):
        note += f"; {len(both)} of {int(joint.sum())} with a whole pair move, too"
    is_kept[torch.cat([moved, both, left_out])] = False
    train = data.train.take(is_kept.nonzero().flatten().tolist())
    added = _marked(data.train.take(moved.sort().values.tolist()), MOVED)
    also = _marked(data.train.take(both.sort().values.tolist()), "")
    test = join(data.test.name, [_marked(data.test, ""), also, added])
    return replace(
        data,
        train=replace(train, pool=pool),
        test=replace(test, pool=pool),
        notes=(*data.notes, note),
        pairs=pairs,
        uncut=data,
        recut=partial(cut_ties, options=options, pairs=pairs, pool=pool),
    )


def is_moved(split: Split) -> Bool[Tensor, " images"]:
    """Which images of a test split were moved there."""
    words = split.columns.get(COLUMN, ("",) * len(split))
    return torch.tensor([word == MOVED for word in words], dtype=torch.bool)


def telling_images(labels: Int8[Tensor, "images C"], pairs: Sequence[Pair], *, cut: Cut) -> Bool[Tensor, " images"]:
    """Which images untie some pair, see `TiesOptions`. Unknown labels never do."""
    contexts, targets = (labels[:, list(classes)] for classes in zip(*pairs, strict=True))
    telling = ((contexts == PRESENT) & (targets == ABSENT)).any(dim=1)
    if cut == "both":
        telling |= ((contexts == ABSENT) & (targets == PRESENT)).any(dim=1) & ~joint_images(labels, pairs)
    return telling


def joint_images(labels: Int8[Tensor, "images C"], pairs: Sequence[Pair]) -> Bool[Tensor, " images"]:
    """Which images show some pair as a whole."""
    contexts, targets = (labels[:, list(classes)] for classes in zip(*pairs, strict=True))
    return ((contexts == PRESENT) & (targets == PRESENT)).any(dim=1)


def _drawn(
    data: ImageData, options: TiesOptions, telling: Bool[Tensor, " images"], pairs: Sequence[Pair]
) -> Int64[Tensor, " moved"]:
    """The telling images that are moved, in random order."""
    rows = _shuffled(telling, options.ties_seed, "ties")
    num = round(options.ties * len(rows))
    least = 1 if options.ties_control is None else 2
    if num < least:
        raise InputError(
            f"{data.name}: ties={options.ties} moves {num} of {len(rows)} training images with {_named(data, pairs)}; "
            f"it must be at least {least}: take a larger share, or other pairs with ties_pairs"
        )
    return rows[:num]


def _left_out(
    data: ImageData, options: TiesOptions, telling: Bool[Tensor, " images"], *, num: int
) -> Int64[Tensor, " num"]:
    """Images that leave training so that a control has no more of them than the tied run."""
    others = _shuffled(~telling, options.ties_seed, f"ties control {options.ties_control}")
    if len(others) < num:
        raise InputError(
            f"{data.name}: ties_control={options.ties_control} puts {num} images back and has to leave out as many "
            f"that are no part of a tie, but there are {len(others)}; take a smaller share than ties={options.ties}"
        )
    return others[:num]


def _shuffled(chosen: Bool[Tensor, " images"], seed: int, purpose: str) -> Int64[Tensor, " chosen"]:
    rows = chosen.nonzero().flatten()
    return rows[torch.randperm(len(rows), generator=generator(seed, purpose))]


def _marked(split: Split, word: str) -> Split:
    return replace(split, columns={**split.columns, COLUMN: (word,) * len(split)})


def _named(data: ImageData, pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{data.class_names[a]} without {data.class_names[b]}" for a, b in pairs)


def _pairs(data: ImageData, options: TiesOptions) -> tuple[Pair, ...]:
    if options.ties_pairs.isdecimal():
        labels = torch.cat([data.train.labels, data.test.labels])
        found = tied_pairs(labels, num_pairs=int(options.ties_pairs))
        if not found:
            raise InputError(
                f"{data.name}: no two classes are together more often than chance, in at least {MIN_JOINT} images, and "
                f"have at least {MIN_CONTEXT_ONLY} images of one alone; name pairs with ties_pairs=cat:chair+dog:ball"
            )
        return found
    pairs = tuple(_pair(words, data) for words in options.ties_pairs.split("+"))
    if len(set(pairs)) < len(pairs):
        raise InputError(f"ties_pairs={options.ties_pairs}: a pair is named twice; keep one")
    return pairs


def _pair(words: str, data: ImageData) -> Pair:
    names = words.split(":")
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(
            f"ties_pairs: {words!r} is no pair; write CONTEXT:TARGET, two classes, with + between pairs: "
            "cat:chair+dog:ball"
        )
    for name in names:
        if name not in data.class_names:
            listed = some(data.class_names)
            raise InputError(
                f"ties_pairs: {data.name} has no class {name!r}{closest(name, data.class_names)}; classes are: {listed}"
            )
    return data.class_names.index(names[0]), data.class_names.index(names[1])
