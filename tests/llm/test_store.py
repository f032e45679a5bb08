"""Answers on disk: found again as they were, and never trusted when they are not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import request

from fedmpt.llm.model import Answer, Message
from fedmpt.llm.store import AnswerStore

IDENTITY = {"provider": "fake", "model": "one"}
ASKED = request("¿Qué?")


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(tmp_path, IDENTITY)


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
def test_an_answer_is_found_as_it_was(answer: Answer, store: AnswerStore) -> None:
    assert store.load(ASKED) is None
    store.save(ASKED, answer)
    assert store.load(ASKED) == answer


def test_the_key_is_the_hash_of_what_was_asked_and_of_whom(store: AnswerStore) -> None:
    canonical = (
        r'{"identity":{"model":"one","provider":"fake"},"messages":[{"content":"\u00bfQu\u00e9?","role":"user"}],'
        r'"parameters":{"max_tokens":10,"seed":0,"temperature":0.0}}'
    )
    key = hashlib.sha256(canonical.encode()).hexdigest()
    assert store.key(ASKED) == key
    store.save(ASKED, Answer("text"))
    assert (store.folder / key[:2] / f"{key}.json").is_file()


def test_a_person_can_read_the_file(store: AnswerStore) -> None:
    store.save(ASKED, Answer("雨の夜", "stop", 5, 6))
    text = store.path(ASKED).read_text(encoding="utf-8")
    assert "¿Qué?" in text
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
def test_another_request_has_another_answer(change: dict[str, Any], store: AnswerStore) -> None:
    store.save(ASKED, Answer("text"))
    assert store.load(replace(ASKED, **change)) is None


def test_labels_and_the_kind_of_a_number_change_nothing(store: AnswerStore) -> None:
    store.save(ASKED, Answer("text"))
    assert store.load(replace(ASKED, label="other", temperature=0)) == Answer("text")


def test_another_model_has_another_answer(store: AnswerStore) -> None:
    store.save(ASKED, Answer("text"))
    assert AnswerStore(store.folder, {**IDENTITY, "model": "two"}).load(ASKED) is None


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    value = json.loads(content)
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "bytes":
        path.write_bytes(b"\xff\xfe\x00" * 100)
    elif how == "deep":
        path.write_bytes(b"[" * 100_000)
    elif how == "list":
        path.write_text("[]")
    elif how.startswith("link"):
        path.unlink()
        path.symlink_to("nothing" if how == "link to nothing" else path.name)
    else:
        where, name, new = {
            "format": (value, "format", 2),
            "other request": (value["messages"][0], "content", "other"),
            "other model": (value["identity"], "model", "two"),
            "other parameters": (value["parameters"], "seed", 5),
            "no answer": (value, "answer", None),
            "no text": (value["answer"], "text", 7),
            "finish": (value["answer"], "finish", "done"),
            "finish list": (value["answer"], "finish", ["stop"]),
            "tokens": (value["answer"], "prompt_tokens", "3"),
            "bool": (value["answer"], "answer_tokens", True),
        }[how]
        where[name] = new
        path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "how",
    [
        "cut", "empty", "bytes", "deep", "list", "format", "other request", "other model", "other parameters",
        "no answer", "no text", "finish", "finish list", "tokens", "bool", "link to nothing", "link to itself",
    ],
)  # fmt: skip
def test_a_spoilt_file_counts_as_not_there_and_is_overwritten(how: str, store: AnswerStore) -> None:
    store.save(ASKED, Answer("text"))
    spoil(store.path(ASKED), how)
    assert store.load(ASKED) is None
    store.save(ASKED, Answer("again"))
    assert store.load(ASKED) == Answer("again")


def test_a_folder_in_place_of_a_file_counts_as_not_there(store: AnswerStore) -> None:
    store.path(ASKED).mkdir(parents=True)
    assert store.load(ASKED) is None
    with pytest.raises(OSError, match="directory"):
        store.save(ASKED, Answer("text"))


def test_the_later_of_two_answers_stays(store: AnswerStore) -> None:
    store.save(ASKED, Answer("one"))
    store.save(ASKED, Answer("two"))
    assert store.load(ASKED) == Answer("two")
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [f"{store.key(ASKED)}.json"]


WRITER = """
import sys
from pathlib import Path
from fedmpt.llm.model import Answer, Message, Request
from fedmpt.llm.store import AnswerStore
store = AnswerStore(Path(sys.argv[1]), {"provider": "fake", "model": "one"})
request = Request((Message("user", "both"),), 10, 0.0, 0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    store.save(request, Answer(sys.argv[2] * 20_000))
"""


@pytest.mark.slow
def test_two_processes_that_write_the_same_answer_leave_a_whole_one(store: AnswerStore) -> None:
    asked = request("both")
    store.save(asked, Answer("a" * 20_000))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.folder), letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for letter in "ab"
    ]
    seen: set[Answer | None] = set()
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            seen.add(store.load(asked))
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {Answer("a" * 20_000), Answer("b" * 20_000)}
    assert len(list(store.folder.rglob("*.*"))) == 1
