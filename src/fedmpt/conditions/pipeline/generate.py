"""Conditions from a language model: it describes combinations of classes, then it summarises what it wrote.

This is the pipeline of FedMPT's section on conditions: two stages with chain of thought. The paper has every
combination of classes described in one conversation; here a budget of requests is kept, answers are checked and
repaired, and sentences that do not fit into the model's context are summarised in parts [ours]. What cannot be used is
left out and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from fedmpt import __version__
from fedmpt.conditions.labels.combinations import Combination
from fedmpt.conditions.pipeline import prompts
from fedmpt.conditions.pipeline.answers import MAX_CUES, ConditionReader, sentence_reader
from fedmpt.conditions.pipeline.naming import NameRules, quoted
from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, GenerateOptions, Options, Plan, plan
from fedmpt.conditions.record import Condition, ConditionSet, Described
from fedmpt.conditions.words import stem, words_of
from fedmpt.llm.asking import Asker, Unusable
from fedmpt.types import InputError

T = TypeVar("T")

METHOD = (
    "The model described combinations of classes in sentences, then named the conditions that explain why "
    "classes come together in them. Names were checked by rules; nothing was compared with images."
)
REMEDY = (
    "the answers are kept where --cache says, so the same command ends the same; take another model or other options, "
    "or ask anew, with another --seed or --fresh; small models do better with --per-request 1"
)
MAX_REASON = 400
"""Characters of a reason in messages and records: it may quote the model."""


def generate(
    class_names: Sequence[str],
    combinations: Sequence[Combination],
    asker: Asker,
    options: GenerateOptions,
    *,
    name: str,
    combinations_from: str,
) -> ConditionSet:
    """Conditions for classes, with all that led to them as provenance.

    Combinations beyond the budget of ``asker``, and those that the model gave no usable answer for, are left out and
    counted. ``combinations`` index ``class_names``; ``combinations_from`` says in words where they come from.

    Raises:
        InputError: if the budget is too small, more than half of the combinations have no usable answer, none has a
            sentence, or too few conditions can be used.
    """
    planned = plan(len(combinations), options, asker.max_requests)
    named = named_combinations(class_names, combinations[: planned.num_combinations])
    stages = _Stages(asker, options, planned, NameRules(class_names))
    beyond = len(combinations) - len(named)
    stages.leave_out("plan", beyond, "combinations", f"beyond the budget of {asker.max_requests} requests")
    described = stages.describe(named)
    conditions = stages.summarise(described)
    pairs = zip(named, combinations, strict=False)
    chosen = [{"classes": list(classes), "why": combination.why} for classes, combination in pairs]
    summarise = prompts.sent("summarise", prompts.summarise_request([], options))
    sent = {
        "describe": prompts.sent("describe", prompts.describe_request([], options)),
        "summarise": {**summarise, "merge": prompts.TEMPLATES["merge"]},
    }
    provenance = {
        **provenance_of(asker, options, method=METHOD, class_names=class_names),
        "prompts": sent,
        "combinations": {"from": combinations_from, "chosen": chosen},
        "sentences": [{"classes": list(each.classes), "sentences": list(each.sentences)} for each in described],
        "left_out": stages.left_out,
    }
    return ConditionSet(name, conditions, provenance)


def provenance_of(asker: Asker, options: Options, *, method: str, class_names: Sequence[str]) -> dict[str, Any]:
    """What every text that a model wrote is to say of where it comes from."""
    return {
        "model": dict(asker.model.identity),
        "date": datetime.now(UTC).date().isoformat(),
        "fedmpt": __version__,
        "method": method,
        "parameters": {**asdict(options), "max_requests": asker.max_requests},
        "classes": list(class_names),
        "usage": {**asdict(asker.usage), "ignored_parameters": list(asker.model.ignored)},
    }


def named_combinations(class_names: Sequence[str], combinations: Sequence[Combination]) -> list[tuple[str, ...]]:
    return [tuple(class_names[index] for index in combination.classes) for combination in combinations]


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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
        """Sentences for each combination that the model answered for, none where it finds it implausible.

        What summarising needs is left for it: its first answers, and half of those for repairs.
        """
        parts = batches(named, self.options.batch)
        readers = [sentence_reader(part, self.options.sentences) for part in parts]
        requests = prompts.labelled("describe", parts, partial(prompts.describe_request, options=self.options))
        reserve = self.plan.summarise + self.asker.max_requests // 8
        outcomes = self.asker.ask_all(requests, [reader.read for reader in readers], reserve=reserve)
        described: list[Described] = []
        for part, reader, outcome in zip(parts, readers, outcomes, strict=True):
            # Of a batch whose answers never were complete, what was usable is used.
            described += [Described(part[number - 1], reader.found[number]) for number in sorted(reader.found)]
            if isinstance(outcome, Unusable):
                self.leave_out("describe", len(reader.missing()), "combinations", outcome.reason)
        if 2 * len(described) < len(named):
            raise InputError(
                f"the model gave no usable answer for {len(named) - len(described)} of {len(named)} combinations of "
                f"classes ({self.left_out[-1]['why']}); {REMEDY}"
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
            request = prompts.summarise_request(parts[0], self.options, label="summarise")
        else:
            request = prompts.merge_request(self._candidates(parts, heard), self.options, label="merge")
        reader = ConditionReader(self.options, self.rules, heard, at_least=self.options.num)
        (outcome,) = self.asker.ask_all([request], [reader.read])
        if isinstance(outcome, Unusable):
            good = ", ".join(quoted(condition.name) for condition in reader.good) or "none"
            raise InputError(
                f"the model gave {len(reader.good)} of {self.options.num} usable conditions. Usable: {good}. Why it "
                f"ended: {outcome.reason[: 2 * MAX_REASON].rstrip('.')}. What to do: {REMEDY}; or ask for fewer "
                "conditions with a smaller --num"
            )
        return outcome

    def _candidates(self, parts: Sequence[Sequence[Described]], heard: frozenset[str]) -> dict[Condition, int]:
        """What readers of the parts propose, each once with the number of its readers, the most frequent first.

        As many as fit into one request.
        """
        reads = [ConditionReader(self.options, self.rules, heard, at_least=1).read for _ in parts]
        requests = prompts.labelled("summarise", parts, partial(prompts.summarise_request, options=self.options))
        by_words: dict[tuple[str, ...], tuple[Condition, int]] = {}
        for outcome in self.asker.ask_all(requests, reads, reserve=1):
            if isinstance(outcome, Unusable):
                self.leave_out("summarise", 1, "requests", outcome.reason)
                continue
            for condition in outcome:
                first, number = by_words.get(words_of(condition.name), (condition, 0))
                cues = tuple(dict.fromkeys((*first.cues, *condition.cues)))[:MAX_CUES]
                by_words[words_of(condition.name)] = (replace(first, cues=cues), number + 1)
        if not by_words:
            raise InputError(f"the model proposed no usable condition ({self.left_out[-1]['why']}); {REMEDY}")
        ordered = sorted(by_words.values(), key=lambda pair: -pair[1])
        fitting = self.options.room // CANDIDATE_TOKENS
        self.leave_out("summarise", len(ordered[fitting:]), "proposals", "more than --context-tokens holds")
        return dict(ordered[:fitting])


def into_parts(described: Sequence[Described], options: GenerateOptions, most: int) -> list[list[Described]]:
    """Combinations with sentences, divided among as few requests as they fit in, at most ``most``.

    Each request gets combinations from all over the list. As long as they do not fit, the last sentence of each is left
    out or, where each has but one, every other combination.
    """
    telling = [each for each in described if each.sentences]
    while True:
        tokens = [prompts.tokens_of(prompts.sentence_line(each)) for each in telling]
        for num in range(1, min(most, len(telling)) + 1):
            if all(sum(tokens[start::num]) <= options.room for start in range(num)):
                return [telling[start::num] for start in range(num)]
        longest = max(len(each.sentences) for each in telling)
        if len(telling) == longest == 1:
            return [telling]
        fewer = [Described(each.classes, each.sentences[: longest - 1]) for each in telling]
        telling = fewer if longest > 1 else telling[::2]
