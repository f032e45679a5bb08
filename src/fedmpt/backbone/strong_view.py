"""A strongly augmented copy of a picture, the same for the same picture always."""

from __future__ import annotations

import hashlib
import random

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

MIN_AREA = 0.3
"""Smallest share of the picture that the crop keeps."""
CHANGE = 0.4
"""Brightness, contrast and colour are scaled by factors in [1 - CHANGE, 1 + CHANGE]."""


def strongly_augmented(image: Image.Image) -> Image.Image:
    """A random crop, perhaps mirrored, with colours changed, sometimes grey or blurred (SimCLR, Chen et al. 2020).

    What is drawn depends on the picture's pixels alone, so features of the copy can be stored.
    """
    picture = image.convert("RGB")
    # Of a small copy: enough to tell pictures apart, and quick for large ones.
    seed = hashlib.sha256(picture.resize((32, 32)).tobytes() + repr(picture.size).encode()).digest()
    draw = random.Random(seed)
    picture = _cropped(picture, draw)
    if draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(1 + draw.uniform(-CHANGE, CHANGE))
    if draw.random() < 0.2:
        picture = ImageOps.grayscale(picture).convert("RGB")
    if draw.random() < 0.5:
        # Relative to the size, so that a large photo is blurred as much as a small one.
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.1, 2.0) * min(picture.size) / 224))
    return picture


def _cropped(picture: Image.Image, draw: random.Random) -> Image.Image:
    scale = draw.uniform(MIN_AREA, 1) ** 0.5
    width, height = (max(1, round(side * scale)) for side in picture.size)
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))
