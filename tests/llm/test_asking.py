"""The asking loop: what is asked again, what is kept, and what is never asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_model import FakeModel, Notes, ask, ask_of, asker_of, request

from fedmpt.llm.asking import MAX_REPEATED, Unusable, Usage
from fedmpt.llm.exchange import Exchange
from fedmpt.llm.model import Answer, Message, RequestTooLongError
from fedmpt.types import InputError

LATER_IS_FASTER: Callable[[str], float] = lambda text: 0.01 * (9 - int(text[1:]))  # noqa: E731


def test_answers_come_in_the_order_of_the_questions_whichever_is_first(tmp_path: Path) -> None:
    found, usage = ask(FakeModel(waits=LATER_IS_FASTER), tmp_path, *(f"q{number}" for number in range(9)))
    assert found == [f"Q{number}" for number in range(9)]
    assert usage == Usage(asked=9, prompt_tokens=18, answer_tokens=27)


@pytest.mark.parametrize(("concurrency", "at_once"), [(1, 1), (3, 3), (50, 8)])
def test_so_many_are_asked_at_once_as_options_and_model_allow(concurrency: int, at_once: int, tmp_path: Path) -> None:
    meeting, lock = threading.Barrier(at_once), threading.Lock()
    under_way = most = 0

    def waits(text: str) -> float:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        meeting.wait(30)
        with lock:
            under_way -= 1
        return 0.0

    ask(FakeModel(waits=waits), tmp_path, *(f"q{number}" for number in range(2 * at_once)), concurrency=concurrency)
    assert most == at_once


def test_a_second_run_asks_nothing_and_finds_the_same(tmp_path: Path) -> None:
    bad = {"b": [Answer("no"), Answer("YES")], "c": [Answer("no", "length"), Answer(""), Answer("never")]}
    found, _ = ask(FakeModel(bad), tmp_path, "a", "b", "c")
    assert found[:2] == ["A", "YES"]
    assert isinstance(found[2], Unusable)
    second, notes = FakeModel({"a": [AssertionError()]}), Notes()
    again, usage = ask(second, tmp_path, "a", "b", "c", notes=notes)
    assert again == found
    assert second.asked == []
    assert usage == Usage(cached=6, unusable=1)
    assert notes.are_kept == [True] * 6


def test_what_a_person_changes_in_an_exchange_counts(tmp_path: Path) -> None:
    """Unlike other answers, those are not kept a second time."""
    with pytest.raises(InputError, match=r"answers awaited in .*; write them there, then run the same"):
        ask(Exchange(tmp_path / "prompts"), tmp_path / "cache", "a")
    prompt = next((tmp_path / "prompts").iterdir())
    answer = prompt.with_name(prompt.name.replace(".prompt.", ".answer."))
    for text in ("FIRST", "SECOND"):
        answer.write_text(text)
        assert ask(Exchange(tmp_path / "prompts"), tmp_path / "cache", "a")[0] == [text]
    assert not (tmp_path / "cache").exists()


def test_a_bad_answer_is_sent_back_with_what_was_wrong(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("small"), Answer(" "), Answer("LARGE")]})
    found, usage = ask(model, tmp_path, "a")
    assert found == ["LARGE"]
    assert usage.asked == 3
    messages = model.asked[-1].messages
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1] == Message("assistant", "small")
    assert messages[2].content == (
        "This answer cannot be used: 'small' is not in capitals.\nAnswer the whole request again, and mend this."
    )
    assert messages[3].content == "(empty)"
    assert [asked.label for asked in model.asked] == ["question a", "question a, repair 1", "question a, repair 2"]
    assert {(asked.max_tokens, asked.temperature, asked.seed) for asked in model.asked} == {(10, 0.0, 0)}


def test_after_the_last_attempt_a_question_is_unusable_and_no_error(tmp_path: Path) -> None:
    notes = Notes()
    found, usage = ask(FakeModel({"a": [Answer("small")]}), tmp_path, "a", "b", notes=notes, attempts=2)
    assert found == [
        Unusable("no usable answer in 2 attempts; the last answer: 'small' is not in capitals."),
        "B",
    ]
    assert usage == Usage(asked=3, unusable=1, prompt_tokens=2, answer_tokens=3)
    assert isinstance(found[0], Unusable)
    assert notes.reasons == [found[0].reason]


def test_an_answer_without_end_is_not_repeated_in_full(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("x" * 50_000, "length"), Answer("OK")]})
    assert ask(model, tmp_path, "a")[0] == ["OK"]
    assert len(model.asked[1].messages[1].content) < MAX_REPEATED + 10


def test_a_repair_that_is_too_long_for_the_model_stops_that_question_only(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("small"), RequestTooLongError("too long")]})
    found, _ = ask(model, tmp_path, "a", "b")
    assert isinstance(found[0], Unusable)
    assert "too long for the model; the last answer: 'small'" in found[0].reason
    assert found[1] == "B"
    with pytest.raises(RequestTooLongError):
        ask(FakeModel({"c": [RequestTooLongError("too long")]}), tmp_path, "c")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>First, 1.\nThen 2.</think>\n\nANSWER", "ANSWER"),
        ("first, 1.</think>ANSWER", "ANSWER"),
        ("WITH <THINK>TAGS</THINK> INSIDE", "WITH <THINK>TAGS</THINK> INSIDE"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(text: str, left: str, tmp_path: Path) -> None:
    assert ask(FakeModel({"a": [Answer(text)]}), tmp_path, "a")[0] == [left]
    endless = FakeModel({"a": [Answer("<think>never done", "length"), Answer("OK")]})
    assert ask(endless, tmp_path / "endless", "a")[0] == ["OK"]
    assert endless.asked[1].messages[1].content == "(empty)"


def test_fresh_asks_anew_and_overwrites(tmp_path: Path) -> None:
    ask(FakeModel({"a": [Answer("OLD")]}), tmp_path, "a")
    model = FakeModel({"a": [Answer("NEW")]})
    asker = asker_of(model, tmp_path, fresh=True)
    assert ask_of(asker, "a") == ["NEW"]
    # What this Asker asked itself is fresh.
    assert ask_of(asker, "a") == ["NEW"]
    assert len(model.asked) == 1
    assert ask(FakeModel(), tmp_path, "a")[0] == ["NEW"]


def test_another_model_is_asked_itself(tmp_path: Path) -> None:
    ask(FakeModel({"a": [Answer("ONE")]}), tmp_path, "a")
    other = FakeModel({"a": [Answer("TWO")]}, identity={"provider": "fake", "model": "two"})
    assert ask(other, tmp_path, "a")[0] == ["TWO"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_stops_it_stops_everything_and_keeps_what_was_answered(concurrency: int, tmp_path: Path) -> None:
    def until_two_are_kept(text: str) -> float:
        deadline = time.monotonic() + 20
        while text == "stop" and asker.usage.asked < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return 0.0

    model = FakeModel({"stop": [InputError("no such key")]}, waits=until_two_are_kept)
    asker = asker_of(model, tmp_path, concurrency=concurrency)
    with pytest.raises(InputError, match="no such key"):
        ask_of(asker, "a", "b", "stop", "c", "d")
    again = FakeModel()
    assert ask(again, tmp_path, "a", "b", "stop", "c")[0] == ["A", "B", "STOP", "C"]
    assert not {"a", "b"} & set(again.asked_texts)


def test_ctrl_c_waits_for_no_answer(tmp_path: Path) -> None:
    """As a terminal does it: the signal reaches the main thread while others wait for the model."""
    released = threading.Event()
    model = FakeModel(waits=lambda text: float(released.wait(30) and 0))
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(model, tmp_path, "a", "b", concurrency=2)
    assert time.monotonic() - start < 20
    released.set()


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path) -> None:
    def broken(answer: Answer) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asker_of(FakeModel(), tmp_path).ask_all([request("a")], [broken])


def test_answers_that_somebody_has_to_write_are_listed_together(tmp_path: Path) -> None:
    pending = {text: [tmp_path / "wait" / f"{text}.txt"] for text in "abcd"}
    model = FakeModel({**pending, "small": [Answer("small"), Answer("LARGE")]})
    with pytest.raises(InputError) as caught:
        ask(model, tmp_path / "cache", "a", "x", "b", "small", "c", "d")
    assert f"answers awaited in {tmp_path / 'wait'}: 4 (a.txt, b.txt, c.txt, ...)" in str(caught.value)
    again = FakeModel()
    assert ask(again, tmp_path / "cache", "a", "x", "b", "small", "c", "d")[0] == ["A", "X", "B", "LARGE", "C", "D"]
    assert sorted(again.asked_texts) == ["a", "b", "c", "d"]


# The budget.


@pytest.mark.parametrize(
    ("max_requests", "expected"),
    [
        # All at once: first answers go before repairs, and these in order.
        (12, ["LARGE", "Q1", "LARGE", "LARGE"]),
        # One after the other, or the last ones could not be asked at all.
        (5, ["LARGE", "Q1", "LARGE", None]),
        (4, ["LARGE", "Q1", "small", None]),
    ],
)
def test_the_budget_goes_to_the_first_questions_whichever_comes_first(
    max_requests: int, expected: list[str | None], tmp_path: Path
) -> None:
    small = [Answer("small"), Answer("LARGE")]
    model = FakeModel({"q0": small, "q2": small, "q3": small}, waits=LATER_IS_FASTER)
    asker = asker_of(model, tmp_path, max_requests=max_requests)
    spent = f"the budget of {max_requests} requests is used up"
    unusable = {None: Unusable(spent), "small": Unusable(f"{spent}; the last answer: 'small' is not in capitals.")}
    found = ask_of(asker, *(f"q{number}" for number in range(4)))
    assert found == [unusable.get(each, each) for each in expected]
    assert asker.usage.asked == len(model.asked) == min(max_requests, 7)


def test_what_is_reserved_is_left_for_later(tmp_path: Path) -> None:
    asker = asker_of(FakeModel(), tmp_path, max_requests=3)
    spent = Unusable("the budget of 3 requests is used up")
    assert ask_of(asker, *"abc", reserve=1) == ["A", "B", spent]
    assert ask_of(asker, "d", "e") == ["D", spent]


def test_what_is_kept_costs_nothing_so_the_next_run_goes_on(tmp_path: Path) -> None:
    found, _ = ask(FakeModel(), tmp_path, "a", "b", "c", max_requests=2)
    assert found == ["A", "B", Unusable("the budget of 2 requests is used up")]
    model = FakeModel()
    found, usage = ask(model, tmp_path, "a", "b", "c", max_requests=1)
    assert found == ["A", "B", "C"]
    assert model.asked_texts == ["c"]
    assert (usage.asked, usage.cached) == (1, 2)


def test_requests_go_out_evenly_spaced(tmp_path: Path) -> None:
    start = time.monotonic()
    ask(FakeModel(), tmp_path, "a", "b", "c", "d", requests_per_minute=1200)
    assert 0.15 <= time.monotonic() - start < 10.0
