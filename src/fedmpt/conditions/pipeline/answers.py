"""Answers of language models, read: JSON in any wrapping, then a schema, then rules for the texts in it.

Whatever cannot be used is a `BadAnswerError`, whose words go back to the model. What is good in one answer stays, so
the next has to give only what is missing.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from typing import Annotated, Any

import json_repair
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from fedmpt.conditions.document import is_text
from fedmpt.conditions.pipeline.naming import COMMON_WORDS, NameRules, normal_name, overlapping
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.pipeline.prompts import CONDITIONS_FORM, MEALS_CONDITIONS, form, wants_example
from fedmpt.conditions.pipeline.reading import cleaned, printable, quoted
from fedmpt.conditions.record import Condition
from fedmpt.conditions.words import IDLE_WORDS, runs_of, stem, words_of
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer, without_thoughts

MIN_SENTENCE, MAX_SENTENCE = 3, 200
"""Characters."""
MIN_ATTRIBUTE, MAX_ATTRIBUTE, MAX_WORDS = 3, 60, 10
"""Characters, and words."""
MAX_CUES, MAX_CUE, MAX_DESCRIPTION = 40, 30, 300
"""Cues of a condition; characters of one; characters of a description."""
ASKED_FOR = frozenset(("abstract", "universal", "separate"))
"""What conditions are to be, in the request. A model that repeats it has them in a list, as if they were names."""
CUT_OFF = " It was cut off at the limit: think in one short sentence, and be brief."
DECLINED = (
    "the request was declined. It is about pictures for research on image recognition, and the names in it are labels "
    "of data. Please give what you can: leave out what you would rather not write about."
)

_NUMBER_IN_KEY = re.compile(r"\D{0,20}(\d{1,3})\D{0,2}")
_WHOLE = re.compile(r'.*["\]}](?=\s*[,\]}])', re.DOTALL)

Texts = Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given or [])]
Numbered = TypeAdapter(dict[int, Texts])


class Proposal(BaseModel):
    """A condition as a model gives it, or its name alone, or ``"NAME: DESCRIPTION"``."""

    name: str
    description: str = ""
    cues: Texts = []


def _as_object(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        name, _, description = given.partition(":")
        return {"name": name, "description": description}
    if not isinstance(given, dict):
        raise ValueError("this should be an object with a name")
    return given


Proposals = TypeAdapter(list[Annotated[Proposal, BeforeValidator(_as_object)]])


def objects_in(answer: Answer, *, expected: str) -> list[Any]:
    """The JSON values of an answer, of lists what is in them; of one cut off, as far as its texts are whole.

    Raises:
        BadAnswerError: if there is none.
    """
    if answer.finish == "refusal":
        raise BadAnswerError(DECLINED)
    text, cut = without_thoughts(answer.text), ""
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


def proposals_in(answer: Answer) -> list[Proposal]:
    """The conditions that an answer proposes, not looked at yet.

    Raises:
        BadAnswerError: if there are none, or they are not of the form.
    """
    values = objects_in(answer, expected=CONDITIONS_FORM)
    whole = [value["conditions"] for value in values if isinstance(value, dict) and "conditions" in value]
    named = [value for value in values if isinstance(value, dict) and "name" in value]
    listed = whole[-1] if whole else named or (values if all(isinstance(value, str) for value in values) else [])
    if not listed:
        raise BadAnswerError(f"it has no JSON object of the form {CONDITIONS_FORM}.")
    try:
        return Proposals.validate_python(listed)
    except ValidationError as error:
        raise BadAnswerError(f"{_faults(error)}. It must be of the form {CONDITIONS_FORM}") from error


def lists_in(answer: Answer, num: int, *, expected: str) -> dict[int, list[str]]:
    """The texts that an answer gives for the numbers 1 to ``num``; of one thing, the number may be left out.

    Raises:
        BadAnswerError: if there are none, or they are not of the form.
    """
    values = objects_in(answer, expected=expected)
    given: dict[int, Any] = {}
    for value in values:
        given |= _by_number(value, num)
    if num == 1 and not given and all(isinstance(value, str) for value in values):
        given = {1: values}
    if not given:
        raise BadAnswerError(f"it has no JSON object of the form {expected}.")
    try:
        return Numbered.validate_python(given)
    except ValidationError as error:
        raise BadAnswerError(f"{_faults(error)}. It must be of the form {expected}") from error


def _by_number(value: Any, num: int) -> dict[int, Any]:
    """What an object has under keys such as "2" or "line 2", or an object within it."""
    if not isinstance(value, dict):
        return {}
    matches = {key: match for key in value if (match := _NUMBER_IN_KEY.fullmatch(str(key)))}
    found = {int(match[1]): value[key] for key, match in matches.items() if 1 <= int(match[1]) <= num}
    return found or next((inner for each in value.values() if (inner := _by_number(each, num))), {})


def _faults(error: ValidationError) -> str:
    """What a schema does not like, for a model."""
    listed = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
    return "; ".join(f"{where or 'the answer'}: {message}" for where, message in listed[:5])


class NumberedReader(ABC):
    """Reads lists for things that are numbered from 1. What one answer lacks, the next may give: ``found`` grows."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.found: dict[int, tuple[str, ...]] = {}

    @abstractmethod
    def take(self, number: int, texts: Sequence[str]) -> str | None:
        """Keep what is good of these texts in ``found`` or else say, to the model, what is wrong with them."""

    def missing(self) -> list[int]:
        return [number for number in range(1, self.num + 1) if number not in self.found]

    def read(self, answer: Answer) -> dict[int, tuple[str, ...]]:
        """All lists, once they are complete.

        Raises:
            BadAnswerError: if there is something missing still.
        """
        given = lists_in(answer, self.num, expected=form(self.missing() or [1]))
        wrong = []
        for number, texts in given.items():
            if number not in self.found and (complaint := self.take(number, texts)):
                wrong.append(f"for {number}, {complaint}")
        if missing := self.missing():
            silent = [str(number) for number in missing if number not in given]
            lacking = [f"there is nothing for {', '.join(silent)}"] if silent else []
            cut = CUT_OFF if answer.finish == "length" else ""
            raise BadAnswerError(f"{'; '.join([*wrong, *lacking])}.{cut} What is still needed is {form(missing)}")
        return dict(self.found)


class SentenceReader(NumberedReader):
    """Reads the sentences of a batch of combinations. An empty list means that there is no such photo."""

    def __init__(self, combinations: Sequence[Sequence[str]], limit: int) -> None:
        super().__init__(len(combinations))
        self._combinations = combinations
        self._limit = limit

    def take(self, number: int, texts: Sequence[str]) -> str | None:
        names = {words_of(name) for name in self._combinations[number - 1]}
        sentences: dict[tuple[str, ...], str] = {}
        for sentence in map(cleaned, texts):
            words = words_of(sentence)
            if MIN_SENTENCE <= len(sentence) <= MAX_SENTENCE and words and words not in names:
                sentences.setdefault(words, sentence)
        if texts and not sentences:
            return f"no text is a sentence in one line of {MIN_SENTENCE} to {MAX_SENTENCE} characters about the things"
        self.found[number] = tuple(sentences.values())[: self._limit]
        return None


class AttributeReader(NumberedReader):
    """Reads the attributes of a batch of classes. Those of several answers add up."""

    def __init__(self, class_names: Sequence[str], num: int, all_names: frozenset[tuple[str, ...]]) -> None:
        super().__init__(len(class_names))
        self._class_names = class_names
        self._wanted = num
        self._all_names = all_names
        self._usable: list[dict[tuple[str, ...], str]] = [{} for _ in class_names]

    def take(self, number: int, texts: Sequence[str]) -> str | None:
        """Phrases that name another class come last: that may be a part of this one, or stand beside it."""
        name, usable = self._class_names[number - 1], self._usable[number - 1]
        for text in texts:
            phrase = cleaned(text).rstrip(".")
            if is_attribute(phrase, name):
                usable.setdefault(words_of(phrase), phrase)
        if len(usable) < self._wanted:
            return (
                f"{self._wanted - len(usable)} more phrases are needed, of 2 to 8 words and at most {MAX_ATTRIBUTE} "
                "characters, without the name"
            )
        ordered = sorted(usable, key=lambda words: any(run in self._all_names for run in runs_of(words)))
        self.found[number] = tuple(usable[words] for words in ordered[: self._wanted])
        return None


def is_attribute(phrase: str, class_name: str) -> bool:
    """Whether a phrase is a short line that does not have the class in it, or a word of it that is its own."""
    words, name = words_of(phrase), words_of(class_name)
    if not words or not MIN_ATTRIBUTE <= len(phrase) <= MAX_ATTRIBUTE or len(phrase.split()) > MAX_WORDS:
        return False
    own = {word for word in name if word not in COMMON_WORDS} if len(name) > 1 else set(name)
    return is_text(phrase) and not own & set(words) and name not in runs_of(words)


class ConditionReader:
    """Reads conditions: the first ``options.num`` that can be used, once there are ``at_least`` so many.

    ``heard`` are the stems of all words in the sentences.
    """

    def __init__(self, options: GenerateOptions, rules: NameRules, heard: Set[str], *, at_least: int) -> None:
        self.good: list[Condition] = []
        self.wrong: dict[str, str] = {}
        self._num, self._at_least = options.num, at_least
        self._told = ASKED_FOR | ({each.name for each in MEALS_CONDITIONS} if wants_example(options) else set())
        self._rules, self._heard = rules, heard

    def read(self, answer: Answer) -> tuple[Condition, ...]:
        """The conditions.

        Raises:
            BadAnswerError: if there are too few.
        """
        faults = [fault for proposal in proposals_in(answer) if (fault := self._take(proposal))]
        if len(self.good) >= self._at_least:
            return tuple(self.good)
        listed = ", ".join(quoted(condition.name) for condition in self.good)
        raise BadAnswerError(
            f"{'; '.join(faults[: 2 * self._num]) or 'there are too few conditions'}."
            f"{CUT_OFF if answer.finish == 'length' else ''} "
            f"{f'Usable so far: {listed}; keep these.' if listed else 'None is usable so far.'} "
            f"{self._num - len(self.good)} more are needed, with names of 1 to 3 words, about something else."
        )

    def _take(self, proposal: Proposal) -> str | None:
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
        """Cues whose words occur in the sentences, once each, without the classes themselves."""
        cues = dict.fromkeys(cleaned(text).lower() for text in given)
        kept = [cue for cue in cues if 0 < len(cue) <= MAX_CUE and cue not in IDLE_WORDS]
        kept = [cue for cue in kept if self._heard >= set(map(stem, words_of(cue)))]
        return tuple(cue for cue in kept if not self._rules.is_class(cue))[:MAX_CUES]
