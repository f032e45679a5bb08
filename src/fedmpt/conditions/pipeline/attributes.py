"""Attributes of classes from a language model: what one sees of each, for FedMVP.

The same rules hold as for conditions: names travel as JSON strings, answers are checked and repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedmpt.conditions.attributes import AttributeList
from fedmpt.conditions.document import write_document
from fedmpt.conditions.pipeline import prompts
from fedmpt.conditions.pipeline.answers import attribute_reader
from fedmpt.conditions.pipeline.generate import REMEDY, batches, provenance_of
from fedmpt.conditions.pipeline.options import AttributeOptions
from fedmpt.conditions.words import words_of
from fedmpt.llm.asking import Asker, Unusable
from fedmpt.types import InputError

METHOD = (
    "The model wrote them from the class names alone, without seeing images: phrases of what one sees of a "
    "class. They were checked by rules; nothing was compared with images."
)


def generate_attributes(
    class_names: Sequence[str], asker: Asker, options: AttributeOptions, *, name: str
) -> AttributeList:
    """Attributes of every class, ``options.num`` each, with what led to them as provenance; ``name`` is the list's.

    Raises:
        InputError: if the budget of ``asker`` is too small, or a class has too few usable attributes.
    """
    options.check()
    parts = batches(class_names, options.batch)
    if asker.max_requests < len(parts):
        raise InputError(
            f"{len(class_names):,} classes need {len(parts):,} requests, --max-requests is {asker.max_requests}; "
            "raise it, with room for repairs, or ask for more classes at once with --per-request"
        )
    readers = [attribute_reader(part, options.num, frozenset(map(words_of, class_names))) for part in parts]
    requests = prompts.labelled("attributes", parts, partial(prompts.attributes_request, options=options))
    outcomes = asker.ask_all(requests, [reader.read for reader in readers])
    if reasons := [outcome.reason for outcome in outcomes if isinstance(outcome, Unusable)]:
        missing = [part[number - 1] for part, reader in zip(parts, readers, strict=True) for number in reader.missing()]
        listed = ", ".join(map(prompts.in_json, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise InputError(
            f"{len(missing)} of {len(class_names)} classes have fewer than {options.num} usable attributes: {listed} "
            f"({reasons[0][:400]}); {REMEDY}, or a smaller --num"
        )
    found = [reader.found[number] for reader in readers for number in sorted(reader.found)]
    sent = {"attributes": prompts.sent("attributes", prompts.attributes_request([], options))}
    provenance = provenance_of(asker, options, method=METHOD, class_names=class_names)
    return AttributeList(name, {**provenance, "prompts": sent}, dict(zip(class_names, found, strict=True)))


def write_attributes(path: Path, found: AttributeList) -> None:
    """Write a file that `read_attributes` reads as the same texts, all of it or nothing."""
    content = {"name": found.where, "provenance": found.provenance, "attributes": found.attributes}
    write_document(path, "attributes", content)
