"""Requests are planned, counted and kept within the budget; sentences that do not fit at once are taken in parts."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import NAMES, OPTIONS, ScriptedModel, asked_in, good, made, many, objects_in, refusing, stage_of

from fedmpt.conditions.pipeline.generate import into_parts
from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, GenerateOptions, Plan, plan
from fedmpt.conditions.record import Described, sentences_of
from fedmpt.llm.model import Request
from fedmpt.types import InputError

# 8 describe requests' worth of sentences do not fit into one of these.
NARROW = GenerateOptions(per_request=3, max_tokens=1024, context_tokens=1024 + 1024 + 1200)


def total(planned: Plan) -> int:
    return planned.describe + planned.summarise


def test_sentences_that_do_not_fit_are_summarised_in_parts_and_merged(tmp_path: Path) -> None:
    classes, combinations = many(60)
    model = ScriptedModel(good)
    found = made(model, tmp_path, class_names=classes, combinations=combinations, options=NARROW)
    parts = [request for request in model.requests if stage_of(request) == "summarise"]
    (merge,) = [request for request in model.requests if stage_of(request) == "merge"]
    assert len(parts) > 3
    told_parts = Counter(text for part in parts for each in objects_in(part) for text in each["sentences"])
    assert told_parts == Counter(text for each in sentences_of(found) for text in each.sentences)
    proposals = objects_in(merge)
    assert [each["name"] for each in proposals] == list(NAMES)
    assert {each["readers"] for each in proposals} == {len(parts)}
    assert found.names == NAMES
    assert len(model.requests) <= total(plan(60, NARROW, 1000))


def test_of_proposals_that_do_not_fit_those_of_most_readers_are_merged(tmp_path: Path) -> None:
    classes, combinations = many(90)

    def inventive(request: Request) -> str:
        if stage_of(request) == "describe":
            return good(request)
        own = sum(map(ord, asked_in(request)))
        return json.dumps({"conditions": ["place", *(f"aspect{letter}{own}" for letter in "abcd")]})

    model = ScriptedModel(inventive)
    found = made(model, tmp_path, class_names=classes, combinations=combinations, options=NARROW)
    (merge,) = [request for request in model.requests if stage_of(request) == "merge"]
    proposals = objects_in(merge)
    assert len(proposals) == NARROW.room // CANDIDATE_TOKENS
    num_parts = sum(stage_of(request) == "summarise" for request in model.requests)
    assert (proposals[0]["name"], proposals[0]["readers"]) == ("place", num_parts)
    (left,) = found.provenance["left_out"]
    assert (left["what"], left["number"]) == ("proposals", 1 + 4 * num_parts - len(proposals))


def test_parts_that_cannot_be_used_are_noted_and_the_others_merged(tmp_path: Path) -> None:
    classes, combinations = many(60)

    def one_refused(request: Request) -> str:
        refused = stage_of(request) == "summarise" and "kind0" in objects_in(request)[0]["labels"]
        return refusing(request) if refused else good(request)

    found = made(ScriptedModel(one_refused), tmp_path, class_names=classes, combinations=combinations, options=NARROW)
    assert found.names == NAMES
    assert [(left["stage"], left["what"]) for left in found.provenance["left_out"]] == [("summarise", "requests")]


def test_sentences_longer_than_planned_are_left_out_evenly() -> None:
    texts = ["very long " * 18 + str(number) for number in range(4)]
    described = [Described((f"kind{index}",), tuple(texts)) for index in range(40)]
    parts = into_parts(described, NARROW, 3)
    assert 1 <= len(parts) <= 3
    assert {len(each.sentences) for part in parts for each in part} == {1}
    order = [each.classes[0] for each in parts[0]]
    assert order == [each.classes[0] for each in described if each.classes[0] in order]


def test_where_not_all_combinations_fit_they_are_taken_from_all_over_the_list() -> None:
    described = [Described((f"kind{index}",), ("very long " * 18,)) for index in range(200)]
    (part,) = into_parts(described, NARROW, 1)
    kept = [int(each.classes[0].removeprefix("kind")) for each in part]
    assert 5 < len(kept) < 50
    assert len({after - before for before, after in pairwise(kept)}) == 1
    endless = Described(("kind",), ("very long " * 1000,))
    assert into_parts([endless], NARROW, 1) == [[endless]]


@pytest.mark.parametrize("num_classes", [20, 5000])
@pytest.mark.parametrize("max_requests", [2, 3, 40, 300])
def test_first_answers_stay_within_the_plan(num_classes: int, max_requests: int, tmp_path: Path) -> None:
    classes, combinations = many(num_classes)
    model = ScriptedModel(good)
    expected = plan(num_classes, OPTIONS, max_requests)
    found = made(model, tmp_path, class_names=classes, combinations=combinations, max_requests=max_requests)
    assert found.names == NAMES
    assert len(model.requests) <= total(expected) <= max_requests
    assert len(found.provenance["combinations"]["chosen"]) == len(sentences_of(found)) == expected.num_combinations
    left = {each["stage"]: each["number"] for each in found.provenance["left_out"]}
    assert left.get("plan", 0) == num_classes - expected.num_combinations


@pytest.mark.parametrize("quality", [0.0, 0.5])
@pytest.mark.parametrize("max_requests", [2, 3, 40, 200])
def test_bad_answers_never_make_it_more_than_the_budget(quality: float, max_requests: int, tmp_path: Path) -> None:
    classes, combinations = many(5000)
    source = random.Random(max_requests)
    model = ScriptedModel(lambda request: good(request) if source.random() < quality else refusing(request))
    with suppress(InputError):
        made(model, tmp_path, class_names=classes, combinations=combinations, max_requests=max_requests)
    assert len(model.requests) <= max_requests


def test_repairs_of_descriptions_leave_enough_to_summarise(tmp_path: Path) -> None:
    classes, combinations = many(200)

    def slow(request: Request) -> str:
        is_ready = stage_of(request) != "describe" or len(request.messages) > 2
        return good(request) if is_ready else refusing(request)

    model = ScriptedModel(slow)
    found = made(model, tmp_path, class_names=classes, combinations=combinations, max_requests=60)
    assert found.names == NAMES
    assert len(model.requests) <= 60
    left = found.provenance["left_out"]
    assert "the budget of 60 requests is used up" in left[-1]["why"]
    assert len(sentences_of(found)) + sum(each["number"] for each in left) == 200


@pytest.mark.parametrize("max_requests", [2, 3, 4, 10, 57, 1000])
@pytest.mark.parametrize("options", [OPTIONS, NARROW, GenerateOptions(num=1, sentences=20, per_request=50)])
def test_as_many_combinations_as_fit_and_not_one_more(max_requests: int, options: GenerateOptions) -> None:
    first = max_requests - max_requests // 4
    fits = plan(10**6, options, max_requests)
    assert total(fits) <= first < total(plan(fits.num_combinations + 1, options, 10**6))
    assert total(plan(1, options, max_requests)) == 2


def test_the_requests_of_a_plan_are_counted() -> None:
    assert plan(64, GenerateOptions(), 40) == Plan(64, describe=8, parts=2)
    assert plan(64, GenerateOptions(), 40).summarise == 3
    assert plan(1, GenerateOptions(), 4).summarise == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num": 0}, r"--num must be in \[1, 16\], got 0"),
        ({"sentences": 21}, r"--sentences must be in \[1, 20\]"),
        ({"per_request": 0}, "--per-request must be"),
        ({"temperature": float("nan")}, r"--temperature must be in \[0, 2\], got nan"),
        ({"seed": -1}, "--seed must be"),
        ({"max_tokens": 10}, "--max-tokens must be"),
        ({"context_tokens": 3000}, "--context-tokens 3000 is too little .* give at least 4172"),
    ],
)
def test_options_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(10, replace(GenerateOptions(), **changed), 100)


def test_budgets_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"--max-requests must be at least 2, .* got 1"):
        plan(10, OPTIONS, 1)
    with pytest.raises(InputError, match="no combinations"):
        plan(0, OPTIONS, 10)


def test_answers_that_would_not_fit_make_batches_smaller() -> None:
    assert GenerateOptions().batch == 8
    assert GenerateOptions(sentences=20).batch == 2
    assert GenerateOptions(sentences=20, max_tokens=64).batch == 1
