"""`scenes` as a data set: images drawn once into the cache, their factors beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import get_args

import torch

from fedmpt.data.datasets.scenes.render import render
from fedmpt.data.datasets.scenes.scene import CLASS_NAMES, Scene, SceneOptions, SplitName
from fedmpt.data.datasets.scenes.world import sample_scene
from fedmpt.data.progress import progress_bar
from fedmpt.files import building, publish
from fedmpt.types import ImageData, InputError, Split

VERSION = 1
"""To be raised whenever an image of the same options changes, so that no cache keeps old ones."""

FACTORS_FILE = "factors.jsonl"

_log = logging.getLogger(__name__)


def load_scenes(options: SceneOptions, *, cache: Path, progress: bool = False) -> ImageData:
    """The generated data set.

    Images are drawn into ``cache``/scenes unless they are there; several processes may do that at once, and one that
    is killed leaves nothing that is taken for finished. Raises InputError if the cache cannot be written.
    """
    train, test = (_load_split(options, name, cache / "scenes", progress) for name in get_args(SplitName))
    return ImageData("scenes", CLASS_NAMES, train, test)


def read_scenes(split: Split) -> tuple[Scene, ...]:
    """What was drawn in each image of a split of `scenes`: its factors, objects and group.

    Raises InputError if the split is of another data set, or its files were changed.
    """
    folder = split.files[0].parent
    scenes = _stored(folder, len(split))
    if scenes is None:
        raise InputError(f"{folder} holds no {len(split)} images with a {FACTORS_FILE}; is {split.name!r} of scenes?")
    return scenes


def _load_split(options: SceneOptions, name: SplitName, parent: Path, progress: bool) -> Split:
    count = options.num_train if name == "train" else options.num_test
    folder = parent / f"{name}-{_key(options, name)}"
    scenes = _stored(folder, count)
    if scenes is None:
        if folder.exists():
            _log.warning("%s is damaged; its images are drawn again", folder)
        scenes = tuple(sample_scene(options, name, index) for index in range(count))
        try:
            with building(folder, on_wait=lambda part: _log.info("waiting for %s", part)) as part:
                try:
                    if _stored(folder, count) is None:  # Else somebody was waited for and has drawn them.
                        _draw(part, scenes, name, progress)
                        publish(part, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            remedy = "make room there or choose another folder with --cache"
            raise InputError(f"{parent}: images cannot be written: {error.strerror or error}; {remedy}") from error
    files = tuple(folder / _file_name(index) for index in range(count))
    return Split(name, files, torch.tensor([scene.labels for scene in scenes], dtype=torch.int8))


def _key(options: SceneOptions, name: SplitName) -> str:
    """Of what the images of a split depend on, so that test sets of other kinds share a training set."""
    others = ("num_test", "test") if name == "train" else ("num_train", "spurious")
    words = {key: value for key, value in dataclasses.asdict(options).items() if key not in others}
    return hashlib.sha256(json.dumps([VERSION, name, words], sort_keys=True).encode()).hexdigest()[:16]


def _stored(folder: Path, count: int) -> tuple[Scene, ...] | None:
    """Scenes of a finished folder; None if there is none, or something in it is missing or not ours."""
    try:
        present = set(os.listdir(folder))
        lines = (folder / FACTORS_FILE).read_text(encoding="utf-8").splitlines()
        scenes = tuple(Scene.from_json(json.loads(line)) for line in lines)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_complete = len(scenes) == count and all(_file_name(index) in present for index in range(count))
    return scenes if is_complete else None


def _draw(folder: Path, scenes: tuple[Scene, ...], name: str, progress: bool) -> None:
    from PIL import Image  # Imported here: listing data sets must not wait for it.

    with progress_bar(f"drawing {name} images", len(scenes), enabled=progress) as advance:
        for index, scene in enumerate(scenes):
            # Not packed: what zlib makes of an image differs between machines, and the bytes key its features.
            Image.fromarray(render(scene)).save(folder / _file_name(index))
            advance(1)
    lines = [json.dumps(dataclasses.asdict(scene), separators=(",", ":")) + "\n" for scene in scenes]
    (folder / FACTORS_FILE).write_text("".join(lines), encoding="utf-8")


def _file_name(index: int) -> str:
    return f"{index:08d}.bmp"
