"""How many answers may be asked for, which questions get them, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from asked_fake import ask
from fake_model import FakeModel, question

from fedmpt.llm.asking import Asker, Limits, Unusable
from fedmpt.llm.model import Answer, TransientError
from fedmpt.types import InputError


@pytest.mark.parametrize("turns", [lambda text: 0, lambda text: 9 - int(text[1:])])
def test_the_budget_goes_to_the_first_questions(turns: Callable[[str], int], tmp_path: Path) -> None:
    model = FakeModel(turns=turns)
    with Asker(model, cache=tmp_path, limits=Limits(max_requests=3)) as asker:
        assert asker.remaining() == 3
        found = asker.ask_all([question(f"q{number}") for number in range(5)])
        assert asker.remaining() == 0
    assert found[:3] == ["Q0", "Q1", "Q2"]
    assert all(isinstance(one, Unusable) and "budget of 3" in one.reason for one in found[3:])
    assert sorted(model.asked_texts) == ["q0", "q1", "q2"]


def test_first_answers_go_before_repairs_and_these_in_order(tmp_path: Path) -> None:
    small = [Answer("small"), Answer("LARGE")]
    model = FakeModel({"q0": small, "q2": small, "q3": small}, turns=lambda text: 9 - int(text[1:]))
    found, usage = ask(model, tmp_path, "q0", "q1", "q2", "q3", max_requests=6)
    assert found[:3] == ["LARGE", "Q1", "LARGE"]
    assert isinstance(found[3], Unusable)
    assert "budget" in found[3].reason
    assert "'small' is not in capitals." in found[3].reason
    assert usage.asked == len(model.asked) == 6


def test_the_budget_is_for_the_whole_life(tmp_path: Path) -> None:
    with Asker(FakeModel(), cache=tmp_path, limits=Limits(max_requests=3)) as asker:
        assert asker.ask_all([question("a"), question("b")]) == ["A", "B"]
        assert asker.remaining() == 1
        found = asker.ask_all([question("c"), question("d")])
    assert found[0] == "C"
    assert isinstance(found[1], Unusable)


def test_what_is_kept_costs_nothing_so_the_next_run_goes_on(tmp_path: Path) -> None:
    ask(FakeModel(), tmp_path, "a", "b", "c", max_requests=2)
    model = FakeModel()
    found, usage = ask(model, tmp_path, "a", "b", "c", max_requests=1)
    assert found == ["A", "B", "C"]
    assert model.asked_texts == ["c"]
    assert (usage.asked, usage.cached) == (1, 2)


def test_failures_to_get_through_cost_nothing_of_the_budget(tmp_path: Path) -> None:
    model = FakeModel({"a": [TransientError("busy"), TransientError("busy"), Answer("A")]})
    found, usage = ask(model, tmp_path, "a", "b", max_requests=2)
    assert found == ["A", "B"]
    assert (usage.asked, usage.retried) == (2, 2)


def test_a_budget_of_nothing_asks_nothing(tmp_path: Path) -> None:
    model = FakeModel()
    assert all(isinstance(one, Unusable) for one in ask(model, tmp_path, "a", "b", max_requests=0)[0])
    assert model.asked == []


def test_what_was_not_answered_is_still_in_the_budget(tmp_path: Path) -> None:
    model = FakeModel({"b": [InputError("no such key"), Answer("B")]})
    with Asker(model, cache=tmp_path, limits=Limits(max_requests=3, concurrency=1)) as asker:
        with pytest.raises(InputError, match="no such key"):
            asker.ask_all([question(text) for text in "abc"])
        assert asker.remaining() == 2
        assert asker.ask_all([question(text) for text in "abc"]) == ["A", "B", "C"]
        assert asker.remaining() == 0
