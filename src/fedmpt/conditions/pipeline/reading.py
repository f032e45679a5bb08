"""Reading what language models answer: JSON in any wrapping or, from small models, numbered and bulleted lists.

What a model wrote is text to be checked and nothing else: it is never evaluated, formatted or obeyed. Whatever cannot
be used is a `BadAnswerError`, whose words go back to the model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmpt.conditions.pipeline.loose_json import Found, LooseJSONError, find_values
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer

MAX_CHARACTERS = 400_000
"""Of an answer, far more than any limit of tokens that is in use."""
CUT_OFF = "It was cut off at the limit: think in one short sentence, and be brief."

MAX_LINE = 2000
"""Of a line, more than any text that is kept: to put combining marks in order takes the square of their number."""

_THOUGHTS_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\W*(?:(?:i'?m|i am|we'?re)\s+(?:\w+ )?(?:sorry|afraid|unable|not able)|sorry\b|i (?:cannot|can'?t|won'?t)"
    r"|as an ai\b|unfortunately, i\b)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(\s*)[*_#(\s]{0,6}(\d{1,3})\s?[.):\]]+(.*)")
_BULLET = re.compile(r"\s*[-*+•—·\N{EN DASH}]\s+(.*)")
_NUMBER_IN_KEY = re.compile(r"\D{0,20}(\d{1,3})\D{0,2}")
_MARKUP = " \t*_`#\"'“”„«»,;|\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
SHOWN = 12
"""Numbers that an example of an answer shows at most."""


def printable(text: str) -> str:
    """A text in one line: what does not print becomes a space, and runs of spaces become one. `MAX_LINE` is kept."""
    short = text[:MAX_LINE]
    plain = "".join(letter if letter.isprintable() else " " for letter in unicodedata.normalize("NFC", short))
    return " ".join(plain.split())


def cleaned(text: str) -> str:
    """One line without numbering, bullets, quotes and emphasis around it."""
    line = printable(text)
    if match := _BULLET.fullmatch(line):
        line = match.group(1)
    if (match := _NUMBERED.fullmatch(line)) and match.group(3).startswith((" ", "*", "_")):
        line = match.group(3)
    return line.strip(_MARKUP)


def quoted(text: str, longest: int = 60) -> str:
    """A text from elsewhere as a JSON string, cut short: it cannot be taken for a part of what is said around it."""
    short = text if len(text) <= longest else f"{text[:longest]}..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def values_in(answer: Answer) -> list[Found]:
    """The JSON objects and lists of an answer; none where it has no JSON.

    Raises:
        BadAnswerError: if the model refused, gave nothing, or gave JSON that must not be used.
    """
    try:
        return find_values(body(answer))
    except LooseJSONError as error:
        raise BadAnswerError(f"its JSON cannot be read: {error}.") from error


def body(answer: Answer) -> str:
    """The text of an answer after its thoughts between ``<think>`` tags.

    Raises:
        BadAnswerError: if it is a refusal, empty, huge or all thought.
    """
    if answer.finish == "refusal":
        raise refused()
    if len(answer.text) > MAX_CHARACTERS:
        raise BadAnswerError(f"it has {len(answer.text)} characters. {CUT_OFF}")
    ends = [match.end() for match in _THOUGHTS_END.finditer(answer.text)]
    text = answer.text[ends[-1] :] if ends else answer.text
    if not text.strip() or text.lstrip().lower().startswith(("<think>", "<thinking>")):
        raise BadAnswerError(f"there is nothing after the thoughts. {CUT_OFF if answer.finish == 'length' else ''}")
    return text


def refused() -> BadAnswerError:
    """Asks again, politely."""
    return BadAnswerError(
        "the request was declined. It is about pictures for research on image recognition, and the names in it "
        "are labels of data. Please give what you can: leave out what you would rather not write about."
    )


def nothing_found(answer: Answer, expected: str) -> BadAnswerError:
    """What to say where an answer has nothing to read; ``expected`` shows what it should have."""
    if _REFUSAL.match(body(answer).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        return refused()
    cut = f" {CUT_OFF}" if answer.finish == "length" else ""
    return BadAnswerError(f"it has no JSON object of the form {expected}.{cut}")


@dataclass
class Item:
    """An entry of a list in plain text; ``number`` is None for bullets, ``under`` is what is listed below it."""

    number: int | None
    text: str
    under: list[str] = field(default_factory=list)


def listed_items(text: str) -> list[Item]:
    """The entries of numbered and bulleted lists, in order. Bullets below a number belong to it."""
    items: list[Item] = []
    outer = ""
    for line in text.splitlines():
        if match := _NUMBERED.match(line):
            indent, number, rest = match.groups()
            if items and items[-1].number is not None and len(indent) > len(outer):
                items[-1].under.append(cleaned(rest))
            else:
                outer = indent
                items.append(Item(int(number), cleaned(rest)))
        elif match := _BULLET.match(line):
            if items and items[-1].number is not None:
                items[-1].under.append(cleaned(match.group(1)))
            else:
                items.append(Item(None, cleaned(match.group(1))))
    return items


def numbered_lists(answer: Answer, num: int, *, expected: str) -> tuple[dict[int, list[str]], bool]:
    """The texts that an answer gives for each of the numbers 1 to ``num``, and whether they come from JSON.

    Numbers without texts have an empty list, numbers that are not there have none. Where there are several objects,
    the one with the most numbers is taken, and the last of those.

    Raises:
        BadAnswerError: if there is none.
    """
    best: dict[int, list[str]] = {}
    for found in values_in(answer):
        given = _by_number(found.value, num)
        if given and len(given) >= len(best):
            best = given
    if best:
        return best, True
    items = listed_items(body(answer))
    if num == 1 and items:
        return {1: [text for item in items for text in (item.text, *item.under)]}, False
    outlined = {item.number: item.under for item in items if item.number and item.under and item.number <= num}
    if not outlined:
        raise nothing_found(answer, expected)
    return {number: texts for number, texts in outlined.items() if number}, False


def _by_number(value: Any, num: int) -> dict[int, list[str]]:
    """Lists by number, wherever they stand in a value."""
    if isinstance(value, list):
        if num == 1 and value and all(isinstance(item, str) for item in value):
            return {1: texts_of(value)}
        if len(value) == num and all(isinstance(item, list) for item in value):
            return {number: texts_of(item) for number, item in enumerate(value, start=1)}
    found: dict[int, list[str]] = {}
    unnumbered: list[list[Any]] = []
    level = [value]
    while level:  # Outer objects first; what a number stands for is not searched for other numbers.
        inner: list[Any] = []
        for key, item in (pair for one in level for pair in pairs_of(one)):
            match = _NUMBER_IN_KEY.fullmatch(key)
            if match and 1 <= int(match.group(1)) <= num:
                found.setdefault(int(match.group(1)), texts_of(item))
            else:
                inner.append(item)
                unnumbered += [item] if key and isinstance(item, list) else []
        level = inner
    if not found and num == 1 and len(unnumbered) == 1:
        return {1: texts_of(unnumbered[0])}
    return found


def pairs_of(value: Any) -> list[tuple[str, Any]]:
    """What is directly in an object, thoughts left out, or in a list, under empty keys."""
    if isinstance(value, dict):
        return [(key, item) for key, item in value.items() if "think" not in key.lower()]
    return [("", item) for item in value] if isinstance(value, list) else []


def texts_of(value: Any) -> list[str]:
    """The texts in a value from JSON, however they are nested, in order."""
    if isinstance(value, str):
        return [value]
    return [text for _, item in pairs_of(value) for text in texts_of(item)]


class NumberedReader(ABC):
    """Reads lists for things that are numbered from 1. What one answer lacks, the next may give: ``found`` grows."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.found: dict[int, tuple[str, ...]] = {}

    @abstractmethod
    def take(self, number: int, texts: Sequence[str], *, from_json: bool) -> str | None:
        """Keep what is good of these texts in ``found`` or else say, to the model, what is wrong with them."""

    def missing(self) -> list[int]:
        return [number for number in range(1, self.num + 1) if number not in self.found]

    def read(self, answer: Answer) -> dict[int, tuple[str, ...]]:
        """All lists, once they are complete.

        Raises:
            BadAnswerError: if there is something missing still.
        """
        given, from_json = numbered_lists(answer, self.num, expected=form(self.missing() or [1]))
        wrong = []
        for number, texts in given.items():
            if number not in self.found and (complaint := self.take(number, texts, from_json=from_json)):
                wrong.append(f"for {number}, {complaint}")
        if missing := self.missing():
            silent = [str(number) for number in missing if number not in given]
            lacking = [f"there is nothing for {', '.join(silent)}"] if silent else []
            cut = f" {CUT_OFF}" if answer.finish == "length" else ""
            raise BadAnswerError(f"{'; '.join([*wrong, *lacking])}.{cut} What is still needed is {form(missing)}")
        return dict(self.found)


def form(numbers: Sequence[int]) -> str:
    """The form of an answer with lists for these numbers, as it is shown to models."""
    shown = [f'"{number}": ["...", "..."]' for number in numbers]
    if len(shown) > SHOWN:
        shown = [*shown[:3], "...", shown[-1]]
    return "{" + ", ".join(['"thinking": "..."', *shown]) + "}"
