"""Prompts wait in a folder for a person, and an answer is found again whenever its request comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedmpt.llm.exchange import MAX_BYTES, Exchange
from fedmpt.llm.model import Answer, AnswerPendingError, Message, Request
from fedmpt.types import InputError

SYSTEM, USER = Message("system", "You describe photos."), Message("user", "A cat on a chair.\nTwo sentences.")
REQUEST = Request((SYSTEM, USER), 100, 0.7, 0, label="describe 3 of 20")


def ask(folder: Path, request: Request = REQUEST) -> Answer:
    return asyncio.run(Exchange(folder).ask(request))


def pending(folder: Path, request: Request = REQUEST) -> Path:
    """Where the answer has to go."""
    with pytest.raises(AnswerPendingError) as waiting:
        ask(folder, request)
    return waiting.value.path


def prompts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.prompt.txt"))


def test_a_prompt_waits_and_its_answer_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    path = pending(folder)
    assert path.parent == folder
    assert not path.exists()
    path.write_text("A cat sleeps.\nA cat sits.\n")
    assert ask(folder) == Answer("A cat sleeps.\nA cat sits.", "stop", None, None)


def test_a_prompt_says_where_its_answer_goes_and_has_the_texts_ready_to_paste(tmp_path: Path) -> None:
    answer = pending(tmp_path)
    (prompt,) = prompts(tmp_path)
    assert prompt.name.startswith("describe-003-of-020-")
    assert prompt.name.removesuffix(".prompt.txt") == answer.name.removesuffix(".answer.txt")
    head, line, paste = prompt.read_text().partition(f"\n{'=' * 72}\n")
    assert line
    assert answer.name in head
    assert paste == f"{SYSTEM.content}\n\n{USER.content}\n"


def test_a_longer_conversation_is_shown_whole_and_in_order(tmp_path: Path) -> None:
    later = (Message("assistant", "One sentence."), Message("user", "Two were asked for."))
    pending(tmp_path, replace(REQUEST, messages=(SYSTEM, USER, *later)))
    text = prompts(tmp_path)[0].read_text()
    places = [text.index(message.content) for message in (SYSTEM, USER, *later)]
    assert places == sorted(places)
    assert text.index("--- Earlier answer ---\nOne sentence.") < text.index("--- Request ---\nTwo were asked for.")


def test_an_answer_is_found_whatever_the_label_is_later(tmp_path: Path) -> None:
    pending(tmp_path).write_text("Here.")
    assert ask(tmp_path, replace(REQUEST, label="describe 1 of 2")).text == "Here."
    assert ask(tmp_path, replace(REQUEST, label="")).text == "Here."


def test_a_request_that_waits_under_another_label_is_not_written_twice(tmp_path: Path) -> None:
    assert pending(tmp_path) == pending(tmp_path, replace(REQUEST, label="something else"))
    assert len(prompts(tmp_path)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"temperature": 0.0},
        {"max_tokens": 101},
        {"messages": (USER,)},
        {"messages": (SYSTEM, Message("user", USER.content + " "))},
        {"messages": (Message("user", SYSTEM.content), USER)},
    ],
)
def test_another_request_has_a_file_of_its_own(tmp_path: Path, changed: dict[str, object]) -> None:
    pending(tmp_path).write_text("Here.")
    pending(tmp_path, replace(REQUEST, **changed))  # type: ignore[arg-type]
    assert len(prompts(tmp_path)) == 2


def test_the_same_request_has_the_same_name_in_every_run(tmp_path: Path) -> None:
    # Answers of earlier versions would be lost if this changed.
    assert pending(tmp_path).name == "describe-003-of-020-8c632d7e6bfc.answer.txt"


@pytest.mark.parametrize(
    ("label", "start"),
    [
        ("", "request-"),
        ("../../etc/passwd", "etc-passwd-"),
        ("/", "request-"),
        ("Überblick: çà", "berblick-"),
        ("日本", "request-"),
        ("a\0b\nc*?", "a-b-c-"),
        ("x" * 500, "x" * 48 + "-"),
        ("1" * 500, "1" * 48 + "-"),
    ],
)
def test_any_label_makes_a_file_name_within_the_folder(tmp_path: Path, label: str, start: str) -> None:
    path = pending(tmp_path / "in", replace(REQUEST, label=label))
    assert path.parent == tmp_path / "in"
    assert path.name.startswith(start)
    assert [found.parent for found in tmp_path.rglob("*.txt")] == [tmp_path / "in"]


@pytest.mark.parametrize("content", ["", "  \n\n", "\ufeff", "\ufeff\n"])
def test_an_empty_answer_is_still_waited_for_and_left_alone(tmp_path: Path, content: str) -> None:
    path = pending(tmp_path)
    path.write_text(content, encoding="utf-8")
    assert pending(tmp_path) == path
    assert path.read_text(encoding="utf-8") == content


def test_a_prompt_that_somebody_changed_is_left_alone(tmp_path: Path) -> None:
    pending(tmp_path)
    (prompt,) = prompts(tmp_path)
    prompt.write_text("my notes")
    pending(tmp_path)
    assert prompt.read_text() == "my notes"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("\ufeffA cat.\n".encode(), "A cat."),
        (b"A cat.\r\nA dog.\r\n", "A cat.\nA dog."),
        (b"A cat.\rA dog.", "A cat.\nA dog."),
        ("Ein Kätzchen, süß 猫\t😀".encode(), "Ein Kätzchen, süß 猫\t😀"),
    ],
)
def test_an_answer_is_read_as_editors_write_it(tmp_path: Path, content: bytes, text: str) -> None:
    pending(tmp_path).write_bytes(content)
    assert ask(tmp_path).text == text


def is_a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes("A cat".encode("utf-16")), r"is not UTF-8 text \(byte 0\); save it as plain"),
        (lambda path: path.write_bytes(b"caf\xe9"), r"is not UTF-8 text \(byte 3\); save it as plain UTF-8"),
        (lambda path: path.write_bytes(b"PK\x03\x04\0\0"), r"is no plain text \(character 2 is '\\x03'\)"),
        (lambda path: path.write_bytes(b"a\x1b[2J"), r"is no plain text \(character 1 is '\\x1b'\)"),
        (lambda path: path.write_bytes(b"a" * (MAX_BYTES + 1)), rf"has {MAX_BYTES + 1} bytes, more than {MAX_BYTES}"),
        (is_a_folder, r"is no file; put the answer there as plain text"),
    ],
)
def test_what_is_no_answer_is_refused_by_name(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    path = pending(tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=rf"{path.name} {message}"):
        ask(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(pending(tmp_path))
    with pytest.raises(InputError, match="is no file"):
        ask(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is no folder; give one in which prompts and answers are exchanged"):
        Exchange(tmp_path / "file")
    with pytest.raises(InputError, match=r"prompt\.txt cannot be written \(Not a directory\); choose a folder"):
        ask(tmp_path / "file" / "below")


def test_who_answers_may_be_said_in_a_file(tmp_path: Path) -> None:
    assert Exchange(tmp_path).identity == {"provider": "exchange", "model": "not recorded"}
    (tmp_path / "model.txt").write_text("\ufeffa chat, version 3\n", encoding="utf-8")
    assert Exchange(tmp_path).identity == {"provider": "exchange", "model": "a chat, version 3"}
    (tmp_path / "model.txt").write_text(" \n")
    assert Exchange(tmp_path).identity["model"] == "not recorded"


@pytest.mark.parametrize("content", [b"one\ntwo", b"x" * 201, "a\u202eb".encode(), b"\0", b"\xff"])
def test_a_name_that_is_not_one_line_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.txt "):
        Exchange(tmp_path)


def test_nothing_but_prompts_is_written(tmp_path: Path) -> None:
    asyncio.run(Exchange(tmp_path).close())
    pending(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [prompts(tmp_path)[0].name]


def test_all_prompts_can_be_written_at_once(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path)

    async def ask_all() -> list[Answer | BaseException]:
        requests = [replace(REQUEST, seed=seed) for seed in range(20)]
        return await asyncio.gather(*(exchange.ask(each) for each in requests), return_exceptions=True)

    assert exchange.max_concurrency >= 20
    assert "temperature" in exchange.ignored
    found = asyncio.run(ask_all())
    assert {type(each) for each in found} == {AnswerPendingError}
    assert len(prompts(tmp_path)) == 20
