"""The two stages of making conditions, run within a budget. What cannot be used is left out and noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedmpt.conditions.pipeline.describe import describe_question
from fedmpt.conditions.pipeline.naming import NameRules
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.pipeline.planning import Plan, candidates_per_merge, into_parts
from fedmpt.conditions.pipeline.reading import quoted
from fedmpt.conditions.pipeline.summarise import (
    MAX_CUES,
    ConditionReader,
    Vocabulary,
    merge_question,
    summarise_question,
)
from fedmpt.conditions.record import Condition, Described
from fedmpt.conditions.words import words_of
from fedmpt.llm.asking import Asker, Question, Unusable
from fedmpt.types import InputError

REMEDY = (
    "the answers are kept where --cache says, so the same command ends the same; take another model or other options, "
    "or ask anew, with another --seed or --fresh"
)
MAX_REASON = 400
"""Characters of a reason in messages and records: it may quote the model."""


@dataclass
class Notes:
    """What was left out, for the provenance: at which stage, how many of what, and why."""

    left_out: list[dict[str, Any]] = field(default_factory=list)

    def add(self, stage: str, num: int, what: str, why: str) -> None:
        if num:
            self.left_out.append({"stage": stage, "number": num, "what": what, "why": why[:MAX_REASON]})


def describe_stage(
    named: Sequence[tuple[str, ...]], asker: Asker, options: GenerateOptions, plan: Plan, notes: Notes
) -> list[Described]:
    """Sentences for each of these combinations that the model answered for, none where it finds them implausible.

    Raises:
        InputError: if more than half of them have no usable answer, or there is no sentence at all.
    """
    batches = [named[start : start + options.batch] for start in range(0, len(named), options.batch)]
    described: list[Described] = []
    done, reason = 0, ""
    while done < len(batches) and (wave := _wave(asker, plan, len(batches) - done)):
        now = batches[done : done + wave]
        asked = [
            describe_question(batch, options, label=f"describe {number} of {len(batches)}")
            for number, batch in enumerate(now, start=done + 1)
        ]
        outcomes = asker.ask_all([question for question, _ in asked])
        for batch, (_, reader), outcome in zip(now, asked, outcomes, strict=True):
            # Of a batch whose answers never were complete, what was usable is used.
            described += [Described(tuple(batch[number - 1]), reader.found[number]) for number in sorted(reader.found)]
            if isinstance(outcome, Unusable):
                reason = reason or outcome.reason
                notes.add("describe", len(batch) - len(reader.found), "combinations", outcome.reason)
        done += wave
    unasked = len(named) - sum(len(batch) for batch in batches[:done])
    notes.add("describe", unasked, "combinations", "repairs used up the budget, but for what is kept to summarise")
    _check_described(described, len(named), reason)
    return described


def _wave(asker: Asker, plan: Plan, left: int) -> int:
    """Batches to ask at once, so that even if all need every repair, what summarising needs is left; 0 to stop."""
    remaining = asker.remaining()
    if remaining is None or plan.spare is None:
        return left
    free = remaining - plan.summarise_requests - plan.spare // 2
    return 0 if free < 1 else max(1, min(left, free // asker.limits.attempts))


def _check_described(described: Sequence[Described], num: int, reason: str) -> None:
    if 2 * len(described) < num:
        raise InputError(
            f"the model gave no usable answer for {num - len(described)} of {num} combinations of classes "
            f"({reason[:MAX_REASON]}); {REMEDY}; small models do better with --per-request 1"
        )
    if not any(each.sentences for each in described):
        raise InputError(f"the model wrote no sentence for any of {num} combinations of classes; {REMEDY}")


def summarise_stage(
    described: Sequence[Described],
    asker: Asker,
    options: GenerateOptions,
    plan: Plan,
    rules: NameRules,
    notes: Notes,
) -> tuple[Condition, ...]:
    """``options.num`` conditions: of all sentences at once or, where they do not fit, of what parts of them propose.

    Raises:
        InputError: if too few can be used.
    """
    stage = _Summary(asker, options, rules, Vocabulary(described), notes)
    parts = into_parts(described, options, plan.parts)
    kept = sum(len(each.sentences) for part in parts for each in part)
    total = sum(len(each.sentences) for each in described)
    notes.add("summarise", total - kept, "sentences", "more than --context-tokens holds")
    if len(parts) == 1:
        last = stage.reader(options.num)
        return stage.conclude(summarise_question(parts[0], options, last, label="summarise"), last)
    candidates = stage.candidates(
        [
            summarise_question(part, options, stage.reader(1), label=f"summarise {number} of {len(parts)}")
            for number, part in enumerate(parts, start=1)
        ]
    )
    while len(groups := _groups(candidates, candidates_per_merge(options))) > 1:
        candidates = stage.candidates(
            [
                merge_question(group, options, stage.reader(1), label=f"merge {number} of {len(groups)}")
                for number, group in enumerate(groups, start=1)
            ]
        )
    last = stage.reader(options.num)
    return stage.conclude(merge_question(candidates, options, last, label="merge"), last)


@dataclass(frozen=True)
class _Summary:
    """What all questions of the second stage have in common."""

    asker: Asker
    options: GenerateOptions
    rules: NameRules
    vocabulary: Vocabulary
    notes: Notes

    def reader(self, at_least: int) -> ConditionReader:
        return ConditionReader(self.options, self.rules, self.vocabulary, at_least=at_least)

    def candidates(self, questions: Sequence[Question[tuple[Condition, ...]]]) -> dict[Condition, int]:
        """What is proposed, each once with the number of those who propose it, the most frequent first."""
        outcomes = self.asker.ask_all(questions)
        reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Unusable)]
        for reason in reasons:
            self.notes.add("summarise", 1, "requests", reason)
        by_words: dict[tuple[str, ...], tuple[Condition, int]] = {}
        for condition in (found for outcome in outcomes if not isinstance(outcome, Unusable) for found in outcome):
            key = words_of(condition.name)
            first, number = by_words.get(key, (condition, 0))
            cues = tuple(dict.fromkeys((*first.cues, *condition.cues)))[:MAX_CUES]
            by_words[key] = (replace(first, cues=cues), number + 1)
        if not by_words:
            raise InputError(f"the model proposed no usable condition ({reasons[0][:MAX_REASON]}); {REMEDY}")
        return dict(sorted(by_words.values(), key=lambda pair: -pair[1]))

    def conclude(self, question: Question[tuple[Condition, ...]], reader: ConditionReader) -> tuple[Condition, ...]:
        """The answer to the last question."""
        outcome = self.asker.ask_all([question])[0]
        if not isinstance(outcome, Unusable):
            return outcome
        good = ", ".join(quoted(condition.name) for condition in reader.good) or "none"
        wrong = "; ".join(f"{quoted(name)}: {fault}" for name, fault in list(reader.wrong.items())[:10])
        raise InputError(
            f"the model gave {len(reader.good)} of {self.options.num} usable conditions. Usable: {good}. Not usable: "
            f"{wrong or 'none'}. Why it ended: {outcome.reason[:MAX_REASON].rstrip('.')}. What to do: {REMEDY}; or ask "
            "for fewer conditions with a smaller --num"
        )


def _groups(candidates: Mapping[Condition, int], at_once: int) -> list[dict[Condition, int]]:
    pairs = list(candidates.items())
    return [dict(pairs[start : start + at_once]) for start in range(0, len(pairs), at_once)]
