from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_folders import write_coco, write_mlrsnet, write_multi_scene, write_nus_wide
from voc_folder import write_voc

from fedmpt.data import load_data
from fedmpt.data.check import LAYOUTS, check_data
from fedmpt.types import InputError

WRITERS: dict[str, Callable[[Path], Path]] = {
    "voc": lambda folder: write_voc(folder).parent,
    "coco": write_coco,
    "nus-wide": write_nus_wide,
    "multi-scene": write_multi_scene,
    "mlrsnet": write_mlrsnet,
}


def check(name: str, path: object) -> dict[str, Any]:
    """As a machine reads it."""
    found, data = check_data(f"{name}:{path}", cache=Path("unused"))
    assert (data is None) == (found["problem"] is not None)
    return json.loads(json.dumps(found, allow_nan=False))  # type: ignore[no-any-return]


def test_every_benchmark_is_tested_here() -> None:
    assert list(WRITERS) == list(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_whole_folder_has_all_parts_and_the_loaders_counts(tmp_path: Path, name: str) -> None:
    root = WRITERS[name](tmp_path / "data")
    found, data = check(name, root), load_data(f"{name}:{root}")
    assert (found["name"], found["path"], found["problem"]) == (name, str(root), None)
    assert found["classes"] == list(data.class_names)
    assert [part["found"] for part in found["parts"]] == [part.paths[0] for part in LAYOUTS[name]]
    for counts, split in zip(found["splits"], (data.train, data.test), strict=True):
        assert (counts["split"], counts["images"]) == (split.name, len(split))
        for column, class_name in enumerate(data.class_names):
            values = split.labels[:, column].tolist()
            for kind, label in (("present", 1), ("absent", 0), ("unknown", -1)):
                assert counts[kind][class_name] == values.count(label)


def test_options_are_those_of_the_loader_and_unknown_labels_are_counted(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    found = check("voc", root)
    assert [part["found"] for part in found["parts"]] == ["ImageSets/Main", "JPEGImages", "Annotations"]
    assert [sum(split["unknown"].values()) for split in found["splits"]] == [1, 1]
    assert sum(check("voc", f"{root},difficult=absent")["splits"][0]["unknown"].values()) == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_part_is_marked_and_the_loaders_message_given(tmp_path: Path, name: str) -> None:
    root = WRITERS[name](tmp_path / "data")
    for number, part in enumerate(LAYOUTS[name]):
        path = part.find(root)
        assert path is not None
        path.rename(tmp_path / "elsewhere")
        found = check(name, root)
        (tmp_path / "elsewhere").rename(path)
        assert [one["found"] is None for one in found["parts"]] == [at == number for at in range(len(LAYOUTS[name]))]
        assert found["parts"][number]["files"] is None
        assert (found["problem"] is not None) == part.required
        if found["problem"] is not None:
            assert (found["splits"], found["classes"]) == ([], [])
            assert str(root) in found["problem"]
            assert f"{' or '.join(part.paths)}; expected {part.what}" in found["problem"] or name == "voc"
    assert "nowhere is no folder" in check(name, tmp_path / "nowhere")["problem"]


def test_files_notes_and_classes_that_no_image_shows(tmp_path: Path) -> None:
    root = write_nus_wide(tmp_path / "data")
    (root / "Flickr" / "zoo" / "0003_4.jpg").unlink()
    found = check("nus-wide", f"{root},missing=skip")
    assert [part["files"] for part in found["parts"]] == [None, None, None, 6, 5]
    assert found["parts"][4] == {
        "paths": ["Flickr", "images"],
        "what": "all images",
        "example": "actor/0001_2124494179.jpg",
        "required": True,
        "found": "Flickr",
        "files": 5,
    }
    assert found["splits"][1] == {
        "split": "test",
        "images": 1,
        "present": {"airport": 0, "animal": 0, "beach": 1},
        "absent": {"airport": 1, "animal": 1, "beach": 0},
        "unknown": {"airport": 0, "animal": 0, "beach": 0},
    }
    assert found["notes"] == [
        r"test: 1 of 2 images are missing, first 'zoo\\0003_4.jpg'; left out",
        "test: no image shows airport, animal",
    ]


def test_mistakes_are_answered() -> None:
    with pytest.raises(InputError, match=r"unknown data set 'cocoa'; did you mean 'coco'\?"):
        check("cocoa", "x")
    with pytest.raises(InputError, match=r"unknown option 'min_label'; did you mean 'min_labels'"):
        check("coco", "x,min_label=5")
