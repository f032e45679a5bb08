from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from fedmpt.data.datasets.scenes.backdrop import backdrop
from fedmpt.data.datasets.scenes.render import _share, object_map, render
from fedmpt.data.datasets.scenes.scene import BACKGROUNDS, LIGHTINGS, WEATHERS, Scene, SceneOptions
from fedmpt.data.datasets.scenes.world import NUM_BACKDROPS, sample_scene

EMPTY = Scene((), "scattered", "upright", "nature", "daylight", "clear", "small", "noto", 0, 3, 3)


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("options", "split", "index", "expected"),
    [
        (SceneOptions(), "train", 0, "d94cbd314a0495ca"),
        (SceneOptions(), "test", 12345, "fb0e349446a6154d"),
        (SceneOptions(spurious=0.9, shift=0.5, seed=3), "train", 7, "b4397a1f9308731f"),
        (SceneOptions(test="reversed", styles=("fluent",)), "test", 1, "b045761d76bf3249"),
    ],
)
def test_images_are_pinned(options: SceneOptions, split: str, index: int, expected: str) -> None:
    # A change on purpose needs a new dataset.VERSION beside new values here.
    assert digest(render(sample_scene(options, split, index))) == expected


def test_all_pictures_of_all_factors_are_pinned() -> None:
    whole = hashlib.sha256()
    for background, number in itertools.product(BACKGROUNDS, range(NUM_BACKDROPS)):
        whole.update(backdrop(background, number).tobytes())
    for lighting, weather in itertools.product(LIGHTINGS, WEATHERS):
        whole.update(render(dataclasses.replace(EMPTY, lighting=lighting, weather=weather)).tobytes())
    assert whole.hexdigest()[:16] == "5d28432a9c130f42"


def test_every_labelled_object_shows_in_the_pixels() -> None:
    for index in range(40):
        scene = sample_scene(SceneOptions(), "train", index)
        whole, top = render(scene).astype(int), object_map(scene.objects, scene.style)
        for number, item in enumerate(scene.objects):
            without = dataclasses.replace(scene, objects=(*scene.objects[:number], *scene.objects[number + 1 :]))
            changed = (abs(whole - render(without)) > 3).any(axis=2)
            assert changed[top == number].mean() > 0.6, (index, item.name)
            assert not changed[(top != number) & ~near(item.box)].any()


def near(box: tuple[int, int, int, int]) -> np.ndarray:
    inside = np.zeros((112, 112), dtype=bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return inside


def test_shares_are_whole_divisions() -> None:
    values = np.arange(256, dtype=np.uint8)
    pixels = np.repeat(np.tile(values, (256, 1))[..., None], 3, axis=2)
    found = _share(pixels, np.tile(values[:, None], (1, 256)))
    expected = values.astype(int)[:, None] * values.astype(int)[None] // 255
    assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))
