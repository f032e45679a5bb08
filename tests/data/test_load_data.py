from __future__ import annotations

from pathlib import Path

import pytest
import torch
from voc_folder import write_voc

import fedmpt.data.load as load_module
from fedmpt.data import DATASETS, load_data
from fedmpt.data.datasets.voc import load_voc
from fedmpt.types import ImageData, InputError, Split


def test_options_reach_the_loader(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    loaded = load_data(f"voc:{root},difficult=absent").train.labels
    assert torch.equal(loaded, load_voc(root, difficult="absent").train.labels)
    assert torch.equal(load_data(f"voc:{root}").train.labels, load_voc(root).train.labels)
    assert not torch.equal(loaded, load_voc(root).train.labels)


def test_a_path_may_hold_commas(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "a, b")
    assert len(load_data(f"voc:{root},difficult=absent").train) == 3


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    calls: list[tuple[Path, int]] = []

    def load(path: Path, *, min_labels: int = 1) -> ImageData:
        calls.append((path, min_labels))
        empty = Split("train", (), torch.zeros(0, 1, dtype=torch.int8))
        return ImageData("recorder", ("x",), empty, empty)

    monkeypatch.setattr(load_module, "DATASETS", {**DATASETS, "recorder": load})
    return calls


def test_drive_letters_home_folder_and_numbers(recorder: list[tuple[Path, int]]) -> None:
    load_data("recorder:C:\\data\\VOCdevkit,min_labels=5")
    load_data("recorder:~/data")
    assert recorder == [(Path("C:\\data\\VOCdevkit"), 5), (Path.home() / "data", 1)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vok:x", r"unknown data set 'vok'; did you mean 'voc'\?; expected NAME:PATH with NAME one of: folder"),
        ("C:\\VOCdevkit", r"unknown data set 'C'; expected NAME:PATH"),
        ("", r"unknown data set ''"),
        ("voc", r"the folder is missing"),
        ("voc:", r"the folder is missing"),
        ("voc:,difficult=absent", r"the folder is missing"),
        ("voc:x,dificult=absent", r"unknown option 'dificult'; did you mean 'difficult'\?; options are: difficult"),
        ("voc:x,difficult=absnt", r"difficult is 'absnt'; did you mean 'absent'\?; it may be: unknown, absent"),
        ("voc:x,difficult=absent,difficult=unknown", r"option 'difficult' is given twice"),
        ("voc:/nowhere/at/all", r"/nowhere/at/all is no folder"),
    ],
)
def test_mistakes_are_answered(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(spec)
