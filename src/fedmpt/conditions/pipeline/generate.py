"""Conditions from a language model: it describes combinations of classes, then it summarises what it wrote.

This is the pipeline of FedMPT's section on conditions: two stages with chain of thought. The paper has every
combination of classes described in one conversation; here a budget of requests is kept, answers are checked and
repaired, and sentences that do not fit into the model's context are summarised in parts [ours].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fedmpt import __version__
from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.conditions.labels.combinations import Combination
from fedmpt.conditions.pipeline import describe, summarise
from fedmpt.conditions.pipeline.example import wants_example
from fedmpt.conditions.pipeline.naming import NameRules
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.pipeline.planning import Plan, fitting_combinations, plan
from fedmpt.conditions.pipeline.stages import Notes, describe_stage, summarise_stage
from fedmpt.conditions.record import ConditionSet
from fedmpt.llm.asking import Asker
from fedmpt.llm.model import Message
from fedmpt.types import InputError

__all__ = ["GenerateOptions", "Plan", "fitting_combinations", "generate", "plan", "prompts_preview"]

METHOD = (
    "The model described combinations of classes in sentences, then named the conditions that explain why "
    "classes come together in them. Names were checked by rules; nothing was compared with images."
)


def prompts_preview(
    class_names: Sequence[str], combinations: Sequence[Combination], options: GenerateOptions
) -> tuple[Message, ...]:
    """The messages of the first request, as `generate` would send them.

    Raises:
        InputError: as `generate` before it asks anything.
    """
    options.check()
    named = _named(class_names, combinations)
    question, _ = describe.describe_question(named[: options.batch], options)
    return question.request.messages


def generate(
    class_names: Sequence[str],
    combinations: Sequence[Combination],
    asker: Asker,
    options: GenerateOptions,
    *,
    name: str,
    combinations_from: str,
    date: str,
) -> ConditionSet:
    """Conditions for classes, with all that led to them as provenance.

    The same answers of the model give the same set, but for ``usage`` in the provenance, which says what had to be
    asked. Combinations beyond the budget of ``asker``, and those that the model gave no usable answer for, are left out
    and counted under ``left_out``.

    Args:
        class_names: the classes that ``combinations`` index.
        name: of the set.
        combinations_from: where the combinations come from, in words, for the provenance.
        date: for the provenance.

    Raises:
        InputError: if a class name is no line of text or given twice; if the budget is too small; if more than half of
            the combinations have no usable answer, none has a sentence, or too few conditions can be used.
    """
    planned = plan(len(combinations), options, asker.limits.max_requests)
    named = _named(class_names, combinations)[: planned.num_combinations]
    notes = Notes()
    beyond = len(combinations) - len(named)
    notes.add("plan", beyond, "combinations", f"beyond the budget of {asker.limits.max_requests} requests")
    described = describe_stage(named, asker, options, planned, notes)
    conditions = summarise_stage(described, asker, options, planned, NameRules(class_names), notes)
    chosen = [
        {"classes": list(classes), "why": combination.why}
        for classes, combination in zip(named, combinations[: len(named)], strict=True)
    ]
    provenance = {
        **provenance_of(asker, asdict(options), date=date, method=METHOD, class_names=class_names),
        "prompts": _prompts(options),
        "combinations": {"from": combinations_from, "chosen": chosen},
        "sentences": [{"classes": list(each.classes), "sentences": list(each.sentences)} for each in described],
        "left_out": notes.left_out,
    }
    return ConditionSet(name, conditions, provenance)


def provenance_of(
    asker: Asker, parameters: Mapping[str, Any], *, date: str, method: str, class_names: Sequence[str]
) -> dict[str, Any]:
    """What every text that a model wrote is to say of where it comes from."""
    return {
        "model": dict(asker.model.identity),
        "date": date,
        "fedmpt": __version__,
        "method": method,
        "parameters": {**parameters, "max_requests": asker.limits.max_requests},
        "classes": list(class_names),
        "usage": {**asdict(asker.usage), "ignored_parameters": list(asker.model.ignored)},
    }


def check_classes(class_names: Sequence[str]) -> None:
    """Raises InputError for names that cannot stand in a request, or that are given twice."""
    for number, name in enumerate(class_names, start=1):
        if not is_text(name):
            raise InputError(f"class {number} is {shortened(name)}; expected {TEXT}: rename it in the list of classes")
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if list(class_names).count(name) > 1)
        raise InputError(f"class {shortened(twice)} is given twice; keep one")


def _named(class_names: Sequence[str], combinations: Sequence[Combination]) -> list[tuple[str, ...]]:
    check_classes(class_names)
    return [tuple(class_names[index] for index in combination.classes) for combination in combinations]


def _prompts(options: GenerateOptions) -> dict[str, dict[str, str]]:
    prompts = {
        "describe": {"system": describe.SYSTEM, "user": describe.USER.template},
        "summarise": {
            "system": describe.SYSTEM,
            "user": summarise.USER.template,
            "merge": summarise.MERGE.template,
        },
    }
    if wants_example(options):
        prompts["describe"]["example"] = describe.example_answer(options)
        prompts["summarise"]["example"] = summarise.example_answer()
    return prompts
