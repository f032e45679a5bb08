"""Each input of the corpus gives a clear error, or exactly the right labels and pictures: as a user would load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from malformed_case import Array, Case, draw
from malformed_folders import FOLDERS
from malformed_json import JSON
from malformed_pictures import PICTURES
from malformed_tables import TABLES
from malformed_xml import XML
from own_data import both

from fedmpt.backbone.load import load_backbone
from fedmpt.data.images import read_image
from fedmpt.data.own import load_folder
from fedmpt.data.own.clients import load_clients
from fedmpt.types import Backbone, ImageData, InputError

CORPUS: Mapping[str, Case] = {**TABLES, **JSON, **XML, **PICTURES, **FOLDERS}


@pytest.fixture(scope="module")
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))


def load(case: Case, root: Path) -> ImageData:
    options: dict[str, Any] = dict(case.options)
    if "classes" in options:
        names = root.parent / "names.txt"
        names.write_text(options["classes"])
        options["classes"] = names
    return (load_clients if case.clients else load_folder)(root, **options)


def read(data: ImageData, backbone: Backbone) -> dict[Path, Array]:
    """Every picture of both splits, taken all the way to what the model gets."""
    pictures = {}
    for file in (*data.train.files, *data.test.files):
        image = read_image(file)
        pixels = backbone.preprocess(image)
        assert pixels.shape == (3, backbone.image_size, backbone.image_size)
        assert torch.isfinite(pixels).all()
        assert image.mode == "RGB"
        pictures[file] = np.asarray(image)
    return pictures


def away_from_edges(picture: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Pixels whose surroundings have one colour: what blurs edges leaves these alone."""
    padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(0, 1))
    return (around.max(axis=(3, 4)) == around.min(axis=(3, 4))).all(axis=2)


def written(row: Mapping[str, int]) -> set[str]:
    """Labels as the corpus writes them."""
    return {{1: name, -1: f"?{name}"}[value] for name, value in row.items() if value}


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) == sum(map(len, (TABLES, JSON, XML, PICTURES, FOLDERS))) >= 100
    assert min(sum(bool(case.refused) is refused for case in CORPUS.values()) for refused in (True, False)) >= 50


@pytest.mark.parametrize("name", CORPUS)
def test_a_clear_error_or_the_right_picture(name: str, tmp_path: Path, backbone: Backbone) -> None:
    case, root = CORPUS[name], tmp_path / "data"
    case.write(root)
    if case.refused:
        with pytest.raises(InputError, match=case.refused):
            read(load(case, root), backbone)
        return
    data = load(case, root)
    labels = both(data, root)
    assert {image: written(row) for image, row in labels.items()} == {
        image: set(words.split("|")) - {""} for image, words in case.labels.items()
    }
    assert set().union(*(row.keys() for row in labels.values())) == set(data.class_names)
    for file, pixels in read(data, backbone).items():
        image = file.relative_to(root).as_posix()
        expected = case.pictures.get(image, draw(image))
        assert pixels.shape == expected.shape
        compared = away_from_edges(expected) if case.tolerance else np.full(expected.shape[:2], True)
        assert compared.any()
        assert np.abs(pixels.astype(int) - expected.astype(int))[compared].max() <= case.tolerance
