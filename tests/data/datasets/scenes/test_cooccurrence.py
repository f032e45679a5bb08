"""The dials: how often partners come together, counted over many casts."""

from __future__ import annotations

import collections
from functools import cache
from typing import NamedTuple

import pytest

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import (
    BACKGROUNDS,
    CLASS_NAMES,
    HOMES,
    PARTNERS,
    Partners,
    SceneOptions,
    SplitName,
    TestMode,
)
from fedmpt.data.datasets.scenes.world import draw_cast, sample_scene

NUM_CASTS = 3000


class Cast(NamedTuple):
    classes: list[str]
    background: Background


@cache
def casts(world: TestMode, spurious: float = 0.0) -> list[Cast]:
    def draw(number: int) -> Cast:
        draws = Draws(11, number)
        return Cast(*draw_cast(draws, draws.pick(BACKGROUNDS), world=world, spurious=spurious))

    return [draw(number) for number in range(NUM_CASTS)]


def partner_rate(found: list[Cast], pairs: tuple[Partners, ...] = PARTNERS) -> float:
    """How often an anchor's partner is there, over all anchors of ``pairs``."""
    with_anchor = [pair.partner in cast.classes for pair in pairs for cast in found if pair.anchor in cast.classes]
    return sum(with_anchor) / len(with_anchor)


def background_rate(found: list[Cast]) -> float:
    """How often an anchor is before its pair's background."""
    before = [cast.background == pair.background for pair in PARTNERS for cast in found if pair.anchor in cast.classes]
    return sum(before) / len(before)


def class_rates(found: list[Cast]) -> dict[str, float]:
    counts = collections.Counter(name for cast in found for name in cast.classes)
    return {name: counts[name] / len(found) for name in CLASS_NAMES}


def test_without_the_dial_partners_meet_as_any_two_classes_at_home_do() -> None:
    found = casts("natural")
    assert 0.05 < partner_rate(found) < 0.2
    assert 0.25 < background_rate(found) < 0.5


@pytest.mark.parametrize("spurious", [0.5, 0.9])
def test_spurious_adds_the_partner_that_often(spurious: float) -> None:
    natural = partner_rate(casts("natural"))
    # Where it does not add the partner, that comes as it naturally does, or has come before.
    expected = spurious + (1 - spurious) * natural
    assert partner_rate(casts("natural", spurious)) == pytest.approx(expected, abs=0.04)
    for pair in PARTNERS:
        assert partner_rate(casts("natural", spurious), (pair,)) == pytest.approx(expected, abs=0.1)


def test_broken_has_no_ties_at_all() -> None:
    found = casts("broken")
    joint = partner_rate(found)
    base = sum(class_rates(found)[pair.partner] for pair in PARTNERS) / len(PARTNERS)
    assert joint == pytest.approx(base, abs=0.02)
    assert background_rate(found) == pytest.approx(1 / len(BACKGROUNDS), abs=0.02)


def test_reversed_keeps_partners_and_their_background_apart() -> None:
    found = casts("reversed")
    assert partner_rate(found) == 0
    assert background_rate(found) == 0
    rates = class_rates(found)
    assert all(rates[name] > 0.04 for pair in PARTNERS for name in (pair.anchor, pair.partner)), "both still occur"


def test_classes_are_met_at_home_more_often() -> None:
    found = casts("natural")
    at_home = sum(cast.background in HOMES[name] for cast in found for name in cast.classes)
    assert 0.5 < at_home / sum(len(cast.classes) for cast in found) < 0.7


@pytest.mark.parametrize(
    ("options", "split", "low", "high"),
    [
        (SceneOptions(spurious=0.9), "train", 0.8, 1.0),
        (SceneOptions(spurious=0.9), "test", 0.0, 0.3),
        (SceneOptions(test="reversed"), "train", 0.01, 0.3),
        (SceneOptions(spurious=0.9, test="reversed"), "test", 0.0, 0.0),
    ],
)
def test_the_dials_reach_the_scenes(options: SceneOptions, split: SplitName, low: float, high: float) -> None:
    scenes = [sample_scene(options, split, index) for index in range(150)]
    met = [
        pair.partner in scene.class_names for pair in PARTNERS for scene in scenes if pair.anchor in scene.class_names
    ]
    assert len(met) > 50
    assert low <= sum(met) / len(met) <= high
