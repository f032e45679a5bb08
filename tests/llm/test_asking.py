"""The asking loop: what is asked again, what is kept, and what is never asked."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from asked_endpoint import service_at
from asked_fake import ask
from fake_model import FakeModel, Notes, question, request
from faulty_llm import FaultyLLM, endless, good

from fedmpt.llm.asking import Asker, Limits, Question, Unusable, Usage
from fedmpt.llm.conversation import MAX_REPEATED, RequestTooLongError
from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.exchange import Exchange
from fedmpt.llm.model import Answer, AnswerPendingError, Message, Request
from fedmpt.types import InputError


def test_answers_come_in_the_order_of_the_questions_whichever_is_first(tmp_path: Path) -> None:
    for index, turns in enumerate((lambda text: 0, lambda text: 9 - int(text[1:]), lambda text: int(text[1:]) * 7 % 4)):
        model = FakeModel(turns=turns)
        found, usage = ask(model, tmp_path / str(index), *(f"q{number}" for number in range(9)))
        assert found == [f"Q{number}" for number in range(9)]
        assert usage == Usage(asked=9, prompt_tokens=18, answer_tokens=27)


def test_a_second_run_asks_nothing_and_finds_the_same(tmp_path: Path) -> None:
    bad = {"b": [Answer("no"), Answer("YES")], "c": [Answer("no", "length"), Answer("", "refusal"), Answer("never")]}
    first = FakeModel(bad)
    found, _ = ask(first, tmp_path, "a", "b", "c")
    assert found[:2] == ["A", "YES"]
    assert isinstance(found[2], Unusable)
    second, notes = FakeModel({"a": [AssertionError()]}), Notes()
    again, usage = ask(second, tmp_path, "a", "b", "c", watcher=notes)
    assert again == found
    assert second.asked == []
    assert usage == Usage(cached=6, unusable=1)
    assert all(cached for _, cached in notes.answered_)


def test_what_a_person_changes_in_an_exchange_counts(tmp_path: Path) -> None:
    """Unlike other answers, those are not kept a second time."""

    def found() -> list[str | Unusable]:
        with Asker(Exchange(tmp_path / "prompts"), cache=tmp_path / "cache", limits=Limits()) as asker:
            return asker.ask_all([question("a")])

    with pytest.raises(InputError, match=r"1 answer is awaited in .*; write it there, then run the same command again"):
        found()
    prompt = next((tmp_path / "prompts").iterdir())
    answer = prompt.with_name(prompt.name.replace(".prompt.", ".answer."))
    for text in ("FIRST", "SECOND"):
        answer.write_text(text)
        assert found() == [text]
    assert not (tmp_path / "cache").exists()


def test_a_bad_answer_is_sent_back_with_what_was_wrong(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("small"), Answer(" "), Answer("LARGE")]})
    found, usage = ask(model, tmp_path, "a")
    assert found == ["LARGE"]
    assert usage.asked == 3
    messages = model.asked[-1].messages
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1] == Message("assistant", "small")
    assert "'small' is not in capitals." in messages[2].content
    assert messages[3].content.strip()
    assert [asked.label for asked in model.asked] == ["question a", "question a, repair 1", "question a, repair 2"]
    assert {(asked.max_tokens, asked.temperature, asked.seed) for asked in model.asked} == {(10, 0.0, 0)}


def test_after_the_last_attempt_a_question_is_unusable_and_no_error(tmp_path: Path) -> None:
    notes = Notes()
    model = FakeModel({"a": [Answer("small")]})
    found, usage = ask(model, tmp_path, "a", "b", watcher=notes, attempts=2)
    assert isinstance(found[0], Unusable)
    assert "'small' is not in capitals." in found[0].reason
    assert found[1] == "B"
    assert usage == Usage(asked=3, unusable=1, prompt_tokens=2, answer_tokens=3)
    assert notes.unusable_ == [found[0].reason]


def test_an_answer_without_end_is_not_repeated_in_full(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("x" * 50_000, "length"), Answer("OK")]})
    assert ask(model, tmp_path, "a")[0] == ["OK"]
    assert len(model.asked[1].messages[1].content) < MAX_REPEATED + 10


def test_a_repair_that_is_too_long_for_the_model_stops_that_question_only(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("small"), RequestTooLongError("too long")]})
    found, _ = ask(model, tmp_path, "a", "b")
    assert isinstance(found[0], Unusable)
    assert "too long" in found[0].reason
    assert found[1] == "B"
    with pytest.raises(RequestTooLongError):
        ask(FakeModel({"c": [RequestTooLongError("too long")]}), tmp_path, "c")


def test_two_questions_with_the_same_request_share_the_answer(tmp_path: Path) -> None:
    model = FakeModel({"a": [Answer("small"), Answer("LARGE"), Answer("OTHER")]})
    found, usage = ask(model, tmp_path, "a", "b", "a")
    assert found == ["LARGE", "B", "LARGE"]
    assert usage.asked == len(model.asked) == 3


def test_nothing_asked_gives_nothing(tmp_path: Path) -> None:
    assert ask(FakeModel(), tmp_path) == ([], Usage())


def test_fresh_asks_anew_and_overwrites(tmp_path: Path) -> None:
    ask(FakeModel({"a": [Answer("OLD")]}), tmp_path, "a")
    model = FakeModel({"a": [Answer("NEW")]})
    with Asker(model, cache=tmp_path, limits=Limits(fresh=True)) as asker:
        assert asker.ask_all([question("a")]) == ["NEW"]
        # What this Asker asked itself is fresh.
        assert asker.ask_all([question("a")]) == ["NEW"]
    assert len(model.asked) == 1
    assert ask(FakeModel(), tmp_path, "a")[0] == ["NEW"]


def test_another_model_is_asked_itself(tmp_path: Path) -> None:
    ask(FakeModel({"a": [Answer("ONE")]}), tmp_path, "a")
    other = FakeModel({"a": [Answer("TWO")]}, identity={"provider": "fake", "model": "two"})
    assert ask(other, tmp_path, "a")[0] == ["TWO"]


# Stops.


def test_a_refusal_for_good_stops_everything_and_keeps_what_was_answered(tmp_path: Path) -> None:
    slow = {"a": 0, "b": 0, "wrong": 2, "c": 50, "d": 50}
    model = FakeModel({"wrong": [InputError("no such key")]}, turns=lambda text: slow[text])
    with pytest.raises(InputError, match="no such key"):
        ask(model, tmp_path, *slow, concurrency=2)
    assert model.asked_texts == ["a", "b", "wrong", "c"]
    assert model.cancelled == 1
    assert model.times_closed == 1
    again = FakeModel()
    assert ask(again, tmp_path, *slow)[0] == ["A", "B", "WRONG", "C", "D"]
    assert again.asked_texts == ["wrong", "c", "d"]


def test_an_interrupt_keeps_what_was_answered_and_closes_the_model(tmp_path: Path) -> None:
    slow = {"a": 0, "b": 0, "stop": 3, "c": 50}
    model = FakeModel({"stop": [KeyboardInterrupt()]}, turns=lambda text: slow[text])
    asker = Asker(model, cache=tmp_path, limits=Limits())
    with pytest.raises(KeyboardInterrupt):
        asker.ask_all([question(text) for text in slow])
    assert asker.usage.asked == 2
    assert (model.cancelled, model.times_closed) == (1, 1)
    assert not model.was_closed_while_asked
    again = FakeModel()
    assert ask(again, tmp_path, *slow)[0] == ["A", "B", "STOP", "C"]
    assert again.asked_texts == ["stop", "c"]


def test_the_signal_of_ctrl_c_does_the_same(tmp_path: Path) -> None:
    def turns(text: str) -> int:
        if text == "stop":
            signal.raise_signal(signal.SIGINT)
        return {"a": 0, "b": 0}.get(text, 50)

    model = FakeModel(turns=turns)
    asker = Asker(model, cache=tmp_path, limits=Limits())
    with pytest.raises(KeyboardInterrupt):
        asker.ask_all([question(text) for text in ("a", "b", "c", "stop", "d")])
    assert asker.usage.asked == 2
    assert model.times_closed == 1
    assert not model.was_closed_while_asked
    again = FakeModel()
    assert ask(again, tmp_path, "a", "b", "c", "stop", "d")[0] == ["A", "B", "C", "STOP", "D"]
    assert again.asked_texts == ["c", "stop", "d"]


def test_an_interrupt_closes_connections_under_way(tmp_path: Path) -> None:
    class Interrupting(Notes):
        def answered(self, request: Request, *, cached: bool) -> None:
            signal.raise_signal(signal.SIGINT)

    with FaultyLLM(endless(b": wait\n\n"), good("FINE")) as server:
        endpoint = Endpoint("some-model", service_at(server.url))
        with (
            Asker(endpoint, cache=tmp_path, limits=Limits(), watcher=Interrupting()) as asker,
            pytest.raises(KeyboardInterrupt),
        ):
            asker.ask_all([question("a"), question("b")])
        assert server.left.wait(10)
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path) -> None:
    def broken(answer: Answer) -> str:
        raise ZeroDivisionError

    with Asker(FakeModel(), cache=tmp_path, limits=Limits()) as asker, pytest.raises(ZeroDivisionError):
        asker.ask_all([Question(request("a"), broken)])


def test_answers_that_somebody_has_to_write_are_listed_together(tmp_path: Path) -> None:
    pending = {text: [AnswerPendingError(tmp_path / "wait" / f"{text}.txt")] for text in "abcd"}
    model = FakeModel({**pending, "small": [Answer("small"), Answer("LARGE")]})
    with pytest.raises(InputError) as caught:
        ask(model, tmp_path / "cache", "a", "x", "b", "small", "c", "d")
    message = str(caught.value)
    assert f"4 answers are awaited in {tmp_path / 'wait'}: a.txt, b.txt, c.txt and 1 more" in message
    assert "run the same command again" in message
    again = FakeModel()
    assert ask(again, tmp_path / "cache", "a", "x", "b", "small", "c", "d")[0] == ["A", "X", "B", "LARGE", "C", "D"]
    assert again.asked_texts == ["a", "b", "c", "d"]


def test_inside_an_event_loop_it_says_what_to_do(tmp_path: Path) -> None:
    asker = Asker(FakeModel(), cache=tmp_path, limits=Limits())

    async def notebook() -> list[str | Unusable]:
        for use in (lambda: asker.ask_all([question("a")]), asker.close):
            with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
                use()
        return await asyncio.to_thread(lambda: asker.ask_all([question("a")]))

    assert asyncio.run(notebook()) == ["A"]
    asker.close()


def test_closing_twice_closes_the_model_once(tmp_path: Path) -> None:
    model = FakeModel()
    asker = Asker(model, cache=tmp_path, limits=Limits())
    asker.close()
    asker.close()
    assert model.times_closed == 1
