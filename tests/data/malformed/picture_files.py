"""Picture files of every kind, encoded by hand where no library writes them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from malformed_case import Array, draw, encoded, quarters
from PIL import Image, ImageCms

# Saturated, as photos of signs are; each quarter is known from all others in every turned or mirrored picture.
COLOURS = ((220, 30, 40), (30, 200, 60), (40, 60, 210), (230, 220, 50))
PICTURE = quarters(COLOURS)
GREY = quarters([[20], [90], [160], [240]])[..., 0]
WIDE = GREY.astype(np.uint16) * 256 + 77
LOSSY = 6


def rgb(grey: Array) -> Array:
    return grey[..., None].repeat(3, axis=-1)


def photo() -> Image.Image:
    return Image.fromarray(PICTURE)


def noise() -> Image.Image:
    """So that it does not compress, and every byte counts."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# What a viewer does for each value of the EXIF orientation.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: lambda a: np.rot90(a, 1),
}


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in (*chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(content)) + kind + content)
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


Chunks = Sequence[tuple[bytes, bytes]]


def raw_png(rows: np.ndarray, *, depth: int, colour: int, size: tuple[int, int], extra: Chunks = ()) -> bytes:
    """A PNG of unfiltered ``rows`` of bytes; ``extra`` chunks stand before the pixels."""
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_chunks(png_header(*size, depth=depth, colour=colour), *extra, (b"IDAT", zlib.compress(lines)))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def picture_png(*extra: tuple[bytes, bytes]) -> bytes:
    """The picture with chunks that no library writes."""
    return raw_png(PICTURE, depth=8, colour=2, size=(64, 32), extra=extra)


def interlaced_png(pixels: Array) -> bytes:
    """Adam7: seven smaller pictures, one after the other."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx])
    header = png_header(pixels.shape[1], pixels.shape[0], interlace=1)
    return png_chunks(header, (b"IDAT", zlib.compress(lines)))


def raw_tiff(pixels: np.ndarray, *, size: tuple[int, int] | None = None, order: str = "<", kind: int = 1) -> bytes:
    """An uncompressed TIFF of one strip; ``kind`` 1 is unsigned, 2 signed, 3 floating."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    width, height = size or (pixels.shape[1], pixels.shape[0])
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    # Tag by tag: width, height, bits, compression, colours, place, channels, rows, length, kind of numbers.
    bits = [pixels.dtype.itemsize * 8] * channels
    colours = 1 if channels == 1 else 2
    tags = {256: [width], 257: [height], 258: bits, 259: [1], 262: [colours], 273: [8], 277: [channels], 278: [height]}
    tags |= {279: [len(content)], 339: [kind] * channels}
    directory = 8 + len(content)
    entries, more, behind = b"", b"", directory + 2 + 12 * len(tags) + 4
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}{'I' if len(values) == 1 else 'H'}", *values)
        field = 4 if len(values) == 1 else 3
        if len(packed) > 4:
            packed, more = struct.pack(f"{order}I", behind + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", tag, field, len(values)) + packed
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, directory)
    return magic + content + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + more


BLACK_AND_WHITE = GREY > 100
THIN = np.tile(PICTURE[:1], (1, 2, 1))[:, :100]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return buffer.getvalue()


def with_alpha(alpha: int) -> Array:
    return np.dstack([PICTURE, np.full(PICTURE.shape[:2], alpha, np.uint8)])


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    """As sharp as JPEG goes: colours of plain blocks stay what they are."""
    return encoded(image or photo(), "JPEG", **{"quality": 98, "subsampling": 0, **options})  # type: ignore[arg-type]


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def other_frame() -> Image.Image:
    return Image.fromarray(draw("another frame"))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PALETTE = photo().quantize(8)
LOOP = b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8)
