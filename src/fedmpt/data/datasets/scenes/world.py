"""The world of `scenes`: an image's classes and factors, drawn from seed, split and index alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar, cast, get_args

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.placement import Item, place
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
    WEATHERS,
    Background,
    Layout,
    Pose,
    Scene,
    SceneOptions,
    SplitName,
    Style,
    TestMode,
    Weather,
)

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
    weights = list(_weights_alone(background, world))
    for name in chosen:
        weights[CLASS_NAMES.index(name)] = 0
        if world == "reversed" and name in _OTHER_HALF:
            weights[CLASS_NAMES.index(_OTHER_HALF[name])] = 0
    return weights


@cache
def _weights_alone(background: Background, world: TestMode) -> tuple[int, ...]:
    """Weights of the first class."""
    if world == "broken":
        return (1,) * len(CLASS_NAMES)
    away = {pair.anchor for pair in PARTNERS if pair.background == background} if world == "reversed" else set()
    return tuple(0 if name in away else _HOME_WEIGHT if background in homes else 1 for name, homes in HOMES.items())


def sample_scene(options: SceneOptions, split: SplitName, index: int) -> Scene:
    """The scene of image ``index`` of ``split``; other images and their number don't matter to it.

    Training images follow ``spurious``, test images ``test``; group and shift apply to both.

    Raises:
        ValueError: if ``index`` is negative or there is no such split.
    """
    draws = Draws(options.seed, get_args(SplitName).index(split), index)
    group = draws.below(options.groups)
    factors = _Factors(draws, group, options.shift)
    style = cast(Style, factors.draw(options.styles))
    world = options.test if split == "test" else "natural"
    spurious = options.spurious if split == "train" else 0.0
    classes, background = draw_cast(draws, factors.draw(BACKGROUNDS), world=world, spurious=spurious)
    lighting = factors.draw(LIGHTINGS, _LIGHTING_WEIGHTS)
    weather: Weather = factors.draw(WEATHERS, _WEATHER_WEIGHTS)
    pose = factors.draw(POSES, _POSE_WEIGHTS)
    wanted_layout, wanted_scale = factors.draw(LAYOUTS), factors.draw(SCALES)
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


class _Factors:
    """Draws of one image's factors, shifted towards its group's own value of each."""

    def __init__(self, draws: Draws, group: int, shift: float) -> None:
        self._draws, self._group = draws, group
        self._steps = round(shift * _SHIFT_STEPS)

    def draw(self, values: Sequence[Value], weights: Sequence[int] | None = None) -> Value:
        plain = list(weights or [1] * len(values))
        # Groups of one rest still differ from each other in factors with more or fewer values.
        own = (self._group + self._group // len(values)) % len(values)
        shifted = [weight * (_SHIFT_STEPS - self._steps) for weight in plain]
        shifted[own] += sum(plain) * self._steps
        return self._draws.weighted(values, shifted)


def _items(draws: Draws, classes: Sequence[str], pose: Pose) -> list[Item]:
    """Objects from back to front: one of each class, perhaps one more, and distractors."""
    names = list(classes)
    if len(names) < MAX_OBJECTS and draws.chance(_REPEAT):
        names.append(draws.pick(names))
    names += draws.shuffled(DISTRACTORS)[: draws.weighted(range(3), _DISTRACTOR_WEIGHTS)]
    return [Item(name, draws.pick(ANGLES[pose]), draws.chance(0.5)) for name in draws.shuffled(names)]
