"""Pictures of every kind come out as a viewer shows them; what is no picture is refused by name."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedmpt.data.images import quiet_pillow, read_image
from fedmpt.types import InputError

Array = np.ndarray[Any, np.dtype[np.uint8]]

# Each quarter is known from all others in every turned or mirrored picture.
COLOURS = ((220, 30, 40), (30, 200, 60), (40, 60, 210), (230, 220, 50))


def quarters(colours: Any) -> Array:
    """Top left, top right, bottom left, bottom right; 16 x 16 blocks of JPEG lie within them."""
    return np.asarray(colours, np.uint8).reshape(2, 2, -1).repeat(16, axis=0).repeat(32, axis=1)


PICTURE = quarters(COLOURS)
GREY = quarters([[20], [90], [160], [240]])[..., 0]
WIDE = GREY.astype(np.uint16) * 256 + 77
BLACK_AND_WHITE = GREY > 100
PHOTO, OTHER = Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])
PALETTE = PHOTO.quantize(8)


def rgb(grey: Array) -> Array:
    return grey[..., None].repeat(3, axis=-1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # Copies, since Pillow keeps the options of one file for the next.
    if "frame" in options:
        options |= {"save_all": True, "append_images": [options.pop("frame").copy()]}
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image = PHOTO, **options: Any) -> bytes:
    return encoded(image, "JPEG", **{"quality": 98, "subsampling": 0, **options})


def png(pixels: Array, **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels), "PNG", **options)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def with_alpha(alpha: int) -> Array:
    return np.dstack([PICTURE, np.full(PICTURE.shape[:2], alpha, np.uint8)])


# What a viewer does for each value of the EXIF orientation.
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: lambda a: np.rot90(a, 1),
    99: lambda a: a,
}

SOUND: dict[str, tuple[bytes, Array]] = {
    "jpeg": (jpeg(), PICTURE),
    "jpeg progressive": (jpeg(progressive=True), PICTURE),
    "jpeg with coarse colours": (jpeg(subsampling=2), PICTURE),
    "jpeg grey": (jpeg(Image.fromarray(GREY)), rgb(GREY)),
    "jpeg CMYK": (jpeg(PHOTO.convert("CMYK")), PICTURE),
    "jpeg with a broken colour profile": (jpeg(icc_profile=b"nonsense"), PICTURE),
    "jpeg without its end": (jpeg()[:-2], PICTURE),
    "jpeg of several frames": (encoded(PHOTO, "MPO", frame=OTHER, quality=98), PICTURE),
    **{f"jpeg with EXIF {value}": (jpeg(exif=exif(value)), turn(PICTURE)) for value, turn in UPRIGHT.items()},
    "jpeg with broken EXIF": (jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage"), PICTURE),
    "png": (png(PICTURE), PICTURE),
    "png with EXIF": (png(PICTURE, exif=exif(6)), np.rot90(PICTURE, -1)),
    "png 16-bit grey": (png(WIDE), rgb(GREY)),
    "png 1-bit": (png(BLACK_AND_WHITE), rgb(BLACK_AND_WHITE * np.uint8(255))),
    "png grey with alpha": (png(np.dstack([GREY, GREY])), rgb(GREY)),
    "png with alpha": (png(with_alpha(128)), PICTURE),
    "png all transparent": (png(with_alpha(0)), PICTURE),
    "png palette": (encoded(PALETTE, "PNG"), PICTURE),
    "png palette with transparency": (encoded(PALETTE, "PNG", transparency=bytes(range(8))), PICTURE),
    "png animated": (encoded(PHOTO, "PNG", frame=OTHER), PICTURE),
    "png as thin as may be": (png(PICTURE[:1].repeat(2, axis=1)[:, :100]), PICTURE[:1].repeat(2, axis=1)[:, :100]),
    "gif animated": (encoded(PALETTE, "GIF", frame=OTHER), PICTURE),
    "webp": (encoded(PHOTO, "WEBP", lossless=True), PICTURE),
    "tiff LZW": (encoded(PHOTO, "TIFF", compression="tiff_lzw"), PICTURE),
    "tiff of several pages": (encoded(PHOTO, "TIFF", frame=OTHER), PICTURE),
    "tiff CMYK": (encoded(PHOTO.convert("CMYK"), "TIFF"), PICTURE),
    "tiff with EXIF": (encoded(PHOTO, "TIFF", tiffinfo={274: 6}), np.rot90(PICTURE, -1)),
    "tiff 16-bit grey": (encoded(Image.fromarray(WIDE), "TIFF"), rgb(GREY)),
    "tiff 16-bit grey, big-endian": (encoded(Image.fromarray(WIDE.astype(">u2")), "TIFF"), rgb(GREY)),
    "tiff floating": (encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), rgb(GREY)),
    "bmp": (encoded(PHOTO, "BMP"), PICTURE),
    "ppm": (encoded(PHOTO, "PPM"), PICTURE),
    "pgm 16-bit": (b"P5 64 32 65535\n" + WIDE.astype(">u2").tobytes(), rgb(GREY)),
}

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
"""It does not compress, so every byte counts."""
NOISY = Image.fromarray(NOISE)
NO_FORMAT = r"the image cannot be read \(no known format\)"
DAMAGED = "the image cannot be read"

UNSOUND: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the image file is empty"),
    "text": (b"a photo of a cat\n" * 40, NO_FORMAT),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NO_FORMAT),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n", NO_FORMAT),
    "PDF": (encoded(PHOTO, "PDF"), NO_FORMAT),
    "PostScript": (encoded(PHOTO, "EPS"), NO_FORMAT),
    "photo of a phone (HEIC)": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), NO_FORMAT),
    "jpeg cut short": (jpeg(NOISY)[:4000], DAMAGED),
    "jpeg of enormous size": (jpeg_of_size(65_500, 65_500), "the image is too large: .*; scale it down"),
    "png cut short": (png(NOISE)[:3000], DAMAGED),
    "png damaged within": (png(NOISE)[:60] + bytes(40) + png(NOISE)[100:], DAMAGED),
    "png of one line": (png(PICTURE[:1].repeat(80, axis=1)), "the image has 5120 x 1 pixels, too thin"),
    "gif cut short": (encoded(NOISY, "GIF")[:900], DAMAGED),
    "webp cut short": (encoded(NOISY, "WEBP")[:500], DAMAGED),
    "tiff cut short": (encoded(NOISY, "TIFF")[:900], DAMAGED),
    "tiff 32-bit numbers": (
        encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
        ".*32-bit or signed numbers.*save it with 8 bits",
    ),
    "tiff floating up to 255": (
        encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        ".*do not lie between 0 and 1",
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of no suffix that says a format."""
    return tmp_path / "odd.jpg"


@pytest.mark.parametrize("kind", SOUND)
def test_sound_pictures_come_out_right(path: Path, kind: str) -> None:
    content, expected = SOUND[kind]
    path.write_bytes(content)
    with quiet_pillow():
        image = read_image(path)
    pixels = np.asarray(image).astype(int)
    assert (image.mode, pixels.shape) == ("RGB", expected.shape)
    rows, columns = (sorted({size // 4, size * 3 // 4}) for size in expected.shape[:2])  # Middles of the quarters.
    assert np.abs(pixels - expected)[np.ix_(rows, columns)].max() <= (6 if "jpeg" in kind else 1)


@pytest.mark.parametrize("kind", UNSOUND)
def test_files_that_are_no_pictures_are_named(path: Path, kind: str) -> None:
    content, message = UNSOUND[kind]
    path.write_bytes(content)
    with quiet_pillow(), pytest.raises(InputError, match=rf"odd\.jpg: {message}"):
        read_image(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such image; check the name"),
        (Path.mkdir, "this is a folder; give the image files in it"),
        (os.mkfifo, r"the image cannot be read \(it is no regular file\)"),
        (lambda path: path.symlink_to("nowhere"), "no such image"),
    ],
)
def test_what_is_no_file(path: Path, make: Callable[[Path], object], message: str) -> None:
    make(path)
    with pytest.raises(InputError, match=rf"odd\.jpg: {message}"):
        read_image(path)


@pytest.mark.parametrize("limit", [2000, 1100, 100], ids=["just over", "Pillow warns", "Pillow refuses"])
def test_too_many_pixels(path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path.write_bytes(jpeg())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 32)
    assert read_image(path).size == (64, 32)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with quiet_pillow(), pytest.raises(InputError, match=r"odd\.jpg: the image .*scale it down"):
        read_image(path)


def test_no_warning_of_pillow_gets_out_and_ours_do(path: Path) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for content in [content for content, _ in (*SOUND.values(), *UNSOUND.values())]:
            path.write_bytes(content)
            with quiet_pillow():
                try:
                    read_image(path)
                except InputError:
                    warnings.warn("ours", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in leaked] == ["ours"] * len(UNSOUND)
