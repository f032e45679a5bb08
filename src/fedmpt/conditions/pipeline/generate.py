"""Conditions from a language model: it describes combinations of classes, then it summarises what it wrote.

This is the pipeline of FedMPT's section on conditions: two stages with chain of thought. The paper has every
combination of classes described in one conversation; here a budget of requests is kept, answers are checked and
repaired, and sentences that do not fit into the model's context are summarised in parts [ours]. What cannot be used is
left out and noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fedmpt import __version__
from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.conditions.labels.combinations import Combination
from fedmpt.conditions.pipeline import prompts
from fedmpt.conditions.pipeline.answers import MAX_CUES, ConditionReader, SentenceReader
from fedmpt.conditions.pipeline.naming import NameRules
from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, GenerateOptions
from fedmpt.conditions.pipeline.planning import Plan, into_parts, plan
from fedmpt.conditions.pipeline.reading import quoted
from fedmpt.conditions.record import Condition, ConditionSet, Described
from fedmpt.conditions.words import stem, words_of
from fedmpt.llm.asking import Asker, Question, Unusable
from fedmpt.llm.model import Message, Request
from fedmpt.types import InputError

METHOD = (
    "The model described combinations of classes in sentences, then named the conditions that explain why "
    "classes come together in them. Names were checked by rules; nothing was compared with images."
)
REMEDY = (
    "the answers are kept where --cache says, so the same command ends the same; take another model or other options, "
    "or ask anew, with another --seed or --fresh"
)
MAX_REASON = 400
"""Characters of a reason in messages and records: it may quote the model."""


def prompts_preview(
    class_names: Sequence[str], combinations: Sequence[Combination], options: GenerateOptions
) -> tuple[Message, ...]:
    """The messages of the first request, as `generate` would send them; its errors too."""
    options.check()
    return prompts.describe_request(_named(class_names, combinations)[: options.batch], options).messages


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
    planned = plan(len(combinations), options, asker.max_requests)
    named = _named(class_names, combinations)[: planned.num_combinations]
    stages = _Stages(asker, options, planned, NameRules(class_names))
    beyond = len(combinations) - len(named)
    stages.leave_out("plan", beyond, "combinations", f"beyond the budget of {asker.max_requests} requests")
    described = stages.describe(named)
    conditions = stages.summarise(described)
    chosen = [
        {"classes": list(classes), "why": combination.why}
        for classes, combination in zip(named, combinations, strict=False)
    ]
    provenance = {
        **provenance_of(asker, asdict(options), date=date, method=METHOD, class_names=class_names),
        "prompts": _prompts(options),
        "combinations": {"from": combinations_from, "chosen": chosen},
        "sentences": [{"classes": list(each.classes), "sentences": list(each.sentences)} for each in described],
        "left_out": stages.left_out,
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
        "parameters": {**parameters, "max_requests": asker.max_requests},
        "classes": list(class_names),
        "usage": {**asdict(asker.usage), "ignored_parameters": list(asker.model.ignored)},
    }


def check_classes(class_names: Sequence[str]) -> None:
    """Raises InputError for names that cannot stand in a request, or that are given twice."""
    seen: set[str] = set()
    for number, name in enumerate(class_names, start=1):
        if not is_text(name):
            raise InputError(f"class {number} is {shortened(name)}; expected {TEXT}: rename it in the list of classes")
        if name in seen:
            raise InputError(f"class {shortened(name)} is given twice; keep one")
        seen.add(name)


def _named(class_names: Sequence[str], combinations: Sequence[Combination]) -> list[tuple[str, ...]]:
    check_classes(class_names)
    return [tuple(class_names[index] for index in combination.classes) for combination in combinations]


def _prompts(options: GenerateOptions) -> dict[str, dict[str, str]]:
    describe = {"system": prompts.SYSTEM, "user": prompts.DESCRIBE.template}
    summarise = {"system": prompts.SYSTEM, "user": prompts.SUMMARISE.template, "merge": prompts.MERGE.template}
    if prompts.wants_example(options):
        describe["example"] = prompts.describe_example(options)
        summarise["example"] = prompts.summarise_example()
    return {"describe": describe, "summarise": summarise}


@dataclass(frozen=True)
class _Stages:
    """The two stages, run within a budget. ``left_out`` says at which stage, how many of what, and why."""

    asker: Asker
    options: GenerateOptions
    plan: Plan
    rules: NameRules
    left_out: list[dict[str, Any]] = field(default_factory=list)

    def leave_out(self, stage: str, number: int, what: str, why: str) -> None:
        if number:
            self.left_out.append({"stage": stage, "number": number, "what": what, "why": why[:MAX_REASON]})

    def describe(self, named: Sequence[tuple[str, ...]]) -> list[Described]:
        """Sentences for each combination that the model answered for, none where it finds it implausible."""
        size = self.options.batch
        batches = [named[start : start + size] for start in range(0, len(named), size)]
        readers = [SentenceReader(batch, self.options.sentences) for batch in batches]
        questions = [
            Question(prompts.describe_request(batch, self.options, label=label), reader.read)
            for batch, reader, label in zip(batches, readers, _labels("describe", len(batches)), strict=True)
        ]
        outcomes = self.asker.ask_all(questions, reserve=self.plan.reserve)
        described: list[Described] = []
        reason = ""
        for batch, reader, outcome in zip(batches, readers, outcomes, strict=True):
            # Of a batch whose answers never were complete, what was usable is used.
            described += [Described(batch[number - 1], reader.found[number]) for number in sorted(reader.found)]
            if isinstance(outcome, Unusable):
                reason = reason or outcome.reason
                self.leave_out("describe", len(reader.missing()), "combinations", outcome.reason)
        if 2 * len(described) < len(named):
            raise InputError(
                f"the model gave no usable answer for {len(named) - len(described)} of {len(named)} combinations of "
                f"classes ({reason[:MAX_REASON]}); {REMEDY}; small models do better with --per-request 1"
            )
        if not any(each.sentences for each in described):
            raise InputError(f"the model wrote no sentence for any of {len(named)} combinations of classes; {REMEDY}")
        return described

    def summarise(self, described: Sequence[Described]) -> tuple[Condition, ...]:
        """Conditions of all sentences at once or, where they do not fit, of what parts of them propose."""
        heard = frozenset(stem(word) for each in described for text in each.sentences for word in words_of(text))
        parts = into_parts(described, self.options, self.plan.parts)
        number = sum(len(each.sentences) for each in described)
        number -= sum(len(each.sentences) for part in parts for each in part)
        self.leave_out("summarise", number, "sentences", "more than --context-tokens holds")
        if len(parts) == 1:
            return self._concluded(prompts.summarise_request(parts[0], self.options, label="summarise"), heard)
        request = prompts.merge_request(self._candidates(parts, heard), self.options, label="merge")
        return self._concluded(request, heard)

    def _candidates(self, parts: Sequence[Sequence[Described]], heard: frozenset[str]) -> dict[Condition, int]:
        """What readers of the parts propose, each once with the number of its readers, the most frequent first.

        As many as fit into one request.
        """
        questions = [
            Question(
                prompts.summarise_request(part, self.options, label=label),
                ConditionReader(self.options, self.rules, heard, at_least=1).read,
            )
            for part, label in zip(parts, _labels("summarise", len(parts)), strict=True)
        ]
        by_words: dict[tuple[str, ...], tuple[Condition, int]] = {}
        reason = ""
        for outcome in self.asker.ask_all(questions, reserve=1):
            if isinstance(outcome, Unusable):
                reason = reason or outcome.reason
                self.leave_out("summarise", 1, "requests", outcome.reason)
                continue
            for condition in outcome:
                first, number = by_words.get(words_of(condition.name), (condition, 0))
                cues = tuple(dict.fromkeys((*first.cues, *condition.cues)))[:MAX_CUES]
                by_words[words_of(condition.name)] = (replace(first, cues=cues), number + 1)
        if not by_words:
            raise InputError(f"the model proposed no usable condition ({reason[:MAX_REASON]}); {REMEDY}")
        ordered = sorted(by_words.values(), key=lambda pair: -pair[1])
        fitting = self.options.room // CANDIDATE_TOKENS
        self.leave_out("summarise", len(ordered[fitting:]), "proposals", "more than --context-tokens holds")
        return dict(ordered[:fitting])

    def _concluded(self, request: Request, heard: frozenset[str]) -> tuple[Condition, ...]:
        """The answer to the last question."""
        reader = ConditionReader(self.options, self.rules, heard, at_least=self.options.num)
        outcome = self.asker.ask_all([Question(request, reader.read)])[0]
        if not isinstance(outcome, Unusable):
            return outcome
        good = ", ".join(quoted(condition.name) for condition in reader.good) or "none"
        wrong = "; ".join(f"{quoted(name)}: {fault}" for name, fault in list(reader.wrong.items())[:10])
        raise InputError(
            f"the model gave {len(reader.good)} of {self.options.num} usable conditions. Usable: {good}. Not usable: "
            f"{wrong or 'none'}. Why it ended: {outcome.reason[:MAX_REASON].rstrip('.')}. What to do: {REMEDY}; or ask "
            "for fewer conditions with a smaller --num"
        )


def _labels(stage: str, num: int) -> list[str]:
    return [f"{stage} {number} of {num}" for number in range(1, num + 1)]
