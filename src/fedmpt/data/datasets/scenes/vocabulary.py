"""What there is in the world of `scenes`: objects, places, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

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
