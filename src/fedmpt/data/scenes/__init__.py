"""`scenes`: generated multi-label images whose every factor is known, with a dial for spurious co-occurrence."""

from __future__ import annotations

from fedmpt.data.scenes.dataset import load_scenes, read_scenes
from fedmpt.data.scenes.options import SceneOptions
from fedmpt.data.scenes.placement import object_map
from fedmpt.data.scenes.render import render
from fedmpt.data.scenes.scene import Scene, SceneObject
from fedmpt.data.scenes.vocabulary import CLASS_NAMES, PARTNERS, Partners
from fedmpt.data.scenes.world import sample_scene

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
