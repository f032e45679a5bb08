from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmpt.data.datasets.scenes.render import sprite
from fedmpt.data.datasets.scenes.scene import CLASS_NAMES, DISTRACTORS, STYLES

FOLDER = Path(str(resources.files("fedmpt") / "assets" / "pictograms"))


def picture(name: str, style: str) -> Image.Image:
    with Image.open(FOLDER / style / f"{name.replace(' ', '_')}.png") as image:
        return image.convert("RGBA")


def test_every_style_has_every_object() -> None:
    expected = {f"{name.replace(' ', '_')}.png" for name in (*CLASS_NAMES, *DISTRACTORS)}
    for style in STYLES:
        assert {path.name for path in (FOLDER / style).glob("*.png")} == expected
        assert {picture(name, style).size for name in (*CLASS_NAMES, *DISTRACTORS)} == {(64, 64)}
    assert 20 <= len(CLASS_NAMES) <= 30
    assert not set(CLASS_NAMES) & set(DISTRACTORS)


def test_licences_lie_beside_the_pictures() -> None:
    overview = (FOLDER / "LICENSES.md").read_text()
    for style in STYLES:
        assert f"## {style}" in overview
        assert (FOLDER / style / "LICENSE").stat().st_size > 500
    assert "Apache License" in (FOLDER / "noto" / "LICENSE").read_text()
    assert "https://creativecommons.org/licenses/by/4.0/" in (FOLDER / "twemoji" / "LICENSE").read_text()
    assert "Copyright (c) Microsoft Corporation" in (FOLDER / "fluent" / "LICENSE").read_text()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 1_500_000


def with_pillow(name: str, style: str, *, size: int, angle: int) -> np.ndarray:
    """The same by floating point: scaled with a box filter, turned, cut to what is opaque, colours times alpha."""
    large = picture(name, style).resize((8 * size, 8 * size), Image.Resampling.BILINEAR)
    turned = large.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
    small = turned.convert("RGBa").resize([round(side / 8) for side in turned.size], Image.Resampling.BOX)
    opaque = small.getchannel("a").point([0] * 128 + [255] * 128).getbbox()
    return np.asarray(small.crop(opaque), dtype=np.int64)


@pytest.mark.parametrize("angle", [0, 30, -15, 135, 180])
@pytest.mark.parametrize(
    ("name", "style", "size"), [("guitar", "noto", 50), ("cat", "twemoji", 23), ("bus", "fluent", 34)]
)
def test_sprites_are_what_pillow_makes_of_the_picture(name: str, style: str, size: int, angle: int) -> None:
    ours, theirs = sprite(name, style, size, angle, False), with_pillow(name, style, size=size, angle=angle)
    height, width = ours.alpha.shape
    assert abs(height - theirs.shape[0]) <= 2
    assert abs(width - theirs.shape[1]) <= 2
    pixels = np.dstack([ours.colour, ours.alpha]).astype(np.int64)
    error = difference(pixels, theirs)
    assert error < 20, "of 255, on average; both are cut to whole pixels, so edges differ"
    for other in (angle - 30, angle + 30, angle + 180):
        assert difference(pixels, with_pillow(name, style, size=size, angle=other)) > 1.5 * error


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean absolute difference of two pictures of about one size where they overlap best."""
    return min(_difference(ours, theirs, down, right) for down, right in np.ndindex(3, 3))


def _difference(ours: np.ndarray, theirs: np.ndarray, down: int, right: int) -> float:
    moved = theirs[max(down - 1, 0) :, max(right - 1, 0) :]
    ours = ours[max(1 - down, 0) :, max(1 - right, 0) :]
    height, width = min(len(ours), len(moved)), min(ours.shape[1], moved.shape[1])
    return float(abs(ours[:height, :width] - moved[:height, :width]).mean())


def test_mirrored_is_the_mirror_image() -> None:
    plain, mirrored = (sprite("train", "noto", 34, 15, flag) for flag in (False, True))
    assert np.array_equal(plain.colour, mirrored.colour[:, ::-1])
    assert np.array_equal(plain.mask, mirrored.mask[:, ::-1])
    assert not np.array_equal(plain.mask, mirrored.mask)


@pytest.mark.parametrize("style", STYLES)
def test_sprites_fill_their_size_and_colours_stay_below_alpha(style: str) -> None:
    for name in (*CLASS_NAMES, *DISTRACTORS):
        made = sprite(name, style, 34, 0, False)
        assert 31 <= max(made.mask.shape) <= 34
        assert made.num_pixels == made.mask.sum() > 34 * 34 // 8
        assert (made.colour <= made.alpha[..., None]).all()
