"""Every word that a language model is sent, but for complaints about its answers; texts are in ``assets/prompts``.

The paper asks for "as many sentences as possible" for every combination, with chain of thought; here a number is given,
and combinations come in batches [ours]. Its example of an answer, for everyday photos, is spatial layout, object pose,
background, lighting and weather, object scale. Prompts must not name it: it would be the answer to any classes.

With ``--per-request 1``, which is for small models, an earlier turn of the conversation shows an example of an answer
[ours]: SmolLM2-135M-Instruct answered 0 of 24 questions for sentences in the wanted form, and 13 of 16 after it. For
conditions it is about meals, and its names are refused as the model's own: a model may repeat what it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, AttributeOptions, GenerateOptions, Options
from fedmpt.conditions.record import Condition, Described
from fedmpt.llm.model import Message, Request

Part = TypeVar("Part")

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "prompts"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8").removesuffix("\n") for path in FOLDER.glob("*.txt")}
"""By stage; ``system`` is that of all."""
CONDITIONS_FORM = TEMPLATES["summarise"].splitlines()[-1]
EXAMPLES: Mapping[str, Any] = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
MEALS = tuple(
    Condition(each["name"], each["description"], tuple(each["cues"]))
    for each in EXAMPLES["summarise"]["answer"]["conditions"]
)
NUMBERS_SHOWN = 12
"""By the form of an answer, at most."""


def describe_request(combinations: Sequence[Sequence[str]], options: GenerateOptions, *, label: str = "") -> Request:
    """For sentences about photos in which the classes of each combination are seen together."""
    return _numbered_request("describe", combinations, options.sentences, options, label)


def attributes_request(class_names: Sequence[str], options: AttributeOptions, *, label: str = "") -> Request:
    """For phrases of what one sees of each class."""
    return _numbered_request("attributes", class_names, options.num, options, label)


def _numbered_request(stage: str, things: Sequence[object], num: int, options: Options, label: str) -> Request:
    example = EXAMPLES[stage]
    shown, asked = (
        _filled(stage, [f"{number}. {in_json(each)}" for number, each in enumerate(listed, start=1)], num)
        for listed in ([example["thing"]], things)
    )
    answer = {"thinking": example["thinking"], "1": example["texts"][:num]}
    return _request(shown, answer, asked, options, label)


def summarise_request(described: Sequence[Described], options: GenerateOptions, *, label: str = "") -> Request:
    """For conditions from sentences."""
    shown = _filled("summarise", [in_json(line) for line in EXAMPLES["summarise"]["sentences"]], len(MEALS))
    asked = _filled("summarise", [sentence_line(each) for each in described], options.num)
    return _request(shown, EXAMPLES["summarise"]["answer"], asked, options, label)


def merge_request(candidates: Mapping[Condition, int], options: GenerateOptions, *, label: str = "") -> Request:
    """For conditions from proposals, each with the number of its readers."""
    shown = _filled("merge", [candidate_line(condition, 2) for condition in MEALS], len(MEALS))
    asked = _filled("merge", [candidate_line(*each) for each in candidates.items()], options.num)
    return _request(shown, EXAMPLES["summarise"]["answer"], asked, options, label)


def sent(stage: str, request: Request) -> dict[str, str]:
    """What a record says of requests like this one."""
    example = {"example": request.messages[2].content} if len(request.messages) > 2 else {}
    return {"system": TEMPLATES["system"], "user": TEMPLATES[stage], **example}


def labelled(stage: str, parts: Sequence[Part], make: Callable[..., Request]) -> list[Request]:
    """A request for each part, with labels such as ``"describe 3 of 20"``."""
    return [make(part, label=f"{stage} {number} of {len(parts)}") for number, part in enumerate(parts, start=1)]


def wants_example(options: Options) -> bool:
    """Whether the options are those for small models."""
    return options.per_request == 1


def form(numbers: Sequence[int]) -> str:
    """The form of an answer with lists for these numbers, as it is shown to models."""
    shown = [f'"{number}": ["...", "..."]' for number in numbers]
    if len(shown) > NUMBERS_SHOWN:
        shown = [*shown[:3], "...", shown[-1]]
    return "{" + ", ".join(['"thinking": "..."', *shown]) + "}"


def sentence_line(described: Described) -> str:
    """A combination and its sentences as they stand in a request."""
    return in_json({"labels": described.classes, "sentences": described.sentences})


def candidate_line(condition: Condition, readers: int) -> str:
    """A proposal as it stands in a request, cut to `CANDIDATE_TOKENS`."""
    cues, description = condition.cues[:6], condition.description
    while True:
        line = in_json({"name": condition.name, "description": description, "cues": cues, "readers": readers})
        if tokens_of(line) <= CANDIDATE_TOKENS or not (cues or description):
            return line
        cues, description = (), description if cues else description[: len(description) // 2]


def tokens_of(text: str) -> int:
    """About how many tokens a text has, rather too many than too few: tokenizers differ."""
    plain = sum(letter.isascii() for letter in text)
    return -(-plain // 3) + len(text) - plain + 1


def in_json(value: object) -> str:
    """In one line. Letters stay as they are; what does not print, which may hide, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _filled(stage: str, lines: Sequence[str], num: int) -> str:
    text, numbers = "\n".join(lines), range(1, len(lines) + 1)
    values = {"combinations": text, "classes": text, "lines": text, "sentences": num, "num": num, "form": form(numbers)}
    return Template(TEMPLATES[stage]).substitute(values)


def _request(example: str, answer: object, asked: str, options: Options, label: str) -> Request:
    """The start of a conversation, with an example of a question and its answer where the options want one."""
    kind = f"All photos here are of one kind, given as a JSON string: {json.dumps(options.pictures)}\n\n"
    shown = (Message("user", example), Message("assistant", in_json(answer))) if wants_example(options) else ()
    return Request(
        (Message("system", TEMPLATES["system"]), *shown, Message("user", kind + asked if options.pictures else asked)),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        label=label,
    )
