"""One input of the corpus: the files of a folder, and what has to come of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[np.uint8]]

Content = str | bytes | None
"""What a file holds; None stands for the picture that belongs to its name."""


@dataclass(frozen=True)
class Case:
    """``refused`` is a pattern for the message of the error; without it ``labels`` and ``pictures`` are to come out.

    ``labels`` are the classes that each image shows, ``?`` before one that is unknown: ``"cat|?dog"``. ``pictures``
    are the pixels of those images whose picture is not `draw` of their path, within ``tolerance``. ``prepare`` does
    what files alone cannot. ``clients`` says that the folder holds one folder a client.
    """

    files: Mapping[str, Content]
    refused: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Array] = field(default_factory=dict)
    tolerance: int = 0
    prepare: Callable[[Path], object] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    clients: bool = False

    def write(self, root: Path) -> None:
        root.mkdir()
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.write_bytes(png(draw(name)))
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        if self.prepare:
            self.prepare(root)


def draw(name: str) -> Array:
    """A picture of 16 x 32 pixels: four plain quarters, in colours that belong to ``name``, no two alike."""
    colours = np.frombuffer(hashlib.sha256(name.encode()).digest()[:12], np.uint8).reshape(4, 3)
    return quarters(colours)


def quarters(colours: Any) -> Array:
    """Top left, top right, bottom left, bottom right; 16 x 16 blocks of JPEG lie within them."""
    blocks = np.asarray(colours, np.uint8).reshape(2, 2, -1)
    return blocks.repeat(16, axis=0).repeat(32, axis=1)


def png(pixels: Array) -> bytes:
    return encoded(Image.fromarray(pixels), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
