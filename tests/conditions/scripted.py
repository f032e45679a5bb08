"""Language models in this process: one that answers well by simple rules, and others that spoil what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.conditions.labels.combinations import Combination
from fedmpt.conditions.pipeline.generate import generate
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.record import ConditionSet, Described
from fedmpt.conditions.words import stem, words_of
from fedmpt.llm.asking import Asker
from fedmpt.llm.model import Answer, LanguageModel, Request
from fedmpt.llm.options import LLMOptions

Rule = Callable[[Request], "str | Answer"]

CLASSES = ("cat", "dog", "dining table", "chair", "car", "person")
COMBINATIONS = (
    *(Combination((index,), "single") for index in range(6)),
    Combination((0, 3), "frequent pair"),
    Combination((2, 3), "frequent pair"),
    Combination((4, 5), "surprising pair"),
    Combination((2, 3, 5), "frequent triple"),
)
PLACES = ("in a kitchen", "on a street", "in a garden", "at a market")
LIGHTS = ("at night", "on a sunny morning", "under a dim lamp", "in the rain")
CONDITIONS = (
    {"name": "Camera distance", "description": "How far away things are.", "cues": ["close", "tiny"]},
    {"name": "place", "description": "Where it is.", "cues": ["kitchen", "street", "garden", "moon base"]},
    {"name": "lighting", "description": "What light falls on it.", "cues": ["night", "sunny", "dim", "rain"]},
    {"name": "Arrangement", "description": "How things stand to each other.", "cues": ["beside", "behind"]},
    {"name": "occasion", "description": "What is going on.", "cues": ["market"]},
    {"name": "season", "description": "The time of the year.", "cues": ["snow"]},
)


NAMES = ("camera distance", "place", "lighting", "arrangement", "occasion")
"""What comes of `CONDITIONS`."""
OPTIONS = GenerateOptions(per_request=3)


class ScriptedModel(LanguageModel):
    """Answers by a rule, or by the given answers one after another; keeps the requests."""

    max_concurrency = 1

    def __init__(self, rule: Rule | Sequence[str | Answer], *, name: str = "rules") -> None:
        self.identity: Mapping[str, str] = {"provider": "scripted", "model": name}
        self.requests: list[Request] = []
        self._rule: Rule = rule if callable(rule) else self._next_of(list(rule))

    def ask(self, request: Request) -> Answer:
        self.requests.append(request)
        said = self._rule(request)
        return said if isinstance(said, Answer) else Answer(said, prompt_tokens=10, answer_tokens=5)

    @staticmethod
    def _next_of(answers: list[str | Answer]) -> Rule:
        return lambda request: answers.pop(0) if len(answers) > 1 else answers[0]


def asked_in(request: Request) -> str:
    """What the conversation began with."""
    return request.messages[1].content


def is_repair(request: Request) -> bool:
    return len(request.messages) > 2


def stage_of(request: Request) -> str:
    """``describe``, ``summarise``, ``merge`` or ``attributes``."""
    starts = {
        "describe": "Each numbered line is a JSON list",
        "attributes": "Each numbered line is the name",
        "summarise": "Each line has labels",
        "merge": "Readers have",
    }
    return next(stage for stage, start in starts.items() if asked_in(request).startswith(start))


def numbered_in(request: Request) -> dict[str, Any]:
    """What stands on the numbered lines of a request."""
    return {
        number: json.loads(value) for number, value in re.findall(r"^(\d+)\. (.*)$", asked_in(request), re.MULTILINE)
    }


def objects_in(request: Request) -> list[Any]:
    """The objects on the lines of a request to summarise or merge; the last line is the form of the answer."""
    return [json.loads(line) for line in asked_in(request).splitlines()[:-1] if line.startswith("{")]


def sentences_for(classes: Sequence[str]) -> list[str]:
    things = " beside a ".join(classes)
    return [f"A {things} {place} {light}." for place, light in zip(PLACES, LIGHTS, strict=True)]


def phrases_for(class_name: str) -> list[str]:
    number = sum(map(ord, class_name))
    return [f"part {number + index} of smooth metal" for index in range(5)]


def stems_of(described: Iterable[Described]) -> frozenset[str]:
    """Of all words in the sentences."""
    return frozenset(stem(word) for each in described for text in each.sentences for word in words_of(text))


def good_value(request: Request) -> dict[str, Any]:
    """What a good model answers, before it is written down."""
    stage = stage_of(request)
    if stage == "describe":
        return {"thinking": "hm", **{key: sentences_for(value) for key, value in numbered_in(request).items()}}
    if stage == "attributes":
        return {"thinking": "hm", **{key: phrases_for(value) for key, value in numbered_in(request).items()}}
    return {"thinking": "hm", "conditions": list(CONDITIONS)}


def good(request: Request) -> str:
    return json.dumps(good_value(request))


def chatty(request: Request) -> str:
    return f"Sure! I thought about [it] {{a lot}}.\n\n{good(request)}\n\nLet me know if [you] need more."


def fenced(request: Request) -> str:
    return f"Here you are:\n```json\n{json.dumps(good_value(request), indent=2)}\n```"


def careless(request: Request) -> str:
    """Python's way of writing it, with a comma too many and a remark."""
    return f'<think>{{"1": []}}</think>{str(good_value(request))[:-1]}, }} // done'


def refusing(request: Request) -> str:
    return "I'm sorry, but I can't help with that."


def endless(request: Request) -> Answer:
    return Answer('{"thinking": "' + "and then " * 5000, "length")


def spoilt_first(spoilt: Rule, then: Rule = good) -> Rule:
    """Each first answer by one rule, repairs by another."""
    return lambda request: then(request) if is_repair(request) else spoilt(request)


def asker_of(model: ScriptedModel, cache: Path, *, max_requests: int = 1000, **options: Any) -> Asker:
    options_of = LLMOptions(llm="m", **options)
    return Asker(model, options_of, cache=cache, max_requests=max_requests, tell=lambda *_: None)


def made(
    model: ScriptedModel,
    cache: Path,
    *,
    options: GenerateOptions = OPTIONS,
    class_names: Sequence[str] = CLASSES,
    combinations: Sequence[Combination] = COMBINATIONS,
    **limits: Any,
) -> ConditionSet:
    """The pipeline's result with a real asker."""
    asker = asker_of(model, cache, **limits)
    return generate(class_names, combinations, asker, options, name="mine", combinations_from="a test")


def many(num_classes: int) -> tuple[tuple[str, ...], tuple[Combination, ...]]:
    """So many classes, each with the next one."""
    classes = tuple(f"kind{index}" for index in range(num_classes))
    return classes, tuple(Combination((index, (index + 1) % num_classes), "drawn pair") for index in range(num_classes))
