from __future__ import annotations

import collections
import dataclasses
import json
from functools import cache

import numpy as np
import pytest

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.render import object_map, sprite_of
from fedmpt.data.datasets.scenes.scene import (
    ANGLES,
    CLASS_NAMES,
    DISTRACTORS,
    LAYOUTS,
    SIDE_PX,
    SIZES_PX,
    Layout,
    Scene,
    SceneOptions,
)
from fedmpt.data.datasets.scenes.world import MIN_VISIBLE, Item, place, sample_scene

OPTIONS = SceneOptions(spurious=0.5)


@cache
def scenes() -> list[Scene]:
    return [sample_scene(OPTIONS, "train", index) for index in range(150)]


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    backwards = [sample_scene(OPTIONS, "train", index) for index in reversed(range(20))]
    assert backwards[::-1] == scenes()[:20]
    others = SceneOptions(spurious=0.5, num_train=7, num_test=9, test="reversed")
    assert sample_scene(others, "train", 3) == scenes()[3]
    assert sample_scene(SceneOptions(spurious=0.1), "test", 3) == sample_scene(OPTIONS, "test", 3)


def test_labels_are_the_objects_that_are_classes() -> None:
    for scene in scenes():
        shown = {item.name for item in scene.objects}
        assert {name for name, label in zip(CLASS_NAMES, scene.labels, strict=True) if label} == shown - {*DISTRACTORS}
        assert scene.class_names == tuple(name for name in CLASS_NAMES if name in shown)
        assert 1 <= sum(item.is_labelled for item in scene.objects) <= 6
        assert shown <= {*CLASS_NAMES, *DISTRACTORS}
    assert any(item.name in DISTRACTORS for scene in scenes() for item in scene.objects)


def test_every_labelled_object_is_seen() -> None:
    shares = []
    for scene in scenes():
        top = object_map(scene.objects, scene.style)
        for number, item in enumerate(scene.objects):
            share = 100 * int((top == number).sum()) // sprite_of(item, scene.style).num_pixels
            assert share == item.visible
            shares += [share] if item.is_labelled else []
    assert min(shares) >= MIN_VISIBLE
    assert sum(share < 90 for share in shares) > len(shares) // 10, "occlusion does occur"


def test_sizes_and_angles_are_those_of_the_recorded_factors() -> None:
    for scene in scenes():
        assert all(item.size in SIZES_PX[scene.scale] for item in scene.objects)
        assert all(item.angle in ANGLES[scene.pose] for item in scene.objects)
        assert (scene.layout == "single") == (sum(item.is_labelled for item in scene.objects) == 1)
        assert scene.background != "indoor" or scene.weather == "clear"
        for item in scene.objects:
            left, upper, right, lower = item.box
            assert 0 <= left < item.x < right <= SIDE_PX
            assert 0 <= upper < item.y < lower <= SIDE_PX


def test_every_factor_varies() -> None:
    for factor in ("layout", "pose", "background", "lighting", "weather", "scale", "style", "group"):
        counts = collections.Counter(getattr(scene, factor) for scene in scenes())
        assert len(counts) >= 3, factor
        assert min(counts.values()) >= 4, factor
        assert max(counts.values()) < len(scenes()) * 0.75, factor


def placed(layout: Layout, *, number: int) -> list[tuple[int, int]]:
    names = CLASS_NAMES[number : number + 4]
    items = [Item(name, 0, False) for name in (*names, "key")]
    objects, got, _ = place(Draws(5, number), items, layout=layout, scale="small", style="noto")
    assert got == layout
    return [(item.x, item.y) for item in objects if item.is_labelled]


@pytest.mark.parametrize("number", range(5))
def test_layouts_are_what_their_names_say(number: int) -> None:
    spread = {layout: np.ptp(np.array(placed(layout, number=number)), axis=0) for layout in LAYOUTS}
    assert spread["row"][0] > 75
    assert spread["row"][1] <= 12
    assert spread["column"][1] > 75
    assert spread["column"][0] <= 12
    assert max(spread["clustered"]) <= 60
    assert min(spread["corners"]) > 60


def test_without_shift_groups_are_alike_and_with_it_each_has_its_own_factors() -> None:
    factors = ("style", "background", "lighting", "pose", "weather")

    def values(shift: float) -> dict[int, list[set[str]]]:
        options = SceneOptions(shift=shift, groups=4)
        found = [sample_scene(options, "train", index) for index in range(120)]
        groups = range(4)
        return {
            group: [{getattr(scene, factor) for scene in found if scene.group == group} for factor in factors]
            for group in groups
        }

    assert all(len(several) >= 3 for sets in values(0.0).values() for several in sets)
    own = values(1.0)
    assert all(len(several) == 1 for sets in own.values() for several in sets)
    assert len({str(sets) for sets in own.values()}) == 4
    assert {len(several) for sets in values(0.6).values() for several in sets} - {1}, "in between there is variety"


def test_scenes_survive_json() -> None:
    scene = next(scene for scene in scenes() if len(scene.objects) > 3)
    assert Scene.from_json(json.loads(json.dumps(dataclasses.asdict(scene)))) == scene
