from __future__ import annotations

import subprocess
import sys
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


def test_a_number_that_is_none(recorder: list[tuple[Path, int]]) -> None:
    with pytest.raises(InputError, match="min_labels is 'many', expected a value of type int"):
        load_data("recorder:x,min_labels=many")
    assert recorder == []


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


REFUSED = """
import sys, torch
from pathlib import Path
from fedmpt.data.features.store import open_features
from fedmpt.data.partition import partition_split
from fedmpt.data.datasets.voc import load_voc
from fedmpt.types import InputError, Split
labels = torch.zeros(2, 3, dtype=torch.int8)
for call in (
    lambda: load_voc(Path("x"), difficult="maybe"),
    lambda: partition_split(Split("train", (), labels[:0]), setting="noniid"),
    lambda: open_features(None, Split("train", (), labels[:0]), cache=Path("x"), store_dtype="int8"),
):
    try:
        call()
    except InputError as error:
        print(error)
"""


def test_choices_are_checked_where_types_are_not() -> None:
    # In a process of its own: in this one, the tests' type checks refuse such calls before the package can.
    output = subprocess.run([sys.executable, "-c", REFUSED], check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == [
        "difficult is 'maybe'; it may be: unknown, absent",
        "setting is 'noniid'; did you mean 'iid'?; it may be: heterogeneous, iid, dirichlet, natural",
        "store_dtype is 'int8'; it may be: float16, bfloat16, float32",
    ]


def test_importing_the_readers_is_light() -> None:
    # Each of these takes a second or more, and none is needed to read lists.
    code = "import sys, fedmpt.data.check; sys.exit(bool({'sklearn', 'transformers', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
