"""The second stage: a language model says which abstract conditions explain why classes come together in sentences.

The paper's example of an answer, for everyday photos, is spatial layout, object pose, background, lighting and
weather, object scale. Prompts must not name it: it would be the answer to any classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

from fedmpt.conditions.pipeline.describe import SYSTEM, in_json
from fedmpt.conditions.pipeline.example import (
    MEALS,
    MEALS_CONDITIONS,
    MEALS_THOUGHT,
    NAMES,
    after_example,
    wants_example,
)
from fedmpt.conditions.pipeline.naming import NameRules, normal_name, overlapping
from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, GenerateOptions, request, tokens_of
from fedmpt.conditions.pipeline.reading import (
    CUT_OFF,
    Item,
    body,
    cleaned,
    listed_items,
    nothing_found,
    pairs_of,
    printable,
    quoted,
    texts_of,
    values_in,
)
from fedmpt.conditions.record import Condition, Described
from fedmpt.conditions.words import IDLE_WORDS, stem, words_of
from fedmpt.llm.asking import BadAnswerError, Question
from fedmpt.llm.model import Answer, Request

ASKED_FOR = frozenset(("abstract", "universal", "separate"))
"""What conditions are to be, in the request. A model that repeats it has them in a list, as if they were names."""
MAX_CUES, MAX_CUE, MAX_DESCRIPTION = 40, 30, 300
"""Cues of a condition; characters of one; characters of a description."""
FORM = '{"thinking": "...", "conditions": [{"name": "...", "description": "...", "cues": ["...", "..."]}, ...]}'
WANTED = """\
conditions that explain why things come together in photos and why they look as they do. A condition is
- abstract: something that can be said of a photo, with another value in each. It is no thing and none of the labels;
- universal: it can be asked about every photo, whatever that shows;
- separate: no two conditions are about the same, and together they cover what the sentences say.
Give each a name of 1 to 3 words that says it at once, a description in one sentence and, as cues, all single words \
from the SOURCE that tell its value, 30 at most and no labels. They serve to count what is said of it.

Answer with one JSON object that has your thoughts in "thinking":
"""
USER = Template(
    """\
Each line has labels that are seen together in photos, and sentences about such photos:

$lines

Why do the labels of a line come together in a photo? First think: what \
changes from photo to photo and decides which things are seen together, and how? Then give $num """
    + WANTED.replace("SOURCE", "sentences")
    + FORM
)
MERGE = Template(
    """\
Readers have each read a part of many sentences about photos and have proposed conditions. Each line is a proposal, \
with the number of readers who made it:

$lines

First think: which proposals are about the same, and which hold for most photos? Then merge them into $num """
    + WANTED.replace("SOURCE", "proposals")
    + FORM
)


class Vocabulary:
    """The words of all sentences."""

    def __init__(self, described: Iterable[Described]) -> None:
        lines = [words_of(sentence) for each in described for sentence in each.sentences]
        self._stems = {stem(word) for line in lines for word in line}
        self._text = "".join(f" {' '.join(line)} \n" for line in lines)

    def has(self, cue: str) -> bool:
        """Whether a word, whatever its ending, or a phrase is in some sentence."""
        words = words_of(cue)
        if len(words) == 1:
            return stem(words[0]) in self._stems
        return bool(words) and f" {' '.join(words)} " in self._text


class ConditionReader:
    """Reads conditions. What is good in one answer stays, so the next has to give only what is missing."""

    def __init__(self, options: GenerateOptions, rules: NameRules, vocabulary: Vocabulary, *, at_least: int) -> None:
        self.good: list[Condition] = []
        self.wrong: dict[str, str] = {}
        self._num, self._at_least = options.num, at_least
        self._told = ASKED_FOR | NAMES if wants_example(options) else ASKED_FOR
        self._rules, self._vocabulary = rules, vocabulary

    def read(self, answer: Answer) -> tuple[Condition, ...]:
        """The first conditions that can be used, once there are enough.

        Raises:
            BadAnswerError: if there are too few.
        """
        proposals = proposed_in(answer)
        faults = [fault for proposal in proposals if (fault := self._take(proposal))]
        if len(self.good) >= self._at_least:
            return tuple(self.good)
        listed = ", ".join(quoted(condition.name) for condition in self.good)
        cut = f" {CUT_OFF}" if answer.finish == "length" else ""
        raise BadAnswerError(
            f"{'; '.join(faults[: 2 * self._num]) or 'there are too few conditions'}.{cut} "
            f"{f'Usable so far: {listed}; keep these.' if listed else 'None is usable so far.'} "
            f"{self._num - len(self.good)} more are needed, with names of 1 to 3 words, about something else."
        )

    def _take(self, proposal: Condition) -> str | None:
        """Keep a proposal if it is needed, or say what is wrong with it."""
        name = normal_name(proposal.name)
        if len(self.good) == self._num or any(name == condition.name for condition in self.good):
            return None
        fault = "it stands in the request" if name in self._told else self._rules.fault(name)
        if fault is None and (other := overlapping(name, [condition.name for condition in self.good])):
            fault = f"it is about the same as {quoted(other)}"
        if fault is not None:
            self.wrong[name or proposal.name] = fault
            return f"{quoted(proposal.name)}: {fault}"
        description = printable(proposal.description)[:MAX_DESCRIPTION].strip()
        self.good.append(Condition(name, description, self._cues(proposal.cues)))
        return None

    def _cues(self, given: Sequence[str]) -> tuple[str, ...]:
        """Cues that occur in the sentences, once each, without the classes themselves."""
        cues = dict.fromkeys(cleaned(text).lower() for text in given)
        kept = [cue for cue in cues if len(cue) <= MAX_CUE and cue not in IDLE_WORDS and self._vocabulary.has(cue)]
        kept = [cue for cue in kept if not self._rules.is_class(cue)]
        return tuple(kept[:MAX_CUES])


def summarise_question(
    described: Sequence[Described], options: GenerateOptions, reader: ConditionReader, *, label: str
) -> Question[tuple[Condition, ...]]:
    """The question for conditions from sentences."""
    lines = "\n".join(map(sentence_line, described))
    examples = "\n".join(map(sentence_line, MEALS))
    return Question(_request(USER, lines, examples, options, label=label), reader.read)


def merge_question(
    candidates: Mapping[Condition, int], options: GenerateOptions, reader: ConditionReader, *, label: str
) -> Question[tuple[Condition, ...]]:
    """The question for conditions from proposals, each with the number of its readers."""
    lines = "\n".join(candidate_line(condition, readers) for condition, readers in candidates.items())
    examples = "\n".join(candidate_line(condition, 2) for condition in MEALS_CONDITIONS)
    return Question(_request(MERGE, lines, examples, options, label=label), reader.read)


def example_answer() -> str:
    """What a model might answer for the sentences, and for the proposals, of the example."""
    conditions = [{"name": each.name, "description": each.description, "cues": each.cues} for each in MEALS_CONDITIONS]
    return in_json({"thinking": MEALS_THOUGHT, "conditions": conditions})


def _request(template: Template, lines: str, examples: str, options: GenerateOptions, *, label: str) -> Request:
    asked = request(SYSTEM, template.substitute(lines=lines, num=options.num), options, label=label)
    if not wants_example(options):
        return asked
    return after_example(asked, template.substitute(lines=examples, num=len(MEALS_CONDITIONS)), example_answer())


def sentence_line(described: Described) -> str:
    """A combination and its sentences as they stand in a request."""
    return in_json({"labels": described.classes, "sentences": described.sentences})


def candidate_line(condition: Condition, readers: int) -> str:
    """A proposal as it stands in a request, cut to `CANDIDATE_TOKENS`."""
    cues, description = list(condition.cues[:6]), condition.description
    while True:
        line = in_json({"name": condition.name, "description": description, "cues": cues, "readers": readers})
        if tokens_of(line) <= CANDIDATE_TOKENS or not (cues or description):
            return line
        cues, description = ([], description) if cues else ([], description[: len(description) // 2])


def proposed_in(answer: Answer) -> list[Condition]:
    """The conditions that an answer proposes, not looked at yet: those of its largest list, and the last of such.

    Raises:
        BadAnswerError: if it proposes none.
    """
    best: list[Condition] = []
    for found in values_in(answer):
        proposals = _in_value(found.value)
        if proposals and len(proposals) >= len(best):
            best = proposals
    if not best:
        best = [_in_item(item) for item in listed_items(body(answer)) if item.text]
    if not best:
        raise nothing_found(answer, FORM)
    return best


def _in_value(value: Any) -> list[Condition]:
    """Objects with a name, wherever they are; or else texts in a list; or else names with descriptions."""
    level, named, texts = [value], [], []
    while level:
        objects = [item for item in level if isinstance(item, dict)]
        named += [proposal for item in objects if (proposal := _in_object(item))]
        lists = [item for item in level if isinstance(item, list)]
        texts += [_from_text(item) for some in lists for item in some if isinstance(item, str)]
        level = [item for one in level if not _in_object(one) for _, item in pairs_of(one)]
    return named or texts or _in_mapping(value)


def _in_object(value: Any) -> Condition | None:
    if not isinstance(value, dict):
        return None
    by_key = {key.casefold(): item for key, item in value.items()}
    name = next((by_key[key] for key in ("name", "condition", "title") if isinstance(by_key.get(key), str)), None)
    if name is None:
        return None
    description = by_key.get("description")
    return Condition(name, description if isinstance(description, str) else "", _cue_list(by_key.get("cues")))


def _in_mapping(value: Any) -> list[Condition]:
    """``{"conditions": {"NAME": "DESCRIPTION"}}``, with or without the outer object."""
    pairs = pairs_of(value) if isinstance(value, dict) else []
    inner = [item for _, item in pairs if isinstance(item, dict)]
    if len(inner) == 1:
        pairs = pairs_of(inner[0])
    return [Condition(key, item) for key, item in pairs if isinstance(item, str)]


def _in_item(item: Item) -> Condition:
    proposal = _from_text(item.text)
    description, cues = proposal.description, proposal.cues
    for line in item.under:
        key, _, rest = line.partition(":")
        if key.strip(" *_").casefold() in ("cues", "cue words"):
            cues = _cue_list(rest)
        elif not description:
            description = rest if key.strip(" *_").casefold() == "description" else line
    return Condition(proposal.name, description, cues)


def _from_text(text: str) -> Condition:
    """``NAME: DESCRIPTION`` or ``NAME - DESCRIPTION``, with emphasis or without."""
    # Cut short first: where there is no colon, the time grows with the square of the length.
    name, *rest = re.split(r"[*_]*\s*:\s*[*_]*\s*|\s+[-—\N{EN DASH}]+\s+", printable(text), maxsplit=1)
    return Condition(cleaned(name), cleaned(rest[0]) if rest else "")


def _cue_list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(texts_of(value))
