"""Scenes to pixels, in whole numbers: the same scene gives the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8, UInt16

from fedmpt.data.datasets.scenes.backdrop import backdrop, veil
from fedmpt.data.datasets.scenes.placement import sprite_of
from fedmpt.data.datasets.scenes.scene import Scene
from fedmpt.data.datasets.scenes.vocabulary import Lighting

# What red, green and blue are multiplied by, in 256ths.
_LIGHT: Mapping[Lighting, tuple[int, int, int]] = {
    "daylight": (256, 256, 256),
    "bright": (315, 312, 304),
    "dim": (150, 150, 162),
    "warm": (290, 240, 176),
    "cool": (190, 232, 300),
}


def render(scene: Scene) -> UInt8[np.ndarray, "112 112 3"]:
    """The image of a scene, red, green and blue: background, objects from back to front, weather, light."""
    canvas = backdrop(scene.background, scene.backdrop).copy()
    for item in scene.objects:
        left, upper, right, lower = item.box
        shown = sprite_of(item, scene.style)
        region = canvas[upper:lower, left:right]
        region[:] = shown.colour + _share(region, 255 - shown.alpha)
    if scene.weather != "clear":
        colour, alpha = veil(scene.weather, scene.overlay)
        canvas = _share(canvas, 255 - alpha) + _share(np.full_like(canvas, colour), alpha)
    if scene.lighting != "daylight":
        canvas = np.stack([table[canvas[..., part]] for part, table in enumerate(_light_tables(scene.lighting))], -1)
    return canvas


def _share(pixels: UInt8[np.ndarray, "h w 3"], of_255: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """``pixels`` times ``of_255`` / 255, rounded down."""
    product: UInt16[np.ndarray, "h w 3"] = pixels * of_255[..., None].astype(np.uint16)
    # Rounded down, so that shares of two pictures that belong together never add up to more than 255.
    # (n + 1 + (n >> 8)) >> 8 is n // 255 for all n below 65,535; 255 * 255 + 1 + 254 still fits.
    return ((product + 1 + (product >> 8)) >> 8).astype(np.uint8)


@lru_cache(maxsize=8)
def _light_tables(lighting: Lighting) -> UInt8[np.ndarray, "3 256"]:
    values = np.arange(256)
    return np.stack([np.minimum(values * factor >> 8, 255) for factor in _LIGHT[lighting]]).astype(np.uint8)
