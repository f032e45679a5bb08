"""Pictures from files, decoded completely or refused by name."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedmpt.types import InputError

# Only picture formats: Pillow would run Ghostscript on a PostScript file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = contextlib.ExitStack()


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """No warnings from Pillow within; what matters in them becomes an `InputError` of `read_image`.

    Python's warning filters belong to the process, so threads that enter share one change of them: hold this
    around a thread pool that reads pictures.
    """
    global _quiet_depth
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.close()


def read_image(path: Path) -> Image.Image:
    """The picture at ``path`` as RGB, turned upright by its EXIF orientation; of an animation the first frame.

    Transparency is dropped, 16-bit grey is cut to its high byte.

    Raises:
        InputError: if the file is missing, empty, no picture, damaged, cut short, or has more pixels than Pillow
            takes for safe (``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    with quiet_pillow():
        try:
            with path.open("rb") as file:
                return _decode(file, path)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path}: no such image; check the name") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(f"{path}: the image is too large: {error}; scale it down") from error
        except UnidentifiedImageError:
            raise InputError(f"{path}: the image cannot be read (no known format); replace or remove it") from None
        except Exception as error:  # Pillow's decoders raise about anything on damaged bytes.
            raise InputError(f"{path}: the image cannot be read ({error}); replace or remove it") from error


def _decode(file: object, path: Path) -> Image.Image:
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the image file is empty; replace or remove it")
    with Image.open(file, formats=FORMATS) as image:  # type: ignore[arg-type]
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise InputError(
                f"{path}: the image has {image.width} x {image.height} pixels, more than {limit}; scale it down"
            )
        image.load()
        return _to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Damaged EXIF beside sound pixels: every viewer shows such a picture, as it is stored.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255, which leaves a white picture.
        high_byte = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    return image.convert("RGB")
