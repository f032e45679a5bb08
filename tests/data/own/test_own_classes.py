from __future__ import annotations

from pathlib import Path

import pytest
from own_data import load_folder, write, write_csv, write_images

from fedmpt.data.own.vocabulary import Vocabulary, read_classes
from fedmpt.types import InputError


def test_names_keep_their_order_and_lose_white_space(tmp_path: Path) -> None:
    path = write(tmp_path, "names.txt", "\ufeffzebra \r\n dining\ttable\r\ncafe\u0301\r\nnone\r\n\r\n")
    assert read_classes(path) == ("zebra", "dining table", "caf\u00e9", "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"names\.txt is empty; expected the names of the classes"),
        ("cat\n\ndog\n", r"names\.txt, line 2 is empty"),
        ("cat\ndog\n cat\n", r"names\.txt, line 3: class 'cat' is listed twice, first in .*, line 1; remove one"),
        ("cat\ndog\nCat\n", r"names\.txt, line 3: class 'Cat' is written 'cat' in .*names\.txt, line 1"),
        ("cat\ndo\0g\n", r"names\.txt, line 2: class 'do\\x00g' holds an invisible character, U\+0000"),
        (b"cat\npat\xe9\n", r"names\.txt, line 2: byte b'\\xe9' is not UTF-8"),
    ],
)
def test_wrong_files_are_named_by_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_classes(write(tmp_path, "names.txt", content))


def test_odd_names_that_are_names() -> None:
    vocabulary = Vocabulary(None)
    assert vocabulary.name("cafe\u0301", where="here") == vocabulary.name("caf\u00e9", where="there") == "caf\u00e9"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # With joiners, which cannot be seen.
    assert vocabulary.name(family, where="here") == family
    assert Vocabulary(["none", "cat"]).name("none", where="here") == "none"


def test_a_label_of_another_case_names_the_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"here: class 'CAT' is not in names\.txt; did you mean 'cat'\?"):
        Vocabulary(["dog", "cat"], source=Path("names.txt")).name("CAT", where="here")


def test_underscores_are_said(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, "path,labels", "a.jpg,hot_dog", "b.jpg,cat")
    assert any("have underscores: hot_dog" in note for note in load_folder(tmp_path).notes)
