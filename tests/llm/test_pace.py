"""How often and how much at once is asked, by an injected clock."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from asked_endpoint import service_at
from fake_model import FakeModel, FakeTime, Notes, question, request
from faulty_llm import FaultyLLM, cut, error, event, late

from fedmpt.llm.asking import Asker, Limits, Question
from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.model import Answer, TransientError
from fedmpt.llm.pace import LONGEST_ASKED_WAIT_S, LONGEST_WAIT_S, Pace
from fedmpt.types import InputError


@pytest.mark.parametrize(("allowed", "of_model", "expected"), [(3, 8, 3), (8, 2, 2), (4, 4, 4), (1, 8, 1)])
def test_no_more_requests_are_under_way_than_allowed(
    allowed: int, of_model: int, expected: int, tmp_path: Path
) -> None:
    model = FakeModel(turns=lambda text: 5, max_concurrency=of_model)
    with Asker(model, cache=tmp_path, limits=Limits(concurrency=allowed)) as asker:
        asker.ask_all([question(f"q{number}") for number in range(12)])
    assert model.most_at_once == expected


def test_a_repair_round_keeps_to_the_limit_too(tmp_path: Path) -> None:
    small = {f"q{number}": [Answer("small"), Answer("LARGE")] for number in range(6)}
    model = FakeModel(small, turns=lambda text: 5)
    with Asker(model, cache=tmp_path, limits=Limits(concurrency=2)) as asker:
        asker.ask_all([question(text) for text in small])
    assert (len(model.asked), model.most_at_once) == (12, 2)


def test_requests_are_spaced_evenly(tmp_path: Path) -> None:
    time, starts = FakeTime(), []
    model = FakeModel(turns=lambda text: starts.append(time.now) or 0)  # type: ignore[func-returns-value]
    limits = Limits(requests_per_minute=30, concurrency=3)
    with Asker(model, cache=tmp_path, limits=limits, sleep=time.sleep, clock=time.clock) as asker:
        asker.ask_all([question(f"q{number}") for number in range(5)])
        asker.ask_all([question("later")])
    assert starts == [0, 2, 4, 6, 8, 10]


def test_further_attempts_keep_to_the_rate_too(tmp_path: Path) -> None:
    time, starts = FakeTime(), []
    busy = [TransientError("busy")] * 3 + [Answer("A")]
    model = FakeModel({"a": busy}, turns=lambda text: starts.append(time.now) or 0)  # type: ignore[func-returns-value]
    limits = Limits(requests_per_minute=1)
    with Asker(model, cache=tmp_path, limits=limits, sleep=time.sleep, clock=time.clock) as asker:
        asker.ask_all([question("a")])
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(starts))


def test_waits_grow_within_bounds() -> None:
    pace = Pace(None)
    for failures in range(1, 2000):
        full = min(LONGEST_WAIT_S, 2.0 ** min(failures - 1, 30))
        assert 0.75 * full <= pace.wait_s(failures, None) <= full
    assert len({pace.wait_s(5, None) for _ in range(20)}) > 1


def test_the_wait_that_is_asked_for_is_kept_up_to_a_limit() -> None:
    pace = Pace(None)
    assert pace.wait_s(1, 40.0) == 40
    assert pace.wait_s(1, 0.0) >= 0.75
    assert pace.wait_s(7, 2.0) >= 40
    assert pace.wait_s(1, 1e9) == LONGEST_ASKED_WAIT_S


def test_the_reason_and_the_time_of_a_wait_are_told(tmp_path: Path) -> None:
    notes, time = Notes(), FakeTime()
    model = FakeModel({"a": [TransientError("busy"), TransientError("slow down", retry_after=33.0), Answer("A")]})
    with Asker(model, cache=tmp_path, limits=Limits(), watcher=notes, sleep=time.sleep, clock=time.clock) as asker:
        assert asker.ask_all([question("a")]) == ["A"]
    assert [reason for reason, _ in notes.waits] == ["busy", "slow down"]
    assert notes.waits[1][1] == 33
    assert [seconds for _, seconds in notes.waits] == time.slept[:2]


def test_who_is_asked_to_wait_waits_with_all_requests(tmp_path: Path) -> None:
    time, starts = FakeTime(), []

    def note(text: str) -> int:
        starts.append((text, time.now))
        return {"a": 1, "b": 3, "c": 0}[text]  # The first is refused while the second is under way.

    model = FakeModel({"a": [TransientError("slow down", retry_after=100.0), Answer("A")]}, turns=note)
    limits = Limits(concurrency=2)
    with Asker(model, cache=tmp_path, limits=limits, sleep=time.sleep, clock=time.clock) as asker:
        asker.ask_all([question(text) for text in "abc"])
    assert starts[:2] == [("a", 0), ("b", 0)]
    assert all(at >= 100 for _, at in starts[2:])


def test_who_waits_for_a_turn_already_is_held_back_too(tmp_path: Path) -> None:
    time, starts = FakeTime(), []

    def note(text: str) -> int:
        starts.append((text, time.now))
        return 3 if text == "a" else 0  # It is refused when the others wait already.

    model = FakeModel({"a": [TransientError("slow down", retry_after=100.0), Answer("A")]}, turns=note)
    limits = Limits(requests_per_minute=60, concurrency=3)
    with Asker(model, cache=tmp_path, limits=limits, sleep=time.sleep, clock=time.clock) as asker:
        assert asker.ask_all([question(text) for text in "abc"]) == ["A", "B", "C"]
    assert starts[0] == ("a", 0)
    assert sorted(at for _, at in starts[1:]) == [100, 101, 102]


def test_after_the_last_retry_the_endpoint_and_the_last_error_are_named(tmp_path: Path) -> None:
    identity = {"provider": "p", "endpoint": "https://llm.example/v1", "model": "m"}
    model = FakeModel({"b": [TransientError("first"), TransientError("last words")]}, identity=identity)
    time = FakeTime()
    with (
        Asker(model, cache=tmp_path, limits=Limits(retries=2, concurrency=1), sleep=time.sleep) as asker,
        pytest.raises(InputError) as caught,
    ):
        asker.ask_all([question("a"), question("b"), question("c")])
    message = str(caught.value)
    assert all(words in message for words in ("https://llm.example/v1", "3 attempts", "last words", "kept"))
    assert model.asked_texts == ["a", "b", "b", "b"]
    assert asker.usage.retried == 2


def test_an_endpoint_that_fails_in_every_way_is_asked_until_it_answers(tmp_path: Path) -> None:
    time, notes = FakeTime(), Notes()
    script = [
        error(429, "busy", headers={"Retry-After": "90"}),
        cut(event("A"), how="reset"),
        error(503, "no"),
        late(30),
    ]
    with FaultyLLM(*script) as server:
        endpoint = Endpoint("some-model", service_at(server.url), timeout_s=0.15)
        with Asker(
            endpoint, cache=tmp_path, limits=Limits(), watcher=notes, sleep=time.sleep, clock=time.clock
        ) as asker:
            found = [
                asker.ask_all([Question(request(text), lambda answer: answer.text)]) for text in ("first", "second")
            ]
    assert found == [["fine"], ["fine"]]
    assert notes.waits[0][1] == 90
    assert len(notes.waits) == 4
    assert len(server.asked) == 6
    for path in tmp_path.rglob("*.json"):
        assert "sk-test" not in path.read_text()
