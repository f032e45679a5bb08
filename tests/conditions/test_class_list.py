"""Lists of classes in files, as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmpt.conditions.document import read_class_list
from fedmpt.types import InputError


def write(tmp_path: Path, content: str | bytes, name: str = "classes.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\ndining table\n",
        "# things\n\n  cat  \n\tdog\n\n#not this\ndining table",
        "cat\r\ndog\r\ndining table\r\n",
        b"\xef\xbb\xbfcat\ndog\ndining table\n",
        '\n  [\n  "cat",\n  "dog",\n  "dining table"\n]\n',
    ],
)
def test_names_come_in_the_order_of_the_file(tmp_path: Path, content: str | bytes) -> None:
    assert read_class_list(write(tmp_path, content)) == ("cat", "dog", "dining table")


def test_names_keep_their_letters(tmp_path: Path) -> None:
    names = ("café", "tv/monitor", "犬", "a, b", 'say "hi"')
    assert read_class_list(write(tmp_path, "\n".join(names))) == names
    path = write(tmp_path, json.dumps(["#1", " cat", "[x]"]), "CLASSES.JSON")
    assert read_class_list(path) == ("#1", " cat", "[x]")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("# only a remark\n", "c.txt", "c.txt: at least two classes are needed, got 0"),
        ("cat\n", "c.txt", "c.txt: at least two classes are needed, got 1"),
        ("cat\n\ndog\ncat\n", "c.txt", "c.txt, line 4: 'cat' is given twice; keep one"),
        ("cat\nd\x07g\n", "c.txt", r"line 2 is 'd\\x07g'; expected one line of 1 to 200 printable"),
        (f"cat\n{'x' * 201}\n", "c.txt", "line 2 is 'xxx.*xxx'; expected one line of 1 to 200"),
        (b"cat\n\xff\n", "c.txt", r"c.txt is no file of text \(.* position 4: "),
        ('["cat", 7]', "c.json", "c.json, number 2 is 7; expected one line"),
        ('{"0": "cat"}', "c.json", r'is no list; write \["...", "..."\]'),
        ('["cat", "dog"', "c.txt", "line 1: not valid JSON"),
        ("cat\ndog\n", "c.json", "line 1: not valid JSON"),
    ],
)
def test_lists_that_cannot_be_used_are_refused_with_the_place(
    tmp_path: Path, content: str | bytes, name: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_class_list(write(tmp_path, content, name))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(InputError, match=r"is no file of text \(.*\); give one with a class name a line"):
            read_class_list(path)
