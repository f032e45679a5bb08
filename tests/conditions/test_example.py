"""The example that small models are shown: a right answer to a question like theirs, and never their own result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted import CLASSES, COMBINATIONS, OPTIONS, ScriptedModel, good, made, sentences_for, stage_of

from fedmpt.conditions.pipeline.describe import describe_question, example_answer
from fedmpt.conditions.pipeline.describe_classes import generate_attributes
from fedmpt.conditions.pipeline.example import DESCRIBED, LOOKS, MEALS, MEALS_CONDITIONS
from fedmpt.conditions.pipeline.naming import NameRules, overlapping
from fedmpt.conditions.pipeline.options import OVERHEAD_TOKENS, AttributeOptions, GenerateOptions, tokens_of
from fedmpt.conditions.pipeline.summarise import ConditionReader, Vocabulary, merge_question, summarise_question
from fedmpt.conditions.record import Condition, Described
from fedmpt.conditions.words import words_of
from fedmpt.llm.asking import Asker, BadAnswerError, Limits, Question
from fedmpt.llm.model import Answer, Request

SMALL, LARGE = GenerateOptions(num=2, per_request=1), GenerateOptions(num=2, per_request=2)
OWN = tuple(Described((name,), tuple(sentences_for((name,)))) for name in CLASSES)
PUBLISHED = ("spatial", "layout", "pose", "background", "lighting", "weather", "scale")


def reader(options: GenerateOptions, described: tuple[Described, ...] = OWN) -> ConditionReader:
    return ConditionReader(options, NameRules(CLASSES), Vocabulary(described), at_least=options.num)


def conditions(*names: str) -> Answer:
    return Answer(json.dumps({"conditions": [{"name": name} for name in names]}))


def questions(options: GenerateOptions) -> dict[str, Question]:
    return {
        "describe": describe_question([("cat", "dog")], options)[0],
        "summarise": summarise_question(OWN, options, reader(options), label="summarise"),
        "merge": merge_question({Condition("place"): 2}, options, reader(options), label="merge"),
    }


@pytest.mark.parametrize("stage", ["describe", "summarise", "merge"])
def test_it_is_an_earlier_turn_of_the_same_kind_for_small_models_only(stage: str) -> None:
    system, shown, answer, own = questions(SMALL)[stage].request.messages
    assert [message.role for message in (system, shown, answer, own)] == ["system", "user", "assistant", "user"]
    assert (system, own) == questions(LARGE)[stage].request.messages
    assert json.loads(answer.content)
    # What is asked there is what is asked here, about something else.
    assert shown != own
    assert shown.content.split("\n")[0] == own.content.split("\n")[0]
    assert stage_of(Request((system, shown), 1, 0.0, 0)) == stage


@pytest.mark.parametrize("sentences", [1, 2, 4, 20])
def test_the_answer_in_it_is_one_that_its_own_question_takes(sentences: int) -> None:
    options = GenerateOptions(per_request=1, sentences=sentences)
    question, _ = describe_question([DESCRIBED.classes], options)
    assert question.read(Answer(example_answer(options))) == {1: DESCRIBED.sentences[:sentences]}
    for sentence in DESCRIBED.sentences:
        assert all(name in sentence for name in DESCRIBED.classes)


def test_the_conditions_in_it_are_ones_that_its_own_question_takes() -> None:
    own = ConditionReader(LARGE, NameRules(["rice", "fish", "egg"]), Vocabulary(MEALS), at_least=2)
    answer = questions(SMALL)["summarise"].request.messages[2]
    assert own.read(Answer(answer.content)) == MEALS_CONDITIONS
    assert overlapping(MEALS_CONDITIONS[0].name, [MEALS_CONDITIONS[1].name]) is None


@pytest.mark.parametrize("num", [1, 4])
def test_the_attributes_in_it_are_ones_that_its_own_question_takes(num: int, tmp_path: Path) -> None:
    options = AttributeOptions(num=num, per_request=1)
    name, attributes = LOOKS
    model = ScriptedModel(lambda request: request.messages[2].content)
    with Asker(model, cache=tmp_path, limits=Limits()) as asker:
        found = generate_attributes([name, "kettle"], asker, options, name="test", date="2026-11-26")
    assert found.attributes == {name: attributes[:num], "kettle": attributes[:num]}
    assert [message.role for message in model.requests[0].messages] == ["system", "user", "assistant", "user"]
    assert found.provenance["prompts"]["attributes"]["example"] == model.requests[0].messages[2].content


def test_attributes_of_several_classes_at_once_come_without(tmp_path: Path) -> None:
    model = ScriptedModel(lambda request: json.dumps({"1": LOOKS[1], "2": LOOKS[1]}))
    with Asker(model, cache=tmp_path, limits=Limits()) as asker:
        generate_attributes(["pan", "kettle"], asker, AttributeOptions(per_request=2), name="test", date="2026-11-26")
    assert [message.role for message in model.requests[0].messages] == ["system", "user"]


@pytest.mark.parametrize("stage", ["describe", "summarise", "merge"])
def test_it_gives_away_none_of_the_published_conditions(stage: str) -> None:
    _, shown, answer, _ = questions(SMALL)[stage].request.messages
    assert not set(PUBLISHED) & set(words_of(f"{shown.content} {answer.content}"))


def test_its_conditions_are_not_taken_for_the_models_own() -> None:
    names = [condition.name for condition in MEALS_CONDITIONS]
    with pytest.raises(BadAnswerError, match='"way of cooking": it stands in the request; "meal": it stands in the'):
        reader(SMALL).read(conditions(*names))
    assert [found.name for found in reader(LARGE).read(conditions(*names))] == names


@pytest.mark.parametrize("options", [SMALL, LARGE])
def test_a_model_that_repeats_the_request_gives_no_conditions(options: GenerateOptions) -> None:
    asked = questions(options)["summarise"].request.messages[-1].content
    with pytest.raises(BadAnswerError):
        reader(options).read(Answer(f"You asked me this:\n\n{asked}"))
    with pytest.raises(BadAnswerError, match='"Abstract": it stands in the request'):
        reader(options).read(conditions("Abstract", "universal"))


def test_there_is_room_for_it_beside_the_sentences() -> None:
    """Plans keep `OVERHEAD_TOKENS` for all of a request but its sentences or proposals."""
    for question in (
        summarise_question([], SMALL, reader(SMALL), label=""),
        merge_question({}, SMALL, reader(SMALL), label=""),
    ):
        assert sum(tokens_of(message.content) for message in question.request.messages) <= OVERHEAD_TOKENS


def test_a_record_says_what_was_shown(tmp_path: Path) -> None:
    def rule(request: Request) -> str:
        *_, own = request.messages
        return good(Request((request.messages[0], own), request.max_tokens, request.temperature, request.seed))

    small = made(ScriptedModel(rule), tmp_path, options=GenerateOptions(per_request=1), combinations=COMBINATIONS)
    shown = {stage: prompts["example"] for stage, prompts in small.provenance["prompts"].items()}
    assert shown == {stage: questions(SMALL)[stage].request.messages[2].content for stage in ("describe", "summarise")}
    large = made(ScriptedModel(rule), tmp_path, options=OPTIONS)
    assert not any("example" in prompts for prompts in large.provenance["prompts"].values())
    assert large.names == small.names
