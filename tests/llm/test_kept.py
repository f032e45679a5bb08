"""Answers on disk: found again as they were, and asked anew when they are damaged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel, ask, asker_of, request

from fedmpt.llm.model import Answer, Message, Request
from fedmpt.types import InputError

ASKED = request("¿Qué?")


def told(cache: Path, asked: Request, answer: Answer) -> tuple[Answer, int]:
    """What an asker gives for a request, of a model that would answer so, and how often it asked the model."""
    model = FakeModel({asked.messages[0].content: [answer]})
    (found,) = asker_of(model, cache).ask_all([asked], [lambda answer: answer])
    assert isinstance(found, Answer)
    return found, len(model.asked)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("text", "stop", 3, 4),
        Answer(""),
        Answer("cut", "length", 0, None),
        Answer('lines\r\n\t"quoted" \\ \x00\x1b[31m \u2028 é 雨 😀', "stop"),
        Answer("half a pair \ud83d", "stop"),
    ],
)
def test_an_answer_is_found_as_it_was(answer: Answer, tmp_path: Path) -> None:
    assert told(tmp_path, ASKED, answer) == (answer, 1)
    assert told(tmp_path, ASKED, Answer("other")) == (answer, 0)


def test_the_file_is_named_by_the_hash_of_what_was_asked(tmp_path: Path) -> None:
    canonical = (
        r'{"identity":{"model":"one","provider":"fake"},"messages":[{"content":"\u00bfQu\u00e9?","role":"user"}],'
        r'"parameters":{"max_tokens":10,"seed":0,"temperature":0.0}}'
    )
    key = hashlib.sha256(canonical.encode()).hexdigest()
    told(tmp_path, ASKED, Answer("雨の夜", "stop", 5, 6))
    text = (tmp_path / key[:2] / f"{key}.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "format": 1,
        "identity": {"provider": "fake", "model": "one"},
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
def test_another_request_has_another_answer(change: dict[str, Any], tmp_path: Path) -> None:
    told(tmp_path, ASKED, Answer("text"))
    assert told(tmp_path, replace(ASKED, **change), Answer("other")) == (Answer("other"), 1)


def test_labels_and_the_kind_of_a_number_change_nothing(tmp_path: Path) -> None:
    told(tmp_path, ASKED, Answer("one"))
    assert told(tmp_path, replace(ASKED, label="other", temperature=0), Answer("two")) == (Answer("one"), 0)


@pytest.mark.parametrize("content", [b"", b'{"answer": {"text": "te', b"\xff\xfe", b"[]", b'{"answer": null}', b"{}"])
def test_a_damaged_file_counts_as_not_there_and_is_overwritten(content: bytes, tmp_path: Path) -> None:
    told(tmp_path, ASKED, Answer("text"))
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(content)
    assert told(tmp_path, ASKED, Answer("again")) == (Answer("again"), 1)
    assert told(tmp_path, ASKED, Answer("third")) == (Answer("again"), 0)


def test_a_folder_that_takes_nothing_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = FakeModel()
    with pytest.raises(InputError, match=r"can be kept in .*file/llm: Not a directory; give another --cache"):
        ask(model, tmp_path / "file" / "llm", "a")
    assert model.asked == []
