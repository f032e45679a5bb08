from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmpt.data import load_data
from fedmpt.data.datasets.scenes import CLASS_NAMES, Scene, SceneOptions, load_scenes, read_scenes, render, sample_scene
from fedmpt.data.datasets.scenes import dataset as scenes_dataset
from fedmpt.data.images import read_image
from fedmpt.types import InputError

SMALL = "scenes:num_train=6,num_test=4"


def folders(cache: Path) -> int:
    """Whole sets of images, and what is left of others."""
    return sum(path.is_dir() for path in (cache / "scenes").iterdir())


def test_images_labels_and_factors_belong_together(tmp_path: Path) -> None:
    data = load_scenes(SceneOptions(num_train=6, num_test=4, spurious=0.9, test="reversed"), cache=tmp_path)
    options = SceneOptions(num_train=6, num_test=4, spurious=0.9, test="reversed")
    assert (data.name, data.class_names) == ("scenes", CLASS_NAMES)
    for split, count in ((data.train, 6), (data.test, 4)):
        expected = tuple(sample_scene(options, split.name, index) for index in range(count))
        assert read_scenes(split) == expected
        assert split.labels.tolist() == [list(scene.labels) for scene in expected]
        for path, scene in zip(split.files, expected, strict=True):
            assert np.array_equal(np.asarray(read_image(path)), render(scene))


def test_the_bytes_of_the_files_are_pinned(tmp_path: Path) -> None:
    # They key the features: what one machine computed, another one finds.
    data = load_data(SMALL, cache=tmp_path)
    found = hashlib.sha256(b"".join(path.read_bytes() for path in (*data.train.files, *data.test.files)))
    assert found.hexdigest()[:16] == "cea306bc862f5feb"


def test_images_are_drawn_once(tmp_path: Path) -> None:
    first = load_data(SMALL, cache=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = load_data(SMALL, cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert again.train.files == first.train.files
    assert torch.equal(again.test.labels, first.test.labels)


@pytest.mark.parametrize("dial", ["seed=1", "spurious=0.5", "shift=0.5", "groups=3", "styles=noto", "test=broken"])
def test_every_dial_makes_other_images(tmp_path: Path, dial: str) -> None:
    plain, turned = (load_data(f"scenes:num_train=40,num_test=20{more}", cache=tmp_path) for more in ("", f",{dial}"))
    for name, is_shared in (("train", "test" in dial), ("test", "spurious" in dial)):
        one, other = getattr(plain, name), getattr(turned, name)
        assert (one.files == other.files) == is_shared
        assert (read_scenes(one) == read_scenes(other)) == is_shared


@pytest.mark.parametrize("damage", ["missing image", "no factors", "half the factors", "foreign factors"])
def test_a_damaged_folder_is_drawn_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    data = load_data(SMALL, cache=tmp_path)
    scenes, factors = read_scenes(data.train), data.train.files[0].parent / "factors.jsonl"
    if damage == "missing image":
        data.train.files[2].unlink()
    elif damage == "no factors":
        factors.unlink()
    elif damage == "half the factors":
        factors.write_text("".join(factors.read_text().splitlines(keepends=True)[:3]))
    else:
        factors.write_text("[]\n" * 6)
    with pytest.raises(InputError, match=r"holds no 6 images with a factors\.jsonl"):
        read_scenes(data.train)
    with caplog.at_level(logging.WARNING):
        again = load_data(SMALL, cache=tmp_path)
    assert "is damaged; its images are drawn again" in caplog.text
    assert read_scenes(again.train) == scenes
    assert all(path.is_file() for path in again.train.files)
    assert folders(tmp_path) == 2, "nothing temporary stays"


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def stop_at_the_third(scene: Scene) -> np.ndarray:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return render(scene)

    monkeypatch.setattr(scenes_dataset, "render", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        load_data(SMALL, cache=tmp_path)
    assert folders(tmp_path) == 0
    assert len(load_data(SMALL, cache=tmp_path).train) == 6


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file.*images cannot be written: .*choose another folder with --cache"):
        load_data(SMALL, cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "spurius=0.9",
            r"unknown option 'spurius'; did you mean 'spurious'\?; options are: num_train, num_test, seed, ",
        ),
        ("/a/folder", r"unknown option '/a/folder'; options are: num_train, num_test, seed, spurious, test, shift, "),
        ("cache=x", r"unknown option 'cache'; options are: num_train"),
        ("spurious=much", r"spurious is 'much', expected a value of type float"),
        ("spurious=nan", r"scenes: spurious is nan; it must be from 0 to 1"),
        ("shift=-0.1", r"scenes: shift is -0.1; it must be from 0 to 1"),
        ("test=reverse", r"test is 'reverse'; did you mean 'reversed'\?; it may be: natural, broken, reversed"),
        ("num_train=0", r"scenes: num_train is 0; it must be from 1 to"),
        ("seed=-1", r"scenes: seed is -1; it must be from 0 to 4294967295"),
        ("styles=fluen", r"scenes: styles is 'fluen'; did you mean 'fluent'\?; it may be: noto, twemoji, fluent"),
        ("styles=", r"scenes: styles is ''; it may be: noto, twemoji, fluent"),
        ("styles=noto+noto", r"scenes: styles is 'noto\+noto'; name each once, of: noto\+twemoji\+fluent"),
    ],
)
def test_mistakes_are_answered(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_data(f"scenes:{words}", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
