"""Pictures of every kind that are to come out right, and files that are no pictures."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from malformed_case import Array, Case, Content, encoded, png
from picture_files import (
    BLACK_AND_WHITE,
    COLOURS,
    GREY,
    LOOP,
    LOSSY,
    PALETTE,
    PICTURE,
    SRGB,
    THIN,
    UPRIGHT,
    WIDE,
    exif,
    interlaced_png,
    jpeg,
    jpeg_of_size,
    noise,
    other_frame,
    photo,
    picture_png,
    png_chunks,
    png_header,
    raw_png,
    raw_tiff,
    rgb,
    with_alpha,
    zipped,
)
from PIL import Image


def shown(content: Content, pixels: Array = PICTURE, *, tolerance: int = 0, name: str = "odd.jpg") -> Case:
    """A folder with one odd picture and a plain one; the odd one is to come out as ``pixels``."""
    return Case(
        {name: content, "plain.png": None, "labels.csv": f"path,labels\n{name},cat\nplain.png,dog\n"},
        labels={name: "cat", "plain.png": "dog"},
        pictures={name: pixels},
        tolerance=tolerance,
    )


def refused(content: Content, message: str, *, name: str = "odd.jpg") -> Case:
    return Case(
        {name: content, "plain.png": None, "labels.csv": f"path,labels\n{name},cat\nplain.png,dog\n"},
        refused=f"odd.jpg: {message}",
    )


SOUND: Mapping[str, Case] = {
    "jpeg": shown(jpeg(), tolerance=LOSSY),
    "jpeg progressive": shown(jpeg(progressive=True), tolerance=LOSSY),
    "jpeg with coarse colours": shown(jpeg(subsampling=2), tolerance=LOSSY),
    "jpeg of odd size": shown(jpeg(Image.fromarray(PICTURE[5:28, 9:58])), PICTURE[5:28, 9:58], tolerance=12),
    "jpeg grey": shown(jpeg(Image.fromarray(GREY)), rgb(GREY), tolerance=LOSSY),
    "jpeg CMYK": shown(jpeg(photo().convert("CMYK")), tolerance=LOSSY),
    "jpeg with a colour profile": shown(jpeg(icc_profile=SRGB), tolerance=LOSSY),
    "jpeg with a broken colour profile": shown(jpeg(icc_profile=b"nonsense"), tolerance=LOSSY),
    "jpeg with a comment": shown(jpeg(comment=b"\xff\xfe\0" * 99), tolerance=LOSSY),
    "jpeg with more after its end": shown(jpeg() + b"\0" * 500 + b"PK\x03\x04", tolerance=LOSSY),
    "jpeg with restart markers": shown(jpeg(restart_marker_blocks=1), tolerance=LOSSY),
    "jpeg of several frames": shown(
        encoded(photo(), "MPO", save_all=True, append_images=[other_frame()], quality=98, subsampling=0),
        tolerance=LOSSY,
    ),
    "jpeg called png": shown(jpeg(), tolerance=LOSSY, name="odd.png"),
    "jpeg called JPG": shown(jpeg(), tolerance=LOSSY, name="ODD.JPG"),
    "png called jpg": shown(png(PICTURE)),
    **{
        f"jpeg with EXIF orientation {value}": shown(jpeg(exif=exif(value)), turn(PICTURE), tolerance=LOSSY)
        for value, turn in UPRIGHT.items()
    },
    "jpeg with EXIF orientation 99": shown(jpeg(exif=exif(99)), tolerance=LOSSY),
    "jpeg with broken EXIF": shown(jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage"), tolerance=LOSSY),
    "png with EXIF orientation": shown(encoded(photo(), "PNG", exif=exif(6)), np.rot90(PICTURE, -1)),
    "webp with EXIF orientation": shown(encoded(photo(), "WEBP", lossless=True, exif=exif(6)), np.rot90(PICTURE, -1)),
    "tiff with EXIF orientation": shown(encoded(photo(), "TIFF", tiffinfo={274: 6}), np.rot90(PICTURE, -1)),
    "png 16-bit grey": shown(encoded(Image.fromarray(WIDE), "PNG"), rgb(GREY)),
    "png 16-bit colour": shown(
        raw_png((PICTURE.astype(np.uint16) * 256 + 9).astype(">u2"), depth=16, colour=2, size=(64, 32))
    ),
    "png 1-bit": shown(encoded(Image.fromarray(BLACK_AND_WHITE), "PNG"), rgb(BLACK_AND_WHITE * np.uint8(255))),
    "png 2-bit grey": shown(
        raw_png(np.full((4, 2), 0b00011011, np.uint8), depth=2, colour=0, size=(8, 4)),
        rgb(np.tile(np.uint8([0, 85, 170, 255]), (4, 2))),
    ),
    "png grey with alpha": shown(encoded(Image.fromarray(np.dstack([GREY, GREY])), "PNG"), rgb(GREY)),
    "png with alpha": shown(png(with_alpha(128))),
    "png all transparent": shown(png(with_alpha(0))),
    "png palette": shown(encoded(PALETTE, "PNG")),
    "png palette with transparency": shown(encoded(PALETTE, "PNG", transparency=bytes(range(8)))),
    "png palette with one transparent colour": shown(encoded(PALETTE, "PNG", transparency=0)),
    "png with a transparent colour": shown(encoded(photo(), "PNG", transparency=COLOURS[0])),
    "png interlaced": shown(interlaced_png(PICTURE)),
    "png with gamma": shown(picture_png((b"gAMA", struct.pack(">I", 100_000)))),
    "png with text": shown(picture_png((b"tEXt", b"Title\0" + b"x" * 5000))),
    "png with an unknown chunk": shown(picture_png((b"abCd", b"x" * 50))),
    "png animated": shown(encoded(photo(), "PNG", save_all=True, append_images=[other_frame()])),
    "png of one pixel": shown(png(PICTURE[:1, :1]), PICTURE[:1, :1]),
    "png without its end": shown(png(PICTURE)[:-12]),
    "jpeg without its end": shown(jpeg()[:-2], tolerance=LOSSY),
    "png as thin as may be": shown(png(THIN), THIN),
    "png of three by three pixels": shown(png(PICTURE[:3, :3]), PICTURE[:3, :3]),
    "png of one row": shown(png(PICTURE[:1]), PICTURE[:1]),
    "png of one column": shown(png(PICTURE[:, :1]), PICTURE[:, :1]),
    "gif animated": shown(encoded(PALETTE, "GIF", save_all=True, append_images=[other_frame()])),
    "gif with transparency": shown(encoded(PALETTE, "GIF", transparency=0)),
    "gif interlaced": shown(encoded(PALETTE, "GIF", interlace=1)),
    "webp": shown(encoded(photo(), "WEBP", lossless=True)),
    "webp lossy": shown(encoded(photo(), "WEBP", quality=100), tolerance=12),
    "webp with alpha": shown(encoded(Image.fromarray(with_alpha(90)), "WEBP", lossless=True, exact=True)),
    "webp animated": shown(encoded(photo(), "WEBP", lossless=True, save_all=True, append_images=[other_frame()])),
    "tiff": shown(encoded(photo(), "TIFF")),
    "tiff LZW": shown(encoded(photo(), "TIFF", compression="tiff_lzw")),
    "tiff deflate": shown(encoded(photo(), "TIFF", compression="tiff_adobe_deflate")),
    "tiff of several pages": shown(encoded(photo(), "TIFF", save_all=True, append_images=[other_frame()])),
    "tiff CMYK": shown(encoded(photo().convert("CMYK"), "TIFF")),
    "tiff 1-bit fax": shown(
        encoded(Image.fromarray(BLACK_AND_WHITE), "TIFF", compression="group4"), rgb(BLACK_AND_WHITE * np.uint8(255))
    ),
    "tiff 16-bit grey": shown(raw_tiff(WIDE), rgb(GREY)),
    "tiff 16-bit grey, big-endian": shown(raw_tiff(WIDE, order=">"), rgb(GREY)),
    "tiff 16-bit colour": shown(raw_tiff(PICTURE.astype(np.uint16) * 256 + 9)),
    "tiff floating": shown(raw_tiff((GREY / 255).astype(np.float32), kind=3), rgb(GREY)),
    "bmp": shown(encoded(photo(), "BMP")),
    "bmp palette": shown(encoded(PALETTE, "BMP")),
    "ppm": shown(encoded(photo(), "PPM")),
    "ppm in words": shown("P3 2 1 255\n220 30 40  30 200 60\n", PICTURE[:1, [0, 63]]),
    "pgm 16-bit": shown(b"P5 64 32 65535\n" + WIDE.astype(">u2").tobytes(), rgb(GREY)),
}

NO_FORMAT = r"the image cannot be read \(no known format\)"
DAMAGED = "the image cannot be read"
TOO_LARGE = "the image is too large: .*; scale it down"
NO_RANGE = ".*32-bit or signed numbers.*save it with 8 bits"
NO_FRACTIONS = ".*do not lie between 0 and 1"

UNSOUND: Mapping[str, Case] = {
    "nothing": refused(b"", "the image file is empty"),
    "one byte": refused(b"\xff", NO_FORMAT),
    "zeros": refused(bytes(4096), NO_FORMAT),
    "random bytes": refused(np.random.default_rng(1).bytes(4096), NO_FORMAT),
    "text": refused("a photo of a cat\n" * 40, NO_FORMAT),
    "web page": refused("<!DOCTYPE html><html><body>404 Not Found</body></html>", NO_FORMAT),
    "error as JSON": refused('{"error": "rate limit"}', NO_FORMAT),
    "error as XML": refused("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", NO_FORMAT),
    "Git LFS pointer": refused("version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n", NO_FORMAT),
    "PDF": refused(encoded(photo(), "PDF"), NO_FORMAT),
    "PostScript": refused(encoded(photo(), "EPS"), NO_FORMAT),
    "SVG": refused("<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>", NO_FORMAT),
    "icon": refused(encoded(photo(), "ICO"), NO_FORMAT),
    "JPEG 2000": refused(encoded(photo(), "JPEG2000"), NO_FORMAT),
    "archive": refused(zipped(), NO_FORMAT),
    "compressed picture": refused(gzip.compress(png(PICTURE)), NO_FORMAT),
    "video": refused(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(99), NO_FORMAT),
    "photo of a phone (HEIC)": refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), NO_FORMAT),
    "NumPy array": refused(b"\x93NUMPY\x01\0v\0{'descr': '|u1'}", NO_FORMAT),
    "jpeg start only": refused(jpeg(noise())[:20], DAMAGED),
    "jpeg header only": refused(jpeg(noise())[:600], DAMAGED),
    "jpeg cut short": refused(jpeg(noise())[:4000], DAMAGED),
    "jpeg without its start": refused(jpeg()[2:], NO_FORMAT),
    "jpeg of enormous size": refused(jpeg_of_size(65_500, 65_500), TOO_LARGE),
    "jpeg of no height": refused(jpeg_of_size(64, 0), DAMAGED),
    "png cut short": refused(png(np.asarray(noise()))[:3000], DAMAGED),
    "png without pixels": refused(png_chunks(png_header(9, 9)), DAMAGED),
    "png of no width": refused(png_chunks(png_header(0, 9)), DAMAGED),
    "png of enormous size": refused(
        raw_png(np.zeros((1, 9), np.uint8), depth=1, colour=0, size=(200_000, 200_000)), TOO_LARGE
    ),
    "png of one line": refused(png(PICTURE[:1].repeat(80, axis=1)), "the image has 5120 x 1 pixels, too thin"),
    "png of impossible size": refused(
        raw_png(np.zeros((1, 9), np.uint8), depth=1, colour=0, size=(2**31 - 1, 2**31 - 1)), "the image"
    ),
    "png with a text that swells": refused(
        raw_png(
            PICTURE, depth=8, colour=2, size=(64, 32), extra=[(b"zTXt", b"x\0\0" + zlib.compress(bytes(3_000_000)))]
        ),
        DAMAGED,
    ),
    "png with wrong checksum": refused(png(np.asarray(noise()))[:-20] + bytes(20), DAMAGED),
    "png damaged within": refused(png(np.asarray(noise()))[:60] + bytes(40) + png(np.asarray(noise()))[100:], DAMAGED),
    "gif cut short": refused(encoded(noise(), "GIF")[:900], DAMAGED),
    "webp cut short": refused(encoded(noise(), "WEBP")[:500], DAMAGED),
    "bmp cut short": refused(encoded(noise(), "BMP")[:900], DAMAGED),
    "ppm cut short": refused(encoded(noise(), "PPM")[:900], DAMAGED),
    "ppm with words": refused(b"P6 sixty-four 32 255\n" + bytes(99), DAMAGED),
    "tiff cut short": refused(encoded(noise(), "TIFF")[:900], DAMAGED),
    "tiff that refers to itself": refused(LOOP, DAMAGED),
    "tiff of enormous size": refused(raw_tiff(GREY, size=(90_000, 90_000)), TOO_LARGE),
    "tiff 32-bit numbers": refused(raw_tiff(GREY.astype(np.int32), kind=2), NO_RANGE),
    "tiff signed numbers": refused(raw_tiff(GREY.astype(np.int16), kind=2), NO_RANGE),
    "tiff floating up to 255": refused(raw_tiff(GREY.astype(np.float32), kind=3), NO_FRACTIONS),
    "tiff floating with NaN": refused(raw_tiff(np.full((9, 9), np.nan, np.float32), kind=3), NO_FRACTIONS),
}

PICTURES: Mapping[str, Case] = {
    **{f"picture {name}": case for name, case in SOUND.items()},
    **{f"no picture: {name}": case for name, case in UNSOUND.items()},
}
