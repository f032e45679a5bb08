"""Answers of language models, read: JSON in any wrapping, then rules for the texts in it.

Whatever cannot be used is a `BadAnswerError`, whose words go back to the model. What is good in one answer stays, so
the next has to give only what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Annotated, Any

import json_repair
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from fedmpt.conditions.pipeline.naming import NameRules, cleaned, normal_name, overlapping, printable, quoted
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.pipeline.prompts import CONDITIONS_FORM, MEALS, form, wants_example
from fedmpt.conditions.record import Condition
from fedmpt.conditions.words import IDLE_WORDS, runs_of, stem, words_of
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer

MIN_SENTENCE, MAX_SENTENCE, MIN_ATTRIBUTE, MAX_ATTRIBUTE, MAX_CUE, MAX_DESCRIPTION = 3, 200, 3, 60, 30, 300
"""Characters."""
MAX_CUES = 40
CUT_OFF = " It was cut off at the limit: think in one short sentence, and be brief."
_WHOLE = re.compile(r'.*["\]}](?=\s*[,\]}])', re.DOTALL)


Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value or [])]
"""A list of texts; a single one may stand for it, and null for an empty one."""
_NUMBERED = TypeAdapter(Texts)


class Proposal(BaseModel):
    """A condition as it is asked for."""

    name: str
    description: Annotated[str, BeforeValidator(lambda value: value or "")] = ""
    cues: Texts = []


def objects_in(answer: Answer, expected: str) -> list[Any]:
    """The JSON values of an answer, of lists what is in them; of one cut off, as far as its texts are whole."""
    text, cut = answer.text, ""
    if answer.finish == "length":
        whole = _WHOLE.match(text)
        text, cut = whole[0] if whole else "", CUT_OFF
    try:
        found = json_repair.loads(text)
    except ValueError as error:
        raise BadAnswerError(f"its JSON cannot be read: {error}{cut}") from error
    values = found if isinstance(found, list) else [found]
    values = [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    if not any(values):
        said = f" It says {quoted(text.strip(), 100)}." if text.strip() else ""
        raise BadAnswerError(f"it has no JSON object of the form {expected}.{said}{cut}")
    return values


def lists_in(answer: Answer, num: int, expected: str) -> dict[int, list[str]]:
    """The texts under the numbers 1 to ``num``, or "line 2"; of one thing, the number may be left out."""
    values = objects_in(answer, expected)
    if num == 1 and all(isinstance(value, str) for value in values):
        values = [{"1": values}]
    found: dict[int, list[str]] = {}
    for key, value in (pair for each in values if isinstance(each, dict) for pair in each.items()):
        number = re.search(r"\d{1,4}", str(key))
        if number and 1 <= int(number[0]) <= num:
            with suppress(ValidationError):
                found[int(number[0])] = _NUMBERED.validate_python(value)
    if not found:
        raise BadAnswerError(f"it has no JSON object of the form {expected}.")
    return found


class NumberedReader:
    """Reads lists of texts for things that are numbered from 1. What one answer lacks, the next may give.

    ``use`` makes of a number and its texts what is kept in ``found``, or says to the model what is wrong with them.
    """

    def __init__(self, num: int, use: Callable[[int, Sequence[str]], tuple[str, ...] | str]) -> None:
        self.found: dict[int, tuple[str, ...]] = {}
        self._num, self._use = num, use

    def missing(self) -> list[int]:
        return [number for number in range(1, self._num + 1) if number not in self.found]

    def read(self, answer: Answer) -> dict[int, tuple[str, ...]]:
        """All lists, once they are complete; a BadAnswerError while something is missing."""
        given = lists_in(answer, self._num, form(self.missing() or [1]))
        wrong = []
        for number in sorted(given.keys() - self.found.keys()):
            used = self._use(number, given[number])
            if isinstance(used, str):
                wrong.append(f"for {number}, {used}")
            else:
                self.found[number] = used
        if missing := self.missing():
            if silent := ", ".join(str(number) for number in missing if number not in given):
                wrong.append(f"there is nothing for {silent}")
            cut = CUT_OFF if answer.finish == "length" else ""
            raise BadAnswerError(f"{'; '.join(wrong)}.{cut} What is still needed is {form(missing)}")
        return self.found


def sentence_reader(combinations: Sequence[Sequence[str]], limit: int) -> NumberedReader:
    """Reads the sentences of a batch of combinations. An empty list means that there is no such photo."""

    def use(number: int, texts: Sequence[str]) -> tuple[str, ...] | str:
        names = {words_of(name) for name in combinations[number - 1]}
        sentences: dict[tuple[str, ...], str] = {}
        for sentence in map(cleaned, texts):
            words = words_of(sentence)
            if MIN_SENTENCE <= len(sentence) <= MAX_SENTENCE and words and words not in names:
                sentences.setdefault(words, sentence)
        if texts and not sentences:
            return f"no text is a sentence in one line of {MIN_SENTENCE} to {MAX_SENTENCE} characters about the things"
        return tuple(sentences.values())[:limit]

    return NumberedReader(len(combinations), use)


def attribute_reader(class_names: Sequence[str], num: int, all_names: Set[tuple[str, ...]]) -> NumberedReader:
    """Reads the attributes of a batch of classes. Those of several answers add up.

    Phrases that name another class come last: that may be a part of this one, or stand beside it.
    """
    usable: list[dict[tuple[str, ...], str]] = [{} for _ in class_names]

    def use(number: int, texts: Sequence[str]) -> tuple[str, ...] | str:
        own = usable[number - 1]
        for phrase in (cleaned(text).rstrip(".") for text in texts):
            if is_attribute(phrase, class_names[number - 1]):
                own.setdefault(words_of(phrase), phrase)
        if len(own) < num:
            lacking = f"{num - len(own)} more phrases are needed, of 2 to 8 words and at most {MAX_ATTRIBUTE}"
            return f"{lacking} characters, without the name"
        ordered = sorted(own, key=lambda words: any(run in all_names for run in runs_of(words)))
        return tuple(own[words] for words in ordered[:num])

    return NumberedReader(len(class_names), use)


def is_attribute(phrase: str, class_name: str) -> bool:
    """Whether a phrase is short and does not have the class in it."""
    words = words_of(phrase)
    return bool(words) and MIN_ATTRIBUTE <= len(phrase) <= MAX_ATTRIBUTE and words_of(class_name) not in runs_of(words)


class ConditionReader:
    """Reads conditions: the first ``options.num`` that can be used, once there are ``at_least`` so many.

    ``heard`` are the stems of all words in the sentences: cues are among them.
    """

    def __init__(self, options: GenerateOptions, rules: NameRules, heard: Set[str], *, at_least: int) -> None:
        self.good: list[Condition] = []
        self._num, self._at_least = options.num, at_least
        self._told = {each.name for each in MEALS} if wants_example(options) else set()
        self._rules, self._heard = rules, heard

    def read(self, answer: Answer) -> tuple[Condition, ...]:
        """The conditions; a BadAnswerError if there are too few."""
        values = objects_in(answer, CONDITIONS_FORM)
        whole = [value["conditions"] for value in values if isinstance(value, dict) and "conditions" in value]
        listed = whole[-1] if whole and isinstance(whole[-1], list) else values
        named = [{"name": each} if isinstance(each, str) and whole else each for each in listed]
        proposals = [each for each in named if isinstance(each, dict) and "name" in each]
        if not proposals:
            raise BadAnswerError(f"it has no JSON object of the form {CONDITIONS_FORM}.")
        faults = [fault for proposal in proposals if (fault := self._take(proposal))]
        if len(self.good) >= self._at_least:
            return tuple(self.good)
        good = ", ".join(quoted(condition.name) for condition in self.good)
        raise BadAnswerError(
            f"{'; '.join(faults[: 2 * self._num]) or 'there are too few conditions'}."
            f"{CUT_OFF if answer.finish == 'length' else ''} "
            f"{f'Usable so far: {good}; keep these.' if good else 'None is usable so far.'} "
            f"{self._num - len(self.good)} more are needed, with names of 1 to 3 words, about something else."
        )

    def _take(self, value: Mapping[str, Any]) -> str | None:
        """Keep a proposal if it is needed, or say what is wrong with it."""
        try:
            proposal = Proposal.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            return f"{quoted(str(value['name']))}: {first['loc'][0]}: {first['msg']}"
        name, names = normal_name(proposal.name), [condition.name for condition in self.good]
        if len(names) == self._num or name in names:
            return None
        fault = "it stands in the request" if name in self._told else self._rules.fault(name)
        if fault is None and (other := overlapping(name, names)):
            fault = f"it is about the same as {quoted(other)}"
        if fault is not None:
            return f"{quoted(proposal.name)}: {fault}"
        description = printable(proposal.description)[:MAX_DESCRIPTION].strip()
        cues = dict.fromkeys(cleaned(text).lower() for text in proposal.cues)
        self.good.append(Condition(name, description, tuple(filter(self._is_cue, cues))[:MAX_CUES]))
        return None

    def _is_cue(self, cue: str) -> bool:
        """Whether all words of a short text occur in the sentences, and it is no class itself."""
        words, is_short = words_of(cue), 0 < len(cue) <= MAX_CUE
        is_heard = self._heard >= set(map(stem, words)) and cue not in IDLE_WORDS
        return is_short and is_heard and words not in self._rules.classes
