"""What can be said against a set of conditions without asking a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.checks.coverage import coverage
from fedmpt.conditions.checks.overlap import PHRASE, Encode, classes_for, overlap
from fedmpt.conditions.record import ConditionSet
from fedmpt.conditions.words import runs_of, words_of
from fedmpt.types import Backbone

NUM_CONTEXT, MANY_PIECES = 4, 4
"""Learnable tokens before the condition, and as many before the class; pieces that a rare word is broken into."""
ALIKE, NO_DIFFERENCE = 0.95, 0.01
"""Names more similar than this share of the pairs of classes are too close. A condition that moves prompts by less than
this share of what another class does is not told apart."""
MIN_SHARE, MIN_COVERED = 0.02, 0.4
"""Of sentences: that each condition should occur in, and that any should occur in."""
MAX_JACCARD, TIMES_CHANCE = 0.5, 2
"""Two conditions may have so much in common, or so many times what two have that are strewn over the sentences."""


@dataclass(frozen=True)
class Findings:
    """``problems`` say in words what is wrong and what to do; the rest are the numbers behind them.

    ``class_words`` has the classes that stand in a condition's name. ``lengths`` and ``overlap`` are None without a
    tower, ``overlap`` also where prompts are too long for it, ``coverage`` where the set keeps no sentences.
    """

    problems: list[str]
    class_words: dict[str, list[str]]
    lengths: dict[str, Any] | None
    overlap: dict[str, Any] | None
    coverage: dict[str, Any] | None


def check_conditions(
    conditions: ConditionSet,
    *,
    class_names: Sequence[str] | None = None,
    backbone: Backbone | None = None,
    encode: Encode | None = None,
) -> Findings:
    """Look for class names in conditions, names that a tower cannot take or tell apart, and sentences left over.

    ``encode`` is that of the ``backbone``. Without classes, common nouns stand in for them where cosines are judged.

    Raises:
        InputError: if the sentences that the set keeps are no sentences.
    """
    found = class_words(conditions.names, class_names or ())
    classes = class_names or classes_for(())
    lengths = None if backbone is None else prompt_lengths(conditions.names, class_names=classes, backbone=backbone)
    alike = None
    if lengths is not None and encode is not None and lengths["compared"] <= lengths["limit"]:
        alike = overlap(conditions.names, class_names=classes, encode=encode)
    covered = coverage(conditions)
    problems = [
        f"condition {name!r} has class {', '.join(map(repr, named))} in its name, so that its prompts speak of it "
        "for every other class too; name the aspect without it"
        for name, named in found.items()
    ]
    problems += _of_lengths(lengths) if lengths else ()
    problems += _of_overlap(alike) if alike and alike["pairs"] else ()
    problems += _of_coverage(conditions, covered) if covered else ()
    return Findings(problems, found, lengths, alike, covered)


def class_words(names: Sequence[str], class_names: Sequence[str]) -> dict[str, list[str]]:
    """Classes whose name stands in a condition's as whole words, in either number and any case, by condition."""
    runs = {name: set(runs_of(words_of(name))) for name in names}
    found = {name: [each for each in class_names if words_of(each) in runs[name]] for name in names}
    return {name: classes for name, classes in found.items() if classes}


def prompt_lengths(names: Sequence[str], *, class_names: Sequence[str], backbone: Backbone) -> dict[str, Any]:
    """Tokens of ``names`` and of the ``longest`` of FedMPT's prompts, of which the tower takes ``limit``.

    A prompt is start, context, condition, context, class, dot, end. ``longest_parts`` are its condition and class,
    ``compared`` is their prompt as `overlap` has it. ``pieces`` are words that the tokenizer breaks into `MANY_PIECES`.
    """

    def count(text: str) -> int:
        return len(backbone.tokenizer(text, add_special_tokens=False)["input_ids"])

    longest = [max(names, key=count), max(class_names, key=count)]
    fixed = sum(map(count, longest)) + count(".") + 2  # Start and end.
    return {
        "limit": TextTower(backbone).max_length,
        "names": {name: count(name) for name in names},
        "longest": fixed + 2 * NUM_CONTEXT,
        "longest_parts": longest,
        "compared": fixed + count(PHRASE),
        "pieces": {word: count(word) for name in names for word in name.split() if count(word) >= MANY_PIECES},
    }


def _of_lengths(found: Mapping[str, Any]) -> Iterator[str]:
    if found["longest"] > found["limit"]:
        condition, class_name = found["longest_parts"]
        yield (
            f"the prompt for condition {condition!r} and class {class_name!r} has {found['longest']} tokens, the tower "
            f"takes {found['limit']}; shorten a name, or train with fewer context tokens"
        )
    if found["pieces"]:
        words = ", ".join(f"{word!r} into {count}" for word, count in found["pieces"].items())
        yield (
            f"the tower's tokenizer breaks words into many pieces ({words}), so they were rare where it learned; take "
            "commoner words"
        )


def _of_overlap(found: Mapping[str, Any]) -> Iterator[str]:
    pairs, middle = found["pairs"], f"{found['bare_median']:.3f} in the middle"
    close = [pair for pair in pairs if pair["bare_percentile"] >= ALIKE]
    if found["difference"] < NO_DIFFERENCE:
        yield (
            "this tower hardly tells the conditions apart: prompts that differ in the condition alone have cosines of "
            f"{min(pair['prompts'] for pair in pairs):.4f} and more, and another condition moves a prompt by "
            f"{found['difference']:.2%} of what another class does; their names will make little difference with it, "
            "and other names hardly more"
        )
    elif len(close) > max(1, len(pairs) // 2):
        one, other = close[0]["conditions"]
        yield (
            f"to this tower, {len(close)} of {len(pairs)} pairs of conditions are closer than {ALIKE:.0%} of the pairs "
            f"of classes, {one!r} and {other!r} the closest (cosine {close[0]['bare']:.3f}, classes {middle}); take "
            "names that differ more, or fewer"
        )
    else:
        for pair in close:
            one, other = pair["conditions"]
            yield (
                f"to this tower, conditions {one!r} and {other!r} are closer than {pair['bare_percentile']:.0%} of the "
                f"pairs of classes (cosine {pair['bare']:.3f}, classes {middle}); rename one or keep one of them"
            )


def _of_coverage(conditions: ConditionSet, found: Mapping[str, Any]) -> Iterator[str]:
    sentences = f"{found['num_sentences']} sentences"
    for condition in conditions.conditions:
        if (share := found["shares"][condition.name]) < MIN_SHARE:
            remedy = "correct its cues" if condition.cues else "give it cues, words of sentences that belong to it,"
            yield (
                f"{share:.1%} of {sentences} speak of condition {condition.name!r}; {remedy} or take a condition that "
                "occurs"
            )
    for pair in found["shared"]:
        one, other = (found["shares"][name] for name in pair["conditions"])
        # Good sentences speak of several conditions: those that most speak of meet in most by chance.
        chance = one * other / (one + other - one * other) if one and other else 0.0
        if pair["jaccard"] > max(MAX_JACCARD, TIMES_CHANCE * chance):
            yield (
                f"conditions {' and '.join(map(repr, pair['conditions']))} occur together in {pair['jaccard']:.0%} of "
                "the sentences that speak of either; merge them, or give each cues of its own"
            )
    if found["covered"] < MIN_COVERED:
        yield (
            f"{found['covered']:.0%} of {sentences} have a cue of at least one condition; what the others tell (such "
            f"as {found['uncovered'][0]!r}) may be a cue or a condition that is missing"
        )
