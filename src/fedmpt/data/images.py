"""Pictures from files, decoded completely or refused by name."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedmpt.types import InputError

# Only picture formats: Pillow would run Ghostscript on a PostScript file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Models scale the shorter side to their size: a line of one pixel, as web pages have, would fill the memory.
MAX_ASPECT = 100


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """No warnings from Pillow within; what matters in them is an `InputError` of `read_image`.

    Python's warning filters belong to the process, and threads that change them disturb each other: hold this around
    a pool of threads that read pictures too.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_image(path: Path) -> Image.Image:
    """The picture at ``path`` as RGB, turned upright by its EXIF orientation; of an animation the first frame.

    Transparency and colour profiles are dropped, 16-bit grey is cut to its high byte, and floating-point pixels run
    from 0 to 1.

    Raises:
        InputError: if the file is missing, empty, no picture, damaged, cut short, has numbers of no known range for
            pixels, more pixels than Pillow takes for safe (``PIL.Image.MAX_IMAGE_PIXELS``), or a side more than
            `MAX_ASPECT` times the other.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: this is a folder; give the image files in it")
        if path.exists() and not path.is_file():  # Opening a pipe would wait for ever.
            raise InputError(f"{path}: the image cannot be read (it is no regular file); replace or remove it")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the image file is empty; replace or remove it")
        with quiet_pillow(), Image.open(path, formats=FORMATS) as image:
            size, limit = f"{path}: the image has {image.width} x {image.height} pixels", Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise InputError(f"{size}, more than {limit}; scale it down")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise InputError(f"{size}, too thin; crop or remove it")
            image.load()
            return _to_rgb(_upright(image), file_format=image.format)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the name") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: the image is too large: {error}; scale it down") from error
    except UnidentifiedImageError:
        raise InputError(f"{path}: the image cannot be read (no known format); replace or remove it") from None
    except Exception as error:  # Pillow's decoders raise about anything on damaged bytes.
        raise InputError(f"{path}: the image cannot be read ({error}); replace or remove it") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Damaged EXIF beside sound pixels: every viewer shows such a picture, as it is stored.
        return image


def _to_rgb(image: Image.Image, *, file_format: str | None) -> Image.Image:
    if image.mode == "F":  # Grey from 0 to 1. Pillow would cut all of it to black.
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("its pixels are floating-point numbers that do not lie between 0 and 1; save with 8 bits")
        image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I" and file_format == "TIFF":
        raise ValueError("its pixels are 32-bit or signed numbers, of no fixed range; save it with 8 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255, which leaves a white picture.
        high_byte = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    return image.convert("RGB")
