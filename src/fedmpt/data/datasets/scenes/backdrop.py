"""Backgrounds and weather, drawn from a few shapes in whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Int32, UInt8

from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import BACKGROUNDS, SIDE_PX, WEATHERS, Background, Weather

Colour = tuple[int, int, int]
Canvas = Int32[np.ndarray, "112 112 3"]

# Keeps these pictures apart from what scenes draw.
_PURPOSE = 0x5CE7E5
_GRAIN = 9

_Y, _X = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.int32)


@lru_cache(maxsize=512)
def backdrop(background: Background, number: int) -> UInt8[np.ndarray, "112 112 3"]:
    """Picture ``number`` of a background, with a little grain. Not to be written to."""
    draws = Draws(_PURPOSE, BACKGROUNDS.index(background), number)
    canvas = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.int32)
    _PAINTERS[background](canvas, draws)
    grain = draws.array(SIDE_PX, SIDE_PX, 1, bound=_GRAIN).astype(np.int32) - _GRAIN // 2
    return np.clip(canvas + grain, 0, 255).astype(np.uint8)


@lru_cache(maxsize=128)
def veil(weather: Weather, number: int) -> tuple[Colour, UInt8[np.ndarray, "112 112"]]:
    """Colour of a weather, and how much of it lies over each pixel, of 255. Not to be written to."""
    draws = Draws(_PURPOSE, len(BACKGROUNDS) + WEATHERS.index(weather), number)
    alpha = np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)
    if weather == "fog":
        near, far = draws.between(60, 90), draws.between(120, 150)
        alpha[:] = (far - (far - near) * _Y // SIDE_PX).astype(np.uint8)
        return (214, 218, 222), alpha
    if weather == "rain":
        slant = draws.between(2, 4)
        for _ in range(70):
            x, y, length = draws.below(SIDE_PX), draws.below(SIDE_PX), draws.between(7, 13)
            for step in range(min(length, SIDE_PX - y)):
                if x >= step // slant:
                    alpha[y + step, x - step // slant] = 150
        return (205, 220, 240), alpha
    if weather == "snowfall":
        for _ in range(110):
            x, y, wide = draws.below(SIDE_PX), draws.below(SIDE_PX), draws.between(1, 2)
            alpha[y : y + wide, x : x + wide] = 235
    return (255, 255, 255), alpha


def _near(draws: Draws, colour: Colour, by: int = 16) -> Colour:
    """A colour not far from ``colour``."""
    red, green, blue = (part + draws.between(-by, by) for part in colour)
    return red, green, blue


def _fade(canvas: Canvas, top: int, bottom: int, above: Colour, below: Colour) -> None:
    """Rows ``top`` to ``bottom`` from one colour to another."""
    rows = np.arange(bottom - top, dtype=np.int32)[:, None]
    first, last = np.array(above, dtype=np.int32), np.array(below, dtype=np.int32)
    canvas[top:bottom] = (first + (last - first) * rows // max(bottom - top, 1))[:, None]


def _disc(canvas: Canvas, x: int, y: int, radius: int, colour: Colour) -> None:
    canvas[(_X - x) ** 2 + (_Y - y) ** 2 <= radius**2] = colour


def _triangle(canvas: Canvas, x: int, top: int, bottom: int, half_width: int, colour: Colour) -> None:
    """Upright, with its tip at (``x``, ``top``)."""
    inside = (_Y >= top) & (_Y < bottom) & (abs(_X - x) * (bottom - top) <= half_width * (_Y - top))
    canvas[inside] = colour


def _rectangle(canvas: Canvas, x: int, y: int, width: int, height: int, colour: Colour) -> None:
    canvas[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = colour


def _indoor(canvas: Canvas, draws: Draws) -> None:
    floor = draws.between(70, 84)
    wall = _near(draws, draws.pick([(226, 208, 178), (205, 190, 205), (214, 216, 196), (232, 196, 176)]))
    boards = _near(draws, (158, 112, 72))
    canvas[:floor] = wall
    canvas[floor:] = boards
    for x in range(draws.between(0, 13), SIDE_PX, 14):
        _rectangle(canvas, x, floor, 1, SIDE_PX, (118, 80, 48))
    _rectangle(canvas, 0, floor - 4, SIDE_PX, 4, (246, 240, 230))
    x, y = draws.between(6, 70), draws.between(8, 20)
    _rectangle(canvas, x, y, 36, 30, (250, 246, 238))
    _rectangle(canvas, x + 3, y + 3, 14, 24, (170, 212, 240))
    _rectangle(canvas, x + 19, y + 3, 14, 24, (170, 212, 240))
    curtain = _near(draws, draws.pick([(178, 70, 70), (80, 110, 160), (90, 140, 100)]))
    _rectangle(canvas, x - 6, y - 3, 7, 38, curtain)
    _rectangle(canvas, x + 35, y - 3, 7, 38, curtain)


def _street(canvas: Canvas, draws: Draws) -> None:
    road = draws.between(70, 82)
    _fade(canvas, 0, road, _near(draws, (176, 200, 222)), (214, 220, 224))
    x = -draws.between(0, 10)
    while x < SIDE_PX:
        width, height = draws.between(18, 30), draws.between(28, 60)
        _house(canvas, draws, x, road - 6 - height, width, height)
        x += width + draws.between(0, 2)
    _rectangle(canvas, 0, road - 6, SIDE_PX, 6, (176, 172, 166))
    canvas[road:] = _near(draws, (92, 92, 98), by=8)
    middle = (road + SIDE_PX) // 2
    for x in range(-draws.between(0, 20), SIDE_PX, 24):
        _rectangle(canvas, x, middle, 13, 3, (236, 226, 180))


def _house(canvas: Canvas, draws: Draws, x: int, y: int, width: int, height: int) -> None:
    wall = _near(draws, draws.pick([(170, 110, 92), (150, 140, 130), (186, 160, 124), (128, 132, 150)]))
    _rectangle(canvas, x, y, width, height, wall)
    pane = draws.pick([(84, 96, 116), (240, 224, 160)])
    for top in range(y + 5, y + height - 8, 11):
        for left in range(x + 4, x + width - 5, 9):
            _rectangle(canvas, left, top, 4, 6, pane)


def _nature(canvas: Canvas, draws: Draws) -> None:
    ground = draws.between(52, 66)
    _fade(canvas, 0, ground, _near(draws, (118, 182, 236)), (206, 230, 246))
    for _ in range(3):
        hill = _near(draws, (104, 160, 92))
        _disc(canvas, draws.below(SIDE_PX), ground + 50, draws.between(52, 72), hill)
    _fade(canvas, ground, SIDE_PX, _near(draws, (118, 184, 76)), (70, 136, 52))
    for _ in range(draws.between(2, 5)):
        x, y, crown = draws.below(SIDE_PX), ground + draws.between(-2, 8), draws.between(8, 13)
        _rectangle(canvas, x - 1, y - 10, 3, 12, (104, 74, 46))
        _disc(canvas, x, y - 10 - crown // 2, crown, _near(draws, (50, 122, 54)))
    for _ in range(24):
        blossom = draws.pick([(250, 240, 150), (240, 250, 240), (90, 160, 60)])
        _rectangle(canvas, draws.below(SIDE_PX), draws.between(ground + 6, SIDE_PX), 2, 2, blossom)


def _water(canvas: Canvas, draws: Draws) -> None:
    shore = draws.between(28, 46)
    _fade(canvas, 0, shore, _near(draws, (136, 200, 240)), (224, 238, 244))
    _disc(canvas, draws.between(10, 100), draws.between(6, 18), 7, (252, 240, 180))
    _fade(canvas, shore, SIDE_PX, _near(draws, (72, 166, 204)), (18, 84, 142))
    for _ in range(46):
        x, y, length = draws.below(SIDE_PX), draws.between(shore + 3, SIDE_PX), draws.between(5, 15)
        _rectangle(canvas, x, y, length, 1, (150, 212, 232))
        _rectangle(canvas, x + length // 3, y - 1, length // 2, 1, (206, 236, 244))


def _night(canvas: Canvas, draws: Draws) -> None:
    ground = draws.between(72, 88)
    _fade(canvas, 0, ground, _near(draws, (10, 14, 44), by=6), (44, 46, 96))
    for _ in range(50):
        size = draws.pick([1, 1, 2])
        _rectangle(canvas, draws.below(SIDE_PX), draws.below(ground), size, size, (236, 236, 206))
    x, y, radius = draws.between(14, 98), draws.between(12, 26), draws.between(7, 10)
    _disc(canvas, x, y, radius, (246, 240, 204))
    _disc(canvas, x + draws.pick([-4, 4]), y - 2, radius - 1, (20, 24, 60))
    for x in range(0, SIDE_PX, 10):
        height = draws.between(4, 24)
        _rectangle(canvas, x, ground - height, 10, height, (24, 24, 42))
        _rectangle(canvas, x + draws.between(1, 7), ground - height + 3, 2, 2, (250, 214, 110))
    _fade(canvas, ground, SIDE_PX, (34, 36, 54), _near(draws, (22, 24, 36), by=6))


def _snow(canvas: Canvas, draws: Draws) -> None:
    ground = draws.between(54, 70)
    _fade(canvas, 0, ground, _near(draws, (172, 194, 216)), (224, 232, 240))
    for _ in range(3):
        x, top, half_width = draws.below(SIDE_PX), draws.between(14, 32), draws.between(30, 48)
        _triangle(canvas, x, top, ground + 1, half_width, _near(draws, (142, 158, 182)))
        _triangle(canvas, x, top, top + 14, half_width * 14 // (ground + 1 - top), (244, 248, 252))
    _fade(canvas, ground, SIDE_PX, (232, 238, 246), _near(draws, (246, 249, 252), by=4))
    for _ in range(draws.between(3, 6)):
        x, foot, height = draws.below(SIDE_PX), ground + draws.between(0, 12), draws.between(20, 32)
        _rectangle(canvas, x - 1, foot - 2, 3, 5, (92, 70, 54))
        for part in range(3):
            top = foot - height + part * height // 4
            _triangle(canvas, x, top, top + height // 2, 5 + 2 * part, (60, 104, 88))
            _triangle(canvas, x, top, top + 4, 2, (246, 250, 252))


_PAINTERS: Mapping[Background, Callable[[Canvas, Draws], None]] = {
    "indoor": _indoor,
    "street": _street,
    "nature": _nature,
    "water": _water,
    "night": _night,
    "snow": _snow,
}
