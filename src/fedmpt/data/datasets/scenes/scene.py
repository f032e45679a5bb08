"""A scene: everything that decides one image, and what is asked about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmpt.data.datasets.scenes.vocabulary import (
    CLASS_NAMES,
    Background,
    Layout,
    Lighting,
    Pose,
    Scale,
    Style,
    Weather,
)
from fedmpt.types import ABSENT, PRESENT

SIDE_PX = 112
"""Height and width of an image."""


@dataclass(frozen=True)
class SceneObject:
    """A pictogram on the image: centre (``x``, ``y``) from the top left, ``size`` before turning by ``angle``.

    ``box`` is (left, top, right, bottom), right and bottom not included. ``visible`` is the percentage of its
    pixels that no later object covers. What is no class of the data set is a distractor, without label.
    """

    name: str
    x: int
    y: int
    size: int
    angle: int
    mirrored: bool
    box: tuple[int, int, int, int]
    visible: int

    @property
    def is_labelled(self) -> bool:
        return self.name in CLASS_NAMES


@dataclass(frozen=True)
class Scene:
    """One image before it is drawn. ``objects`` are from back to front.

    ``group`` is whose image it is where factors differ by group. ``backdrop`` and ``overlay`` choose among pictures
    of one background and one weather.
    """

    objects: tuple[SceneObject, ...]
    layout: Layout
    pose: Pose
    background: Background
    lighting: Lighting
    weather: Weather
    scale: Scale
    style: Style
    group: int
    backdrop: int
    overlay: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that the image shows, in the order of `CLASS_NAMES`."""
        shown = {item.name for item in self.objects}
        return tuple(name for name in CLASS_NAMES if name in shown)

    @property
    def labels(self) -> tuple[int, ...]:
        """`PRESENT` or `ABSENT` for every class."""
        shown = {item.name for item in self.objects}
        return tuple(PRESENT if name in shown else ABSENT for name in CLASS_NAMES)

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Scene:
        """The inverse of `to_json`, also after a way through JSON.

        Raises:
            TypeError, KeyError: if ``words`` describe something else.
        """
        objects = tuple(SceneObject(**{**item, "box": tuple(item["box"])}) for item in words["objects"])
        return cls(**{**words, "objects": objects})
