"""Drawn multi-label pictures whose every factor is known, with a dial for spurious co-occurrence.

It may import what all of `data` may.
"""

from __future__ import annotations

from fedmpt.data.datasets.scenes.dataset import load_scenes, read_scenes
from fedmpt.data.datasets.scenes.render import object_map, render
from fedmpt.data.datasets.scenes.scene import CLASS_NAMES, PARTNERS, Partners, Scene, SceneObject, SceneOptions
from fedmpt.data.datasets.scenes.world import sample_scene

__all__ = [
    "CLASS_NAMES",
    "PARTNERS",
    "Partners",
    "Scene",
    "SceneObject",
    "SceneOptions",
    "load_scenes",
    "object_map",
    "read_scenes",
    "render",
    "sample_scene",
]
