from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmark_folders import write_coco, write_mlrsnet, write_multi_scene, write_nus_wide
from voc_folder import write_voc

from fedmpt.data.check import BENCHMARKS, check_data, count, layout_text
from fedmpt.types import InputError, Split

WRITERS: dict[str, Callable[[Path], Path]] = {
    "voc": lambda folder: write_voc(folder).parent,
    "coco": write_coco,
    "nus-wide": write_nus_wide,
    "multi-scene": write_multi_scene,
    "mlrsnet": write_mlrsnet,
}


def test_every_benchmark_is_tested_here() -> None:
    assert list(WRITERS) == list(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_whole_folder_has_all_parts_and_the_loaders_counts(tmp_path: Path, name: str) -> None:
    root = WRITERS[name](tmp_path / "data")
    check = check_data(name, root)
    data = BENCHMARKS[name].loader(root)
    assert (check.name, check.path, check.problem, check.class_names) == (name, root, None, data.class_names)
    assert [found.found for found in check.parts] == [part.paths[0] for part in BENCHMARKS[name].layout]
    for counts, split in zip(check.splits, (data.train, data.test), strict=True):
        assert (counts.name, counts.num_images) == (split.name, len(split))
        for column in range(len(data.class_names)):
            values = split.labels[:, column].tolist()
            expected = [values.count(1), values.count(0), values.count(-1)]
            assert [counts.present[column], counts.absent[column], counts.unknown[column]] == expected


def test_files_in_folders_are_counted(tmp_path: Path) -> None:
    parts = check_data("nus-wide", write_nus_wide(tmp_path / "data")).parts
    assert [found.num_files for found in parts] == [None, None, None, 6, 6]


def test_unknown_labels_are_counted(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    train, test = check_data("voc", root).splits
    table = train.unknown[10], test.unknown[15]
    assert (table, sum(train.unknown) + sum(test.unknown)) == ((1, 1), 2)
    assert sum(check_data("voc", root, difficult="absent").splits[0].unknown) == 0


def test_the_inner_folder_of_voc_has_all_parts_too(tmp_path: Path) -> None:
    found = [part.found for part in check_data("voc", write_voc(tmp_path)).parts]
    assert found == ["ImageSets/Main", "JPEGImages", "Annotations"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_part_is_marked_and_the_loaders_message_given(tmp_path: Path, name: str) -> None:
    root = WRITERS[name](tmp_path / "data")
    for number, part in enumerate(BENCHMARKS[name].layout):
        path = part.find(root)
        assert path is not None
        path.rename(tmp_path / "elsewhere")
        check = check_data(name, root)
        (tmp_path / "elsewhere").rename(path)
        assert [found.found is None for found in check.parts] == [at == number for at in range(len(check.parts))]
        assert check.parts[number].num_files is None
        assert (check.problem is not None) == part.required
        if check.problem is not None:
            assert check.splits == ()
            assert str(root) in check.problem


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_that_is_not_there_is_a_problem_not_an_error(tmp_path: Path, name: str) -> None:
    check = check_data(name, tmp_path / "nowhere")
    assert all(found.found is None for found in check.parts)
    assert check.problem is not None
    assert "nowhere is no folder" in check.problem


def test_notes_of_the_loader_and_classes_that_no_image_shows(tmp_path: Path) -> None:
    check = check_data("nus-wide", write_nus_wide(tmp_path / "data"), min_labels=2)
    assert check.notes == (
        "train: 2 of 4 images have fewer than 2 labels; left out",
        "test: 1 of 2 images have fewer than 2 labels; left out",
        "test: no image shows airport",
    )


def test_json_has_everything(tmp_path: Path) -> None:
    root = write_nus_wide(tmp_path / "data")
    (root / "Flickr" / "zoo" / "0003_4.jpg").unlink()
    written = json.loads(json.dumps(check_data("nus-wide", root, missing="skip").to_json(), allow_nan=False))
    assert written["splits"] == [
        {
            "split": "train",
            "images": 4,
            "present": {"airport": 2, "animal": 2, "beach": 2},
            "absent": {"airport": 2, "animal": 2, "beach": 2},
            "unknown": {"airport": 0, "animal": 0, "beach": 0},
        },
        {
            "split": "test",
            "images": 1,
            "present": {"airport": 0, "animal": 0, "beach": 1},
            "absent": {"airport": 1, "animal": 1, "beach": 0},
            "unknown": {"airport": 0, "animal": 0, "beach": 0},
        },
    ]
    assert written["parts"][4] == {
        "paths": ["Flickr", "images"],
        "what": "all images",
        "required": True,
        "found": "Flickr",
        "files": 5,
    }
    assert (written["name"], written["path"], written["problem"]) == ("nus-wide", str(root), None)
    assert written["classes"] == ["airport", "animal", "beach"]
    assert len(written["notes"]) == 2


def test_json_of_a_problem(tmp_path: Path) -> None:
    written = check_data("coco", tmp_path).to_json()
    assert written["problem"].endswith("expected labels of train there")
    assert (written["splits"], written["classes"]) == ([], [])


def test_counts_of_any_split() -> None:
    labels = torch.tensor([[1, 0], [1, -1], [0, -1]], dtype=torch.int8)
    counts = count(Split("train", (Path("a"), Path("b"), Path("c")), labels))
    assert (counts.present, counts.absent, counts.unknown) == ((2, 0), (1, 1), (0, 2))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_layout_shows_every_place_of_every_part(name: str) -> None:
    text = layout_text(name)
    shown: list[str] = []
    folders: list[str] = []
    for line in text.splitlines()[1:]:
        place = line.split("  ")
        depth = next(at for at, word in enumerate(place) if word)
        folders[depth - 1 :] = [place[depth].strip()]
        shown.append("".join(folders))
    for part in BENCHMARKS[name].layout:
        end = "/" if part.is_folder else ""
        assert f"{part.paths[0]}{end}" in shown
        assert all(f"or PATH/{other}{end}" in text for other in part.paths[1:])
        assert part.what in text
    assert max(map(len, text.splitlines())) < 160


def test_the_layout_of_coco_reads_like_this() -> None:
    assert layout_text("coco").splitlines() == [
        "PATH/",
        "  annotations/",
        "    instances_train2014.json         labels of train",
        "    instances_val2014.json           labels of test",
        "  train2014/                         the 82,783 images of train",
        "    COCO_train2014_000000000009.jpg  for example",
        "  val2014/                           the 40,504 images of test",
        "    COCO_val2014_000000000042.jpg    for example",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_data("cocoa", Path("x")), r"unknown benchmark 'cocoa'; did you mean 'coco'\?"),
        (lambda: layout_text("zzz"), r"unknown benchmark 'zzz'; expected one of: voc, coco, nus-wide"),
        (lambda: check_data("coco", Path("x"), min_label=5), r"unknown option 'min_label'; did you mean 'min_labels'"),
        (lambda: check_data("multi-scene", Path("x"), seed=5), r"multi-scene: unknown option 'seed'; .*: none"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_importing_the_check_is_light() -> None:
    code = (
        "import sys, fedmpt.data.check; sys.exit(bool({'sklearn', 'transformers', 'rich', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
