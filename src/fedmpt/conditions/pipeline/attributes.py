"""Attributes of classes from a language model: what one sees of each, for FedMVP.

The same rules hold as for conditions: names travel as JSON strings, answers are checked and repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fedmpt.conditions.attributes import AttributeList
from fedmpt.conditions.document import is_text, write_document
from fedmpt.conditions.pipeline import prompts
from fedmpt.conditions.pipeline.answers import AttributeReader
from fedmpt.conditions.pipeline.generate import MAX_REASON, REMEDY, check_classes, provenance_of
from fedmpt.conditions.pipeline.options import AttributeOptions
from fedmpt.conditions.words import words_of
from fedmpt.llm.asking import Asker, Question, Unusable
from fedmpt.types import InputError

METHOD = (
    "The model wrote them from the class names alone, without seeing images: phrases of what one sees of a "
    "class. They were checked by rules; nothing was compared with images."
)


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
    if asker.max_requests is not None and asker.max_requests < len(batches):
        raise InputError(
            f"{len(class_names):,} classes need {len(batches):,} requests, --max-requests is {asker.max_requests}; "
            "raise it, with room for repairs, or ask for more classes at once with --per-request"
        )
    all_names = frozenset(map(words_of, class_names))
    readers = [AttributeReader(batch, options.num, all_names) for batch in batches]
    labels = [f"attributes {number} of {len(batches)}" for number in range(1, len(batches) + 1)]
    outcomes = asker.ask_all(
        [
            Question(prompts.attributes_request(batch, options, label=label), reader.read)
            for batch, reader, label in zip(batches, readers, labels, strict=True)
        ]
    )
    found = {
        each: reader.found.get(number)
        for batch, reader in zip(batches, readers, strict=True)
        for number, each in enumerate(batch, start=1)
    }
    attributes = {each: texts for each, texts in found.items() if texts is not None}
    if lacking := [each for each in found if each not in attributes]:
        listed = ", ".join(map(prompts.in_json, lacking[:20])) + (", ..." if len(lacking) > 20 else "")
        reason = next(outcome.reason for outcome in outcomes if isinstance(outcome, Unusable))
        raise InputError(
            f"{len(lacking)} of {len(class_names)} classes have fewer than {options.num} usable attributes: "
            f"{listed} ({reason[:MAX_REASON]}); {REMEDY}; small models do better with --per-request 1 or a smaller "
            "--num"
        )
    provenance = provenance_of(asker, asdict(options), date=date, method=METHOD, class_names=class_names)
    example = {"example": prompts.attributes_example(options)} if prompts.wants_example(options) else {}
    sent = {"attributes": {"system": prompts.SYSTEM, "user": prompts.ATTRIBUTES.template, **example}}
    return AttributeList(name, {**provenance, "prompts": sent}, attributes)


def write_attributes(path: Path, attributes: AttributeList) -> None:
    """Write a file that `read_attributes` reads as the same texts; its folder is made. All of it is written or nothing.

    Raises:
        InputError: if it cannot be written.
    """
    content = {
        "name": attributes.where if is_text(attributes.where) else path.stem,
        "provenance": attributes.provenance,
        "attributes": {name: list(texts) for name, texts in attributes.attributes.items()},
    }
    write_document(path, "attributes", content)
