"""Pictograms and scenes to pixels, in whole numbers: the same scene gives the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from jaxtyping import Bool, Int8, UInt8, UInt16

from fedmpt.data.datasets.scenes.backdrop import backdrop, veil
from fedmpt.data.datasets.scenes.scene import SIDE_PX, Lighting, Scene, SceneObject, Style

_SOURCE_PX = 64
# Points per pixel and axis at which the source is read: the smallest object shrinks it to about a third.
_POINTS = 3
# Binary places of coordinates in the source.
_FRACTION = 16
_OPAQUE = 128
# What red, green and blue are multiplied by, in 256ths.
_LIGHT: Mapping[Lighting, tuple[int, int, int]] = {
    "daylight": (256, 256, 256),
    "bright": (315, 312, 304),
    "dim": (150, 150, 162),
    "warm": (290, 240, 176),
    "cool": (190, 232, 300),
}


@dataclass(frozen=True, eq=False)
class Sprite:
    """A pictogram ready to be put on an image. Colours are multiplied by ``alpha``; ``mask`` is where it covers."""

    colour: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    num_pixels: int


# All sprites there can be would take about 100 MB; those of one style a third of it.
@lru_cache(maxsize=16384)
def sprite(name: str, style: Style, size: int, angle: int, mirrored: bool) -> Sprite:
    """The pictogram ``size`` pixels wide and high, turned by ``angle`` degrees counter-clockwise, cut to its extent."""
    if mirrored:
        plain = sprite(name, style, size, angle, False)
        parts = (plain.colour[:, ::-1], plain.alpha[:, ::-1], plain.mask[:, ::-1])
        return Sprite(*parts, plain.num_pixels)
    pixels = _resampled(_pictogram(name, style), size=size, angle=angle)
    mask = pixels[..., 3] >= _OPAQUE
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    extent = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    pixels, mask = pixels[extent], mask[extent]
    return Sprite(pixels[..., :3], pixels[..., 3], mask, int(mask.sum()))


@lru_cache(maxsize=256)
def _pictogram(name: str, style: Style) -> UInt8[np.ndarray, "66 66 4"]:
    """RGBA, colours multiplied by alpha, with a transparent rim for points outside."""
    from PIL import Image  # Imported here: listing data sets must not wait for it.

    file = resources.files("fedmpt") / "assets" / "pictograms" / style / f"{name.replace(' ', '_')}.png"
    with file.open("rb") as stream, Image.open(stream, formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(np.uint16)
    assert pixels.shape == (_SOURCE_PX, _SOURCE_PX, 4)
    alpha = pixels[..., 3:]
    premultiplied = np.concatenate([(pixels[..., :3] * alpha + 127) // 255, alpha], axis=2)
    return np.pad(premultiplied.astype(np.uint8), ((1, 1), (1, 1), (0, 0)))


def _resampled(source: UInt8[np.ndarray, "66 66 4"], *, size: int, angle: int) -> UInt8[np.ndarray, "side side 4"]:
    """Mean of `_POINTS` x `_POINTS` points of the source for each pixel."""
    # Rounded far above the error of sin and cos, which may differ in their last bit between machines.
    cosine, sine = (round(part * 2**14) for part in (math.cos(math.radians(angle)), math.sin(math.radians(angle))))
    side = (size * (abs(cosine) + abs(sine)) >> 14) + 1
    # Points are half a step from each other's middle, hence odd numbers of half steps from the centre.
    points = 2 * np.arange(side * _POINTS, dtype=np.int32) + 1 - side * _POINTS
    step = (_SOURCE_PX << _FRACTION - 14) * points
    along = [step * part // (2 * _POINTS * size) for part in (cosine, sine)]
    offsets = (along[0][None, :] - along[1][:, None], along[1][None, :] + along[0][:, None])
    # Columns and rows in the source with its rim.
    x, y = (np.clip((offset >> _FRACTION) + _SOURCE_PX // 2, -1, _SOURCE_PX) + 1 for offset in offsets)
    packed = np.ascontiguousarray(source).view(np.uint32)[..., 0]  # One lookup for four channels.
    found = packed[y, x].view(np.uint8).reshape(*x.shape, 4)
    total = np.zeros((side, side, 4), dtype=np.uint16)
    for first_row, first_column in np.ndindex(_POINTS, _POINTS):  # Much faster than a sum over two axes.
        total += found[first_row::_POINTS, first_column::_POINTS]
    return ((total + _POINTS**2 // 2) // _POINTS**2).astype(np.uint8)


def sprite_of(item: SceneObject, style: Style) -> Sprite:
    """What is drawn for an object."""
    return sprite(item.name, style, item.size, item.angle, item.mirrored)


def object_map(objects: Sequence[SceneObject], style: Style) -> Int8[np.ndarray, "112 112"]:
    """Which of ``objects`` is on top at each pixel, as its position in the sequence; -1 where none is."""
    top = np.full((SIDE_PX, SIDE_PX), -1, dtype=np.int8)
    for number, item in enumerate(objects):
        left, upper, right, lower = item.box
        top[upper:lower, left:right][sprite_of(item, style).mask] = number
    return top


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
        factors = np.array(_LIGHT[scene.lighting])
        canvas = np.minimum(canvas * factors >> 8, 255).astype(np.uint8)
    return canvas


def _share(pixels: UInt8[np.ndarray, "h w 3"], of_255: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """``pixels`` times ``of_255`` / 255, rounded down."""
    product: UInt16[np.ndarray, "h w 3"] = pixels * of_255[..., None].astype(np.uint16)
    # Rounded down, so that shares of two pictures that belong together never add up to more than 255.
    # (n + 1 + (n >> 8)) >> 8 is n // 255 for all n below 65,535; 255 * 255 + 1 + 254 still fits.
    return ((product + 1 + (product >> 8)) >> 8).astype(np.uint8)
