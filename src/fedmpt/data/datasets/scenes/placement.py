"""Where the objects of a scene lie, so that enough of each labelled one is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.render import object_map, sprite, sprite_of
from fedmpt.data.datasets.scenes.scene import CLASS_NAMES, SCALES, SIDE_PX, SIZES_PX, Layout, Scale, SceneObject, Style

MIN_VISIBLE = 40
"""Percentage of its pixels that a labelled object shows at least."""

_ATTEMPTS = 8

Centre = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """An object that has no place yet."""

    name: str
    angle: int
    mirrored: bool

    @property
    def is_labelled(self) -> bool:
        return self.name in CLASS_NAMES


def place(
    draws: Draws, items: Sequence[Item], *, layout: Layout, scale: Scale, style: Style
) -> tuple[tuple[SceneObject, ...], Layout, Scale]:
    """``items`` from back to front in ``layout``, and the layout and scale they got.

    Where objects of ``scale`` would hide each other they get smaller; where even that does not do, they are scattered.
    """
    for smaller in reversed(SCALES[: SCALES.index(scale) + 1]):
        for _ in range(_ATTEMPTS):
            sizes = [draws.pick(SIZES_PX[smaller]) for _ in items]
            objects = _objects(items, sizes, _centres(draws, items, layout, max(sizes)), style)
            if _is_visible(objects):
                return objects, layout, smaller
    sizes = [draws.pick(SIZES_PX["small"]) for _ in items]
    objects = _objects(items, sizes, draws.shuffled(_GRID)[: len(items)], style)
    assert _is_visible(objects), "cells of the grid are wider than small objects"
    return objects, "single" if layout == "single" else "scattered", "small"


def _is_visible(objects: Sequence[SceneObject]) -> bool:
    return all(item.visible >= MIN_VISIBLE for item in objects if item.is_labelled)


def _objects(
    items: Sequence[Item], sizes: Sequence[int], centres: Sequence[Centre], style: Style
) -> tuple[SceneObject, ...]:
    placed = []
    for item, size, (x, y) in zip(items, sizes, centres, strict=True):
        height, width = sprite(item.name, style, size, item.angle, item.mirrored).mask.shape
        left = min(max(x - width // 2, 0), SIDE_PX - width)
        upper = min(max(y - height // 2, 0), SIDE_PX - height)
        box = (left, upper, left + width, upper + height)
        middle = (left + width // 2, upper + height // 2)
        placed.append(SceneObject(item.name, *middle, size, item.angle, item.mirrored, box, visible=0))
    counts = np.bincount(object_map(placed, style).ravel() + 1, minlength=len(items) + 1)[1:].tolist()
    shares = [100 * count // sprite_of(item, style).num_pixels for item, count in zip(placed, counts, strict=True)]
    return tuple(replace(item, visible=share) for item, share in zip(placed, shares, strict=True))


def _centres(draws: Draws, items: Sequence[Item], layout: Layout, size: int) -> list[Centre]:
    """Labelled objects get the layout's places, distractors any."""
    places = iter(draws.shuffled(_PLACES[layout](draws, sum(item.is_labelled for item in items), size)))
    return [next(places) if item.is_labelled else _anywhere(draws, size) for item in items]


def _anywhere(draws: Draws, size: int) -> Centre:
    return draws.between(size // 2, SIDE_PX - size // 2), draws.between(size // 2, SIDE_PX - size // 2)


def _single(draws: Draws, count: int, size: int) -> list[Centre]:
    return [_anywhere(draws, size) for _ in range(count)]


def _row(draws: Draws, count: int, size: int) -> list[Centre]:
    """Evenly from left to right, at about one height."""
    middle = draws.between(size // 2 + 6, SIDE_PX - size // 2 - 6)
    room = SIDE_PX - size
    return [
        (size // 2 + room * number // max(count - 1, 1) + draws.between(-3, 3), middle + draws.between(-5, 5))
        for number in range(count)
    ]


def _column(draws: Draws, count: int, size: int) -> list[Centre]:
    return [(y, x) for x, y in _row(draws, count, size)]


def _clustered(draws: Draws, count: int, size: int) -> list[Centre]:
    """Close to one point; the more objects, the less close."""
    reach = size * (count + 3) // 8
    x, y = (draws.between(size // 2 + 12, SIDE_PX - size // 2 - 12) for _ in range(2))
    return [(x + draws.between(-reach, reach), y + draws.between(-reach, reach)) for _ in range(count)]


def _corners(draws: Draws, count: int, size: int) -> list[Centre]:
    """Corners first, then the middle, then the middle of the upper and the lower edge."""
    near, far, middle = size // 2, SIDE_PX - size // 2, SIDE_PX // 2
    corners = draws.shuffled([(near, near), (near, far), (far, near), (far, far)])
    slots = [*corners, (middle, middle), (middle, near), (middle, far)]
    return [(x + draws.between(-5, 5), y + draws.between(-5, 5)) for x, y in slots[:count]]


_PLACES = {
    "single": _single,
    "row": _row,
    "column": _column,
    "clustered": _clustered,
    "scattered": _single,
    "corners": _corners,
}
_GRID = [(x, y) for x in (19, 56, 93) for y in (19, 56, 93)]
