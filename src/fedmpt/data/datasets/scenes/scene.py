"""What there is in the world of `scenes`, its dials, and a scene: everything that decides one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fedmpt.data.reading import check_choice
from fedmpt.types import ABSENT, PRESENT, InputError

Style = Literal["noto", "twemoji", "fluent"]
Background = Literal["indoor", "street", "nature", "water", "night", "snow"]
Lighting = Literal["daylight", "bright", "dim", "warm", "cool"]
Weather = Literal["clear", "rain", "fog", "snowfall"]
Layout = Literal["single", "row", "column", "clustered", "scattered", "corners"]
Pose = Literal["upright", "tilted", "tumbled"]
Scale = Literal["small", "medium", "large"]

STYLES: tuple[Style, ...] = get_args(Style)
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
LIGHTINGS: tuple[Lighting, ...] = get_args(Lighting)
WEATHERS: tuple[Weather, ...] = get_args(Weather)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)[1:]
"""Layouts of two objects and more; one alone is ``"single"``."""
POSES: tuple[Pose, ...] = get_args(Pose)
SCALES: tuple[Scale, ...] = get_args(Scale)

ANGLES: Mapping[Pose, tuple[int, ...]] = {
    "upright": (0,),
    "tilted": (-30, -15, 15, 30),
    "tumbled": (75, 105, 135, 165, 180, 195, 225, 255, 285),
}
"""Degrees, counter-clockwise. Few values, because each makes one more picture to keep for every object."""

SIZES_PX: Mapping[Scale, tuple[int, ...]] = {"small": (20, 23, 26), "medium": (30, 34, 38), "large": (44, 50, 56)}
"""Side of the square that an upright object fills."""

HOMES: Mapping[str, tuple[Background, ...]] = {
    "airplane": ("snow", "nature"), "apple": ("indoor", "nature"), "ball": ("nature", "street"),
    "bicycle": ("street", "nature"), "bird": ("nature", "snow"), "boat": ("water", "night"),
    "book": ("indoor", "night"), "bottle": ("night", "indoor"), "bus": ("street", "snow"), "car": ("street", "night"),
    "cat": ("indoor", "night"), "chair": ("indoor", "street"), "clock": ("indoor", "snow"), "cow": ("nature", "snow"),
    "cup": ("indoor", "snow"), "dog": ("nature", "street"), "duck": ("water", "nature"), "fish": ("water", "indoor"),
    "guitar": ("night", "indoor"), "horse": ("nature", "snow"), "laptop": ("indoor", "water"),
    "pizza": ("night", "street"), "potted plant": ("indoor", "street"), "sheep": ("nature", "snow"),
    "sofa": ("indoor", "night"), "television": ("indoor", "night"), "train": ("snow", "street"),
    "umbrella": ("street", "water"),
}  # fmt: skip
"""Where each class is met more often than elsewhere, unless a dial says otherwise."""

CLASS_NAMES = tuple(HOMES)
"""The classes, as they stand in prompts."""

DISTRACTORS = (
    "balloon", "butterfly", "candle", "gift", "hammer", "hat", "key", "mushroom", "scissors", "shoe", "traffic light",
    "trophy",
)  # fmt: skip
"""Objects without a label."""


@dataclass(frozen=True)
class Partners:
    """``anchor`` brings ``partner`` along, in ``background``, where co-occurrence is spurious."""

    anchor: str
    partner: str
    background: Background


PARTNERS = (
    Partners("cat", "chair", "indoor"),
    Partners("television", "sofa", "indoor"),
    Partners("laptop", "cup", "indoor"),
    Partners("cow", "sheep", "nature"),
    Partners("dog", "ball", "nature"),
    Partners("bicycle", "car", "street"),
    Partners("bus", "umbrella", "street"),
    Partners("boat", "duck", "water"),
    Partners("guitar", "bottle", "night"),
    Partners("train", "clock", "snow"),
)
"""No class is in two pairs, so that one pair's bias does not leak into another's."""

SplitName = Literal["train", "test"]
TestMode = Literal["natural", "broken", "reversed"]

SIDE_PX = 112
"""Height and width of an image."""


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What decides the images.

    ``spurious``, in [0, 1], is the share of training images with an anchor in which the anchor's partner and their
    background come along because of it; 0 is the natural world.
    ``test`` is the world of the test images: ``"natural"``; ``"broken"``, where objects and background have nothing
    to do with each other; ``"reversed"``, where no anchor is ever with its partner or before their background.
    ``shift``, in [0, 1], is how far the factors of each of the ``groups`` of images are from being the same for all:
    at 1 a group has one style, background, lighting, weather, layout, pose and scale.
    ``styles`` are the drawing styles in use.

    Raises InputError if a value is out of range or unknown.
    """

    num_train: int = 2000
    num_test: int = 1000
    seed: int = 0
    spurious: float = 0.0
    test: TestMode = "natural"
    shift: float = 0.0
    groups: int = 10
    styles: tuple[str, ...] = STYLES

    def __post_init__(self) -> None:
        # Eight digits name an image file, and a seed is one word of PCG64's seeding.
        most = {"num_train": 10**8, "num_test": 10**8, "seed": 2**32 - 1, "spurious": 1, "shift": 1, "groups": 10_000}
        for name, high in most.items():
            value, low = getattr(self, name), int(name in ("num_train", "num_test", "groups"))
            if not low <= value <= high:
                raise InputError(f"scenes: {name} is {value}; it must be from {low} to {high}")
        check_choice("scenes: test", self.test, get_args(TestMode))
        for style in self.styles:
            check_choice("scenes: styles", style, STYLES)
        if not self.styles or len(set(self.styles)) < len(self.styles):
            given = "+".join(self.styles)
            raise InputError(f"scenes: styles is {given!r}; name each once, of: {'+'.join(STYLES)}")


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

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Scene:
        """The inverse of `dataclasses.asdict`, also after a way through JSON; else TypeError or KeyError."""
        objects = tuple(SceneObject(**{**item, "box": tuple(item["box"])}) for item in words["objects"])
        return cls(**{**words, "objects": objects})
