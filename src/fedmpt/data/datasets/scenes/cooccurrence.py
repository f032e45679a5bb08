"""Which classes a scene shows, and where: the dial for spurious co-occurrence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.options import TestMode
from fedmpt.data.datasets.scenes.vocabulary import CLASS_NAMES, HOMES, PARTNERS, Background

# How much likelier than elsewhere a class is at home.
_HOME_WEIGHT = 3
# Weights of one, two ... classes, before partners are added.
_CLASS_COUNT_WEIGHTS = (3, 4, 4, 2, 1)

_PAIR_OF_ANCHOR = {pair.anchor: pair for pair in PARTNERS}
_OTHER_HALF = {pair.anchor: pair.partner for pair in PARTNERS} | {pair.partner: pair.anchor for pair in PARTNERS}


@dataclass(frozen=True)
class Cast:
    """Distinct classes, one to six, and the background they are seen before."""

    classes: tuple[str, ...]
    background: Background


def draw_cast(draws: Draws, background: Background, *, world: TestMode, spurious: float) -> Cast:
    """Classes that go with ``background``, and in spurious scenes their partners and the partners' background.

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
    return Cast(tuple(classes), background)


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
