"""The world of `scenes`: an image's classes and factors, and where its objects lie, by seed, split and index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast, get_args

import numpy as np

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.render import object_map, sprite, sprite_of
from fedmpt.data.datasets.scenes.scene import (
    ANGLES,
    BACKGROUNDS,
    CLASS_NAMES,
    DISTRACTORS,
    HOMES,
    LAYOUTS,
    LIGHTINGS,
    PARTNERS,
    POSES,
    SCALES,
    SIDE_PX,
    SIZES_PX,
    WEATHERS,
    Background,
    Layout,
    Pose,
    Scale,
    Scene,
    SceneObject,
    SceneOptions,
    SplitName,
    Style,
    TestMode,
    Weather,
)

MIN_VISIBLE = 40
"""Percentage of its pixels that a labelled object shows at least."""

_ATTEMPTS = 8

Centre = tuple[int, int]

NUM_BACKDROPS = 48
NUM_OVERLAYS = 16
MAX_OBJECTS = 6
"""Labelled objects of an image; partners count, distractors don't."""

# Weights without group shift. Plain values are commoner, as in photographs.
_WEATHER_WEIGHTS = (5, 2, 2, 2)
_LIGHTING_WEIGHTS = (4, 2, 2, 2, 2)
_POSE_WEIGHTS = (4, 3, 2)
_DISTRACTOR_WEIGHTS = (2, 1, 1)
# Chance of a second object of a class that is there.
_REPEAT = 0.3
# A shift in [0, 1] becomes this many whole steps.
_SHIFT_STEPS = 1000

Value = TypeVar("Value")

# How much likelier than elsewhere a class is at home.
_HOME_WEIGHT = 3
# Weights of one, two ... classes, before partners are added.
_CLASS_COUNT_WEIGHTS = (3, 4, 4, 2, 1)

_PAIR_OF_ANCHOR = {pair.anchor: pair for pair in PARTNERS}
_OTHER_HALF = {pair.anchor: pair.partner for pair in PARTNERS} | {pair.partner: pair.anchor for pair in PARTNERS}


def draw_cast(
    draws: Draws, background: Background, *, world: TestMode, spurious: float
) -> tuple[list[str], Background]:
    """One to six classes that go with ``background``; in spurious scenes their partners and the partners' background.

    With probability ``spurious`` an anchor brings its partner along; the first that does also decides the
    background. Otherwise a partner may still come, as any class may.
    """
    count = draws.weighted(range(1, 6), _CLASS_COUNT_WEIGHTS)
    classes: list[str] = []
    is_moved = False
    while len(classes) < count:
        name = draws.weighted(CLASS_NAMES, _weights(classes, background, world))
        classes.append(name)
        pair = _PAIR_OF_ANCHOR.get(name)
        if pair is None or not draws.chance(spurious):
            continue
        if pair.partner not in classes:
            classes.append(pair.partner)
        if not is_moved:
            background, is_moved = pair.background, True
    return classes, background


def _weights(chosen: Sequence[str], background: Background, world: TestMode) -> list[int]:
    """How likely each class is to come next."""
    barred = set(chosen)
    if world == "reversed":
        barred |= {_OTHER_HALF[name] for name in chosen if name in _OTHER_HALF}
        barred |= {pair.anchor for pair in PARTNERS if pair.background == background}
    at_home = {name for name, homes in HOMES.items() if background in homes and world != "broken"}
    return [0 if name in barred else _HOME_WEIGHT if name in at_home else 1 for name in CLASS_NAMES]


def sample_scene(options: SceneOptions, split: SplitName, index: int) -> Scene:
    """The scene of image ``index`` of ``split``; other images and their number don't matter to it.

    Training images follow ``spurious``, test images ``test``; group and shift apply to both.

    Raises:
        ValueError: if ``index`` is negative or there is no such split.
    """
    draws = Draws(options.seed, get_args(SplitName).index(split), index)
    group = draws.below(options.groups)
    steps = round(options.shift * _SHIFT_STEPS)

    def factor(values: Sequence[Value], weights: Sequence[int] | None = None) -> Value:
        """One of ``values``, shifted towards the group's own."""
        plain = list(weights or [1] * len(values))
        # Groups of one rest still differ from each other in factors with more or fewer values.
        own = (group + group // len(values)) % len(values)
        shifted = [weight * (_SHIFT_STEPS - steps) for weight in plain]
        shifted[own] += sum(plain) * steps
        return draws.weighted(values, shifted)

    style = cast(Style, factor(options.styles))
    world = options.test if split == "test" else "natural"
    spurious = options.spurious if split == "train" else 0.0
    classes, background = draw_cast(draws, factor(BACKGROUNDS), world=world, spurious=spurious)
    lighting = factor(LIGHTINGS, _LIGHTING_WEIGHTS)
    weather: Weather = factor(WEATHERS, _WEATHER_WEIGHTS)
    pose = factor(POSES, _POSE_WEIGHTS)
    wanted_layout, wanted_scale = factor(LAYOUTS), factor(SCALES)
    items = _items(draws, classes, pose)
    layout: Layout = "single" if sum(item.is_labelled for item in items) == 1 else wanted_layout
    objects, layout, scale = place(draws, items, layout=layout, scale=wanted_scale, style=style)
    return Scene(
        objects=objects,
        layout=layout,
        pose=pose,
        background=background,
        lighting=lighting,
        weather="clear" if background == "indoor" else weather,
        scale=scale,
        style=style,
        group=group,
        backdrop=draws.below(NUM_BACKDROPS),
        overlay=draws.below(NUM_OVERLAYS),
    )


def _items(draws: Draws, classes: Sequence[str], pose: Pose) -> list[Item]:
    """Objects from back to front: one of each class, perhaps one more, and distractors."""
    names = list(classes)
    if len(names) < MAX_OBJECTS and draws.chance(_REPEAT):
        names.append(draws.pick(names))
    names += draws.shuffled(DISTRACTORS)[: draws.weighted(range(3), _DISTRACTOR_WEIGHTS)]
    return [Item(name, draws.pick(ANGLES[pose]), draws.chance(0.5)) for name in draws.shuffled(names)]


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
