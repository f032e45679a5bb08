"""Answers that cannot be kept: nothing is paid for in vain, and what is there already is still found."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from asked_fake import ask
from fake_model import FakeModel

from fedmpt.types import InputError


@pytest.fixture
def _nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fedmpt.llm.store.TemporaryFile", refuse)


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = FakeModel()
    with pytest.raises(InputError, match="file"):
        ask(model, tmp_path / "file" / "llm", "a")
    assert model.asked == []


@pytest.mark.usefixtures("_nothing_can_be_written")
def test_a_folder_that_is_there_but_takes_nothing_is_found_before_too(tmp_path: Path) -> None:
    model = FakeModel()
    with pytest.raises(InputError, match=r"Read-only file system; choose another --cache"):
        ask(model, tmp_path, "a")
    assert model.asked == []


def test_what_is_kept_is_found_in_a_folder_that_takes_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ask(FakeModel(), tmp_path, "a", "b")
    request.getfixturevalue("_nothing_can_be_written")
    model = FakeModel()
    assert ask(model, tmp_path, "a", "b")[0] == ["A", "B"]
    assert model.asked == []
