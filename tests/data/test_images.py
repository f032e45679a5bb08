from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmpt.data.images import quiet_pillow, read_image
from fedmpt.types import InputError


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), (220, 20, 20))
    image.paste((20, 20, 220), (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(tmp_path: Path, content: bytes, name: str = "x.jpg") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


SOUND: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(picture()),
    "cmyk": lambda: encoded(picture().convert("CMYK")),
    "rgba": lambda: encoded(picture().convert("RGBA"), "PNG"),
    "palette": lambda: encoded(picture().quantize(8), "PNG"),
    "palette with transparency": lambda: encoded(picture().quantize(8), "PNG", transparency=bytes(range(8))),
    "palette with one transparent colour": lambda: encoded(picture().quantize(8), "GIF", transparency=7),
    "webp": lambda: encoded(picture(), "WEBP", lossless=True),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "bmp": lambda: encoded(picture(), "BMP"),
    "ycbcr tiff": lambda: encoded(picture().convert("YCbCr"), "TIFF"),
    "broken exif": lambda: encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage"),
    "animation": lambda: encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32))]),
    "several frames": lambda: encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_pictures_become_rgb(tmp_path: Path, kind: str) -> None:
    image = read_image(written(tmp_path, SOUND[kind]()))
    assert (image.mode, image.size) == ("RGB", (48, 32))
    left, right = np.asarray(image)[16, 4].astype(int), np.asarray(image)[16, 44].astype(int)
    assert np.abs(left - [220, 20, 20]).max() < 12
    assert np.abs(right - [20, 20, 220]).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_shades(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    image = read_image(written(tmp_path, encoded(Image.fromarray(values), kind)))
    assert image.mode == "RGB"
    for channel in range(3):
        assert np.array_equal(np.asarray(image)[..., channel], values // 256)


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    for mode in ("L", "1", "LA"):
        image = read_image(written(tmp_path, encoded(Image.new("L", (5, 4), 255).convert(mode), "PNG")))
        assert np.array_equal(np.asarray(image), np.full((4, 5, 3), 255))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = read_image(written(tmp_path, encoded(picture(), exif=orientation(6))))  # Turn right by 90 degrees.
    assert image.size == (32, 48)
    assert np.asarray(image)[4, 16, 0] > 150  # The red left side is now on top.
    assert np.asarray(image)[44, 16, 2] > 150


def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(values)


CORRUPT: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"not a picture at all\n" * 40, "cannot be read"),
    "nothing": (lambda: b"", "is empty"),
    "one byte": (lambda: b"\xff", "cannot be read"),
    "jpeg start only": (lambda: encoded(noise())[:20], "cannot be read"),
    "jpeg cut short": (lambda: encoded(noise())[:3000], "cannot be read"),
    "png cut short": (lambda: encoded(noise(), "PNG")[:3000], "cannot be read"),
    "png bit flipped": (lambda: encoded(noise(), "PNG")[:60] + b"\0" * 40 + encoded(noise(), "PNG")[100:], "cannot"),
    "webp cut short": (lambda: encoded(noise(), "WEBP")[:500], "cannot be read"),
    "gif cut short": (lambda: encoded(noise(), "GIF")[:900], "cannot be read"),
    "tiff cut short": (lambda: encoded(noise(), "TIFF")[:900], "cannot be read"),
    "bmp cut short": (lambda: encoded(noise(), "BMP")[:900], "cannot be read"),
    "html": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "cannot be read"),
    "postscript": (lambda: encoded(picture(), "EPS"), "cannot be read"),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_corrupt_pictures_are_named(tmp_path: Path, kind: str) -> None:
    make, message = CORRUPT[kind]
    path = written(tmp_path, make(), "broken.jpg")
    with pytest.raises(InputError, match=rf"broken\.jpg: .*{message}"):
        read_image(path)


def test_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jpg: no such image"):
        read_image(tmp_path / "nowhere.jpg")


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("limit", [1500, 1000, 100], ids=["just over", "Pillow warns", "Pillow refuses"])
def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = written(tmp_path, encoded(picture()), "bomb.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"bomb\.jpg: the image .*scale it down"):
        read_image(path)


def test_the_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, encoded(picture()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 32)
    assert read_image(path).size == (48, 32)


def test_threads_leave_the_warning_filters_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, encoded(picture()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    before = list(warnings.filters)
    refused = []

    def read() -> None:
        for _ in range(20):
            with pytest.raises(InputError):
                read_image(path)
            refused.append(1)

    threads = [threading.Thread(target=read) for _ in range(4)]
    with quiet_pillow():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(refused) == 80
    assert list(warnings.filters) == before


@pytest.mark.parametrize("limit", [1000, None], ids=["Pillow warns", "no limit"])
def test_no_warning_gets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    contents = [make() for make in SOUND.values()] + [make() for make, _ in CORRUPT.values()]
    num_refused = 0
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for content in contents:
            try:
                read_image(written(tmp_path, content))
            except InputError:
                num_refused += 1
    assert leaked == []
    assert num_refused == (len(contents) if limit else len(CORRUPT))


def test_reading_within_leaves_it_quiet(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        with quiet_pillow():
            read_image(written(tmp_path, encoded(picture())))
            warnings.warn_explicit("theirs", UserWarning, "x.py", 1, module="PIL.Image")
        warnings.warn_explicit("theirs, later", UserWarning, "x.py", 1, module="PIL.Image")
    assert [str(warning.message) for warning in leaked] == ["theirs, later"]


def test_only_pillow_is_quiet() -> None:
    with quiet_pillow(), pytest.raises(UserWarning):
        warnings.warn("ours", UserWarning, stacklevel=1)
