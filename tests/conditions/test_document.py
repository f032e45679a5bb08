"""The head of all files with texts: what is common to every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedmpt.conditions.document import MAX_BYTES, Document, is_text, read_document
from fedmpt.types import InputError


def read(path: Path, value: Any, **how: Any) -> Document:
    path.write_text(json.dumps(value))
    return read_document(path, kind="colours", example="{...}", **how)


def head(**more: Any) -> dict[str, Any]:
    return {"format": 1, "kind": "colours", "colours": ["red"], **more}


def test_name_and_provenance_may_be_left_out(tmp_path: Path) -> None:
    assert read(tmp_path / "some.json", head()) == Document("some", {}, ["red"])
    found = read(tmp_path / "some.json", head(name="mine", provenance={"model": "me"}))
    assert found == Document("mine", {"model": "me"}, ["red"])


def test_a_kind_may_have_optional_keys_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read(path, head(hash=7), optional=("hash", "size")).extra == {"hash": 7}
    assert read(path, head(), optional=("hash",)).extra == {}
    with pytest.raises(InputError, match=r"unknown key 'hash'; known are: format, kind, name, provenance, colours$"):
        read(path, head(hash=7))
    with pytest.raises(InputError, match=r"unknown key 'hush'; known are: .*, provenance, hash, colours$"):
        read(path, head(hush=7), optional=("hash",))


def test_a_kind_may_have_larger_files(tmp_path: Path) -> None:
    long = head(provenance={"why": "x" * MAX_BYTES})
    assert read(tmp_path / "x.json", long, max_bytes=2 * MAX_BYTES).content == ["red"]
    with pytest.raises(InputError, match=rf"bytes, more than {MAX_BYTES}; expected a short file like"):
        read(tmp_path / "x.json", long)


def test_a_text_is_one_line_of_limited_length() -> None:
    assert is_text("x" * 200)
    assert not is_text("x" * 201)
    assert is_text("x" * 201, longest=201)
    assert not any(map(is_text, ["", " ", "a\nb", "\ud800", None, 3]))
