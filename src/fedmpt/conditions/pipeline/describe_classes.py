"""Attributes of classes from a language model: what one sees of each, for FedMVP.

The same rules hold as for conditions: names travel as JSON strings, answers are checked and repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template

from fedmpt.conditions.attributes import AttributeList
from fedmpt.conditions.document import is_text, write_document
from fedmpt.conditions.pipeline.describe import SYSTEM, in_json
from fedmpt.conditions.pipeline.example import LOOKS, LOOKS_THOUGHT, after_example, wants_example
from fedmpt.conditions.pipeline.generate import check_classes, provenance_of
from fedmpt.conditions.pipeline.naming import COMMON_WORDS
from fedmpt.conditions.pipeline.options import AttributeOptions, request
from fedmpt.conditions.pipeline.reading import NumberedReader, cleaned, form
from fedmpt.conditions.pipeline.stages import MAX_REASON, REMEDY
from fedmpt.conditions.words import runs_of, words_of
from fedmpt.llm.asking import Asker, Question, Unusable
from fedmpt.llm.model import Request
from fedmpt.types import InputError

__all__ = ["AttributeOptions", "generate_attributes", "write_attributes"]

MIN_ATTRIBUTE, MAX_ATTRIBUTE, MAX_WORDS = 3, 60, 10
"""Characters, and words."""
METHOD = (
    "The model wrote them from the class names alone, without seeing images: phrases of what one sees of a "
    "class. They were checked by rules; nothing was compared with images."
)
USER = Template("""\
Each numbered line is the name of something that is seen in photos, as a JSON string:

$classes

First think about each, in a few words: how does one recognise it in a photo? Then write $num phrases for each line. \
A phrase has 2 to 8 words and says one thing that is seen of it: a part, its shape, its colour or its material. It \
says nothing of what stands beside it or behind it, does not have the name in it, and would not be said of most other \
things.

Answer with one JSON object that has your thoughts in "thinking" and a list of phrases for every number:
$form""")


class AttributeReader(NumberedReader):
    """Reads the attributes of a batch of classes. Those of several answers add up."""

    def __init__(self, class_names: Sequence[str], num: int, all_names: frozenset[tuple[str, ...]]) -> None:
        super().__init__(len(class_names))
        self._class_names = class_names
        self._wanted = num
        self._all_names = all_names
        self._usable: list[dict[tuple[str, ...], str]] = [{} for _ in class_names]

    def take(self, number: int, texts: Sequence[str], *, from_json: bool) -> str | None:
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
        ordered = sorted(usable.items(), key=lambda pair: _names_any(pair[0], self._all_names))
        self.found[number] = tuple(phrase for _, phrase in ordered[: self._wanted])
        return None


def is_attribute(phrase: str, class_name: str) -> bool:
    """Whether a phrase is a short line that does not have the class in it, or a word of it that is its own."""
    words, name = words_of(phrase), words_of(class_name)
    if not words or not MIN_ATTRIBUTE <= len(phrase) <= MAX_ATTRIBUTE or len(phrase.split()) > MAX_WORDS:
        return False
    own = {word for word in name if word not in COMMON_WORDS} if len(name) > 1 else set(name)
    return is_text(phrase) and not own & set(words) and not _names_any(words, frozenset((name,)))


def generate_attributes(
    class_names: Sequence[str], asker: Asker, options: AttributeOptions, *, name: str, date: str
) -> AttributeList:
    """Attributes of every class, ``options.num`` each, with what led to them as provenance.

    Args:
        name: of the list, which stands in its ``where``.
        date: for the provenance.

    Raises:
        InputError: if a class name is no line of text or given twice, the budget of ``asker`` is too small, or a class
            has too few usable attributes.
    """
    options.check()
    check_classes(class_names)
    batches = [class_names[start : start + options.batch] for start in range(0, len(class_names), options.batch)]
    _check_budget(len(batches), len(class_names), asker)
    all_names = frozenset(words_of(each) for each in class_names)
    readers = [AttributeReader(batch, options.num, all_names) for batch in batches]
    outcomes = asker.ask_all(
        [
            Question(_request(batch, options, label=f"attributes {number} of {len(batches)}"), reader.read)
            for number, (batch, reader) in enumerate(zip(batches, readers, strict=True), start=1)
        ]
    )
    _check_complete(batches, readers, options, [each.reason for each in outcomes if isinstance(each, Unusable)])
    attributes = {
        each: reader.found[number]
        for batch, reader in zip(batches, readers, strict=True)
        for number, each in enumerate(batch, start=1)
    }
    provenance = provenance_of(asker, asdict(options), date=date, method=METHOD, class_names=class_names)
    example = {"example": example_answer(options)} if wants_example(options) else {}
    prompts = {"attributes": {"system": SYSTEM, "user": USER.template, **example}}
    return AttributeList(name, {**provenance, "prompts": prompts}, attributes)


def write_attributes(path: Path, attributes: AttributeList) -> None:
    """Write a file that `read_attributes` reads as the same texts; its folder is made. All of it is written or nothing.

    Raises:
        InputError: if it would be too large to be read, or cannot be written.
    """
    content = {
        "name": attributes.where if is_text(attributes.where) else path.stem,
        "provenance": attributes.provenance,
        "attributes": {name: list(texts) for name, texts in attributes.attributes.items()},
    }
    write_document(path, "attributes", content)


def _check_budget(num_requests: int, num_classes: int, asker: Asker) -> None:
    allowed = asker.limits.max_requests
    if allowed is not None and allowed < num_requests:
        raise InputError(
            f"{num_classes:,} classes need {num_requests:,} requests, --max-requests is {allowed}; raise it, with room "
            "for repairs, or ask for more classes at once with --per-request"
        )


def _check_complete(
    batches: Sequence[Sequence[str]],
    readers: Sequence[AttributeReader],
    options: AttributeOptions,
    reasons: Sequence[str],
) -> None:
    lacking = [batch[number - 1] for batch, reader in zip(batches, readers, strict=True) for number in reader.missing()]
    if lacking:
        listed = ", ".join(in_json(each) for each in lacking[:20]) + (", ..." if len(lacking) > 20 else "")
        raise InputError(
            f"{len(lacking)} of {sum(map(len, batches))} classes have fewer than {options.num} usable attributes: "
            f"{listed} ({reasons[0][:MAX_REASON]}); {REMEDY}; small models do better with --per-request 1 or a smaller "
            "--num"
        )


def _request(class_names: Sequence[str], options: AttributeOptions, *, label: str) -> Request:
    asked = request(SYSTEM, _user(class_names, options), options, label=label)
    return after_example(asked, _user(LOOKS[:1], options), example_answer(options)) if wants_example(options) else asked


def example_answer(options: AttributeOptions) -> str:
    """What a model might answer for the class of the example."""
    return in_json({"thinking": LOOKS_THOUGHT, "1": LOOKS[1][: options.num]})


def _user(class_names: Sequence[str], options: AttributeOptions) -> str:
    lines = [f"{number}. {in_json(name)}" for number, name in enumerate(class_names, start=1)]
    return USER.substitute(classes="\n".join(lines), num=options.num, form=form(range(1, len(class_names) + 1)))


def _names_any(words: tuple[str, ...], names: frozenset[tuple[str, ...]]) -> bool:
    """Whether one of these names, given by their words, stands among the words."""
    return any(run in names for run in runs_of(words))
