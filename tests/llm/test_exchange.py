"""Prompts wait in a folder for a person, and an answer is found again whenever its request comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedmpt.llm.exchange import Exchange
from fedmpt.llm.model import Answer, Message, Request
from fedmpt.types import InputError

SYSTEM, USER = Message("system", "You describe photos."), Message("user", "A cat on a chair.\nTwo sentences.")
REQUEST = Request((SYSTEM, USER), 100, 0.7, 0, label="describe 3 of 20")


def ask(folder: Path, request: Request = REQUEST) -> Answer:
    answer = Exchange(folder).ask(request)
    assert isinstance(answer, Answer)
    return answer


def pending(folder: Path, request: Request = REQUEST) -> Path:
    """Where the answer has to go."""
    path = Exchange(folder).ask(request)
    assert isinstance(path, Path)
    return path


def prompts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.prompt.txt"))


def test_a_prompt_says_where_its_answer_goes_and_has_the_texts_ready_to_paste(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    answer = pending(folder)
    # Answers of earlier versions would be lost if this changed.
    assert answer == folder / "describe-003-of-020-8c632d7e6bfc.answer.txt"
    (prompt,) = folder.iterdir()
    assert prompt.name == "describe-003-of-020-8c632d7e6bfc.prompt.txt"
    head, line, paste = prompt.read_text().partition(f"\n{'=' * 72}\n")
    assert line
    assert answer.name in head
    assert paste == f"{SYSTEM.content}\n\n{USER.content}\n"
    answer.write_text("A cat sleeps.\nA cat sits.\n")
    assert ask(folder) == Answer("A cat sleeps.\nA cat sits.", "stop", None, None)


def test_a_longer_conversation_is_shown_whole_and_in_order(tmp_path: Path) -> None:
    later = (Message("assistant", "One sentence."), Message("user", "Two were asked for."))
    pending(tmp_path, replace(REQUEST, messages=(SYSTEM, USER, *later)))
    text = prompts(tmp_path)[0].read_text()
    places = [text.index(message.content) for message in (SYSTEM, USER, *later)]
    assert places == sorted(places)
    assert text.index("--- Earlier answer ---\nOne sentence.") < text.index("--- Request ---\nTwo were asked for.")


def test_an_answer_is_found_and_a_prompt_written_once_whatever_the_label_is_later(tmp_path: Path) -> None:
    answer = pending(tmp_path)
    assert pending(tmp_path, replace(REQUEST, label="something else")) == answer
    assert len(prompts(tmp_path)) == 1
    answer.write_text("Here.")
    assert ask(tmp_path, replace(REQUEST, label="describe 1 of 2")).text == "Here."


@pytest.mark.parametrize("changed", [{"seed": 1}, {"temperature": 0.0}, {"max_tokens": 101}, {"messages": (USER,)}])
def test_another_request_has_a_file_of_its_own(tmp_path: Path, changed: dict[str, object]) -> None:
    pending(tmp_path).write_text("Here.")
    pending(tmp_path, replace(REQUEST, **changed))  # type: ignore[arg-type]
    assert len(prompts(tmp_path)) == 2


@pytest.mark.parametrize(
    ("label", "start"),
    [("", "request-"), ("../../etc/passwd", "etc-passwd-"), ("日本", "request-"), ("x" * 500, "x" * 48 + "-")],
)
def test_any_label_makes_a_file_name_within_the_folder(tmp_path: Path, label: str, start: str) -> None:
    path = pending(tmp_path, replace(REQUEST, label=label))
    assert path.parent == tmp_path
    assert path.name.startswith(start)


def test_what_is_there_is_left_alone_and_an_empty_answer_is_still_waited_for(tmp_path: Path) -> None:
    path = pending(tmp_path)
    prompts(tmp_path)[0].write_text("my notes")
    for content in ("", "  \n\n", "\ufeff\n"):
        path.write_text(content, encoding="utf-8")
        assert pending(tmp_path) == path
        assert path.read_text(encoding="utf-8") == content
    assert prompts(tmp_path)[0].read_text() == "my notes"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("\ufeffA cat.\n".encode(), "A cat."),
        (b"A cat.\r\nA dog.\r\n", "A cat.\nA dog."),
        ("Ein Kätzchen, süß 猫\t😀".encode(), "Ein Kätzchen, süß 猫\t😀"),
    ],
)
def test_an_answer_is_read_as_editors_write_it(tmp_path: Path, content: bytes, text: str) -> None:
    pending(tmp_path).write_bytes(content)
    assert ask(tmp_path).text == text


def test_what_is_no_answer_is_refused_by_name(tmp_path: Path) -> None:
    path = pending(tmp_path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=rf"{path.name} is not UTF-8 text \(byte 3\); save it as plain UTF-8"):
        ask(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"prompt\.txt cannot be written \(Not a directory\); choose another folder"):
        ask(tmp_path / "file" / "below")


def test_who_answers_may_be_said_in_a_file(tmp_path: Path) -> None:
    assert Exchange(tmp_path).identity == {"provider": "exchange", "model": "not recorded"}
    (tmp_path / "model.txt").write_text("\ufeffa chat, version 3\n", encoding="utf-8")
    assert Exchange(tmp_path).identity == {"provider": "exchange", "model": "a chat, version 3"}
    (tmp_path / "model.txt").write_text(" \n")
    assert Exchange(tmp_path).identity["model"] == "not recorded"
    (tmp_path / "model.txt").write_text("one\ntwo")
    assert Exchange(tmp_path).identity["model"] == "one two"
