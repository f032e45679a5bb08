"""Answers on disk: found again as they were, and asked anew when they are damaged."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel, ask, request

from fedmpt.llm.kept import KeptAnswers
from fedmpt.llm.model import Answer, Message
from fedmpt.types import InputError

IDENTITY = {"provider": "fake", "model": "one"}
ASKED = request("¿Qué?")


@pytest.fixture
def kept(tmp_path: Path) -> KeptAnswers:
    return KeptAnswers(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("text", "stop", 3, 4),
        Answer("", "refusal"),
        Answer("cut", "length", 0, None),
        Answer('lines\r\n\t"quoted" \\ \x00\x1b[31m \u2028 é 雨 😀', "stop"),
        Answer("half a pair \ud83d", "stop"),
    ],
)
def test_an_answer_is_found_as_it_was(answer: Answer, kept: KeptAnswers) -> None:
    assert kept.load(ASKED) is None
    kept.save(ASKED, answer)
    assert kept.load(ASKED) == answer


def test_the_file_is_named_by_the_hash_of_what_was_asked_and_a_person_can_read_it(kept: KeptAnswers) -> None:
    canonical = (
        r'{"identity":{"model":"one","provider":"fake"},"messages":[{"content":"\u00bfQu\u00e9?","role":"user"}],'
        r'"parameters":{"max_tokens":10,"seed":0,"temperature":0.0}}'
    )
    key = hashlib.sha256(canonical.encode()).hexdigest()
    kept.save(ASKED, Answer("雨の夜", "stop", 5, 6))
    text = (kept.folder / key[:2] / f"{key}.json").read_text(encoding="utf-8")
    assert "雨の夜" in text
    assert json.loads(text) == {
        "format": 1,
        "identity": IDENTITY,
        "messages": [{"role": "user", "content": "¿Qué?"}],
        "parameters": {"max_tokens": 10, "temperature": 0.0, "seed": 0},
        "answer": {"text": "雨の夜", "finish": "stop", "prompt_tokens": 5, "answer_tokens": 6},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("system", "¿Qué?"),)},
        {"messages": (*ASKED.messages, Message("user", "more"))},
        {"max_tokens": 11},
        {"temperature": 0.1},
        {"seed": 1},
    ],
)
def test_another_request_has_another_answer(change: dict[str, Any], kept: KeptAnswers) -> None:
    kept.save(ASKED, Answer("text"))
    assert kept.load(replace(ASKED, **change)) is None


def test_labels_and_the_kind_of_a_number_change_nothing_and_the_later_answer_stays(kept: KeptAnswers) -> None:
    kept.save(ASKED, Answer("one"))
    kept.save(ASKED, Answer("two"))
    assert kept.load(replace(ASKED, label="other", temperature=0)) == Answer("two")
    assert len([path for path in kept.folder.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("content", [b"", b'{"answer": {"text": "te', b"\xff\xfe", b"[]", b'{"answer": null}', b"{}"])
def test_a_damaged_file_counts_as_not_there_and_is_overwritten(content: bytes, kept: KeptAnswers) -> None:
    kept.save(ASKED, Answer("text"))
    kept.path(ASKED).write_bytes(content)
    assert kept.load(ASKED) is None
    kept.save(ASKED, Answer("again"))
    assert kept.load(ASKED) == Answer("again")


def test_a_folder_that_takes_nothing_is_found_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    model = FakeModel()
    with pytest.raises(InputError, match=r"cannot be kept in .*file/llm: Not a directory; choose another --cache"):
        ask(model, tmp_path / "file" / "llm", "a")
    assert model.asked == []
    ask(FakeModel(), tmp_path, "a", "b")

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fedmpt.llm.kept.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"Read-only file system; choose another --cache"):
        ask(model, tmp_path, "c")
    # What is kept is found there all the same.
    assert ask(model, tmp_path, "a", "b")[0] == ["A", "B"]
    assert model.asked == []
