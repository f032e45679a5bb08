"""What can be said against a set of conditions without asking a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.checks.coverage import Coverage, coverage
from fedmpt.conditions.checks.overlap import PHRASE, Overlap, classes_for, overlap
from fedmpt.conditions.record import ConditionSet
from fedmpt.conditions.words import runs_of, words_of
from fedmpt.methods.parts.prompts import token_ids
from fedmpt.types import Backbone, Tokenizer

NUM_CONTEXT = 4
"""Learnable tokens before the condition, and as many before the class: FedMPT's defaults."""
MANY_PIECES = 4
"""A word that the tokenizer breaks into so many was rare in what the tower was trained on."""
ALIKE = 0.95
"""Names more similar than this share of the pairs of classes are too close."""
NO_DIFFERENCE = 0.01
"""Another condition that moves prompts by less than this share of what another class does is not told apart."""
MIN_SHARE, MIN_COVERED = 0.02, 0.4
"""Of sentences: that each condition should occur in, and that any should occur in."""
MAX_JACCARD, TIMES_CHANCE = 0.5, 2
"""Two conditions may have so much in common, or so many times what two have that are strewn over the sentences."""


@dataclass(frozen=True)
class Lengths:
    """In tokens of the tower, which takes ``limit``: ``names`` by condition, and the ``longest`` of FedMPT's prompts.

    ``longest_parts`` are its condition and class; ``compared`` is their prompt as `overlap` has it. ``pieces`` are
    words of names that the tokenizer breaks into `MANY_PIECES` or more.
    """

    limit: int
    names: Mapping[str, int]
    longest: int
    longest_parts: tuple[str, str]
    compared: int
    pieces: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """``problems`` say in words what is wrong and what to do; the rest are the numbers behind them.

    ``class_words`` has the classes that stand in a condition's name, ``lengths`` and ``overlap`` are None without a
    tower, ``overlap`` also where prompts are too long for it, ``coverage`` where the set keeps no sentences.
    """

    problems: tuple[str, ...]
    class_words: Mapping[str, tuple[str, ...]]
    lengths: Lengths | None
    overlap: Overlap | None
    coverage: Coverage | None

    def to_json(self) -> dict[str, Any]:
        """Numbers, texts, lists and objects only."""
        return asdict(self)


def check_conditions(
    conditions: ConditionSet, *, class_names: Sequence[str] | None = None, backbone: Backbone | None = None
) -> Findings:
    """Look for class names in conditions, names that a tower cannot take or tell apart, and sentences left over.

    Without classes, common nouns stand in for them where the tower's cosines are judged.

    Raises:
        InputError: if the sentences that the set keeps are no sentences.
    """
    found = class_words(conditions.names, class_names or ())
    lengths = similar = None
    if backbone is not None:
        classes = tuple(class_names or classes_for(()))
        lengths = prompt_lengths(conditions.names, class_names=classes, backbone=backbone)
        if lengths.compared <= lengths.limit:
            similar = overlap(conditions.names, class_names=classes, backbone=backbone)
    covered = coverage(conditions)
    problems = (
        *_of_class_words(found),
        *(_of_lengths(lengths) if lengths else ()),
        *(_of_overlap(similar) if similar else ()),
        *(_of_coverage(conditions, covered) if covered else ()),
    )
    return Findings(problems, found, lengths, similar, covered)


def class_words(names: Sequence[str], class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Classes whose name stands in a condition's as whole words, in either number and any case, by condition."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for class_name in class_names:
        by_words.setdefault(words_of(class_name), []).append(class_name)
    found = {}
    for name in names:
        runs = dict.fromkeys(runs_of(words_of(name)))
        if classes := tuple(class_name for run in runs for class_name in by_words.get(run, ())):
            found[name] = classes
    return found


def prompt_lengths(names: Sequence[str], *, class_names: Sequence[str], backbone: Backbone) -> Lengths:
    """Tokens of names and of the longest of FedMPT's prompts: start, context, condition, context, class, dot, end."""
    tokenizer = backbone.tokenizer
    tokens = {name: len(token_ids(tokenizer, name)) for name in names}
    of_classes = {name: len(token_ids(tokenizer, name)) for name in class_names}
    longest = max(tokens, key=lambda name: tokens[name]), max(of_classes, key=lambda name: of_classes[name])
    fixed = tokens[longest[0]] + of_classes[longest[1]] + len(token_ids(tokenizer, ".")) + 2  # Start and end.
    return Lengths(
        limit=TextTower(backbone.text_model).max_length,
        names=tokens,
        longest=fixed + 2 * NUM_CONTEXT,
        longest_parts=longest,
        compared=fixed + len(token_ids(tokenizer, PHRASE)),
        pieces=_pieces(tokenizer, names),
    )


def _pieces(tokenizer: Tokenizer, names: Sequence[str]) -> dict[str, int]:
    counts = {word: len(token_ids(tokenizer, word)) for name in names for word in name.split()}
    return {word: count for word, count in counts.items() if count >= MANY_PIECES}


def _of_class_words(found: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [
        f"condition {name!r} has class {', '.join(map(repr, classes))} in its name, so that its prompts speak of it "
        "for every other class too; name the aspect without it"
        for name, classes in found.items()
    ]


def _of_lengths(lengths: Lengths) -> list[str]:
    problems = []
    if lengths.longest > lengths.limit:
        condition, class_name = lengths.longest_parts
        problems.append(
            f"the prompt for condition {condition!r} and class {class_name!r} has {lengths.longest} tokens, the tower "
            f"takes {lengths.limit}; shorten a name, or train with fewer context tokens"
        )
    if lengths.pieces:
        words = ", ".join(f"{word!r} into {count}" for word, count in lengths.pieces.items())
        problems.append(
            f"the tower's tokenizer breaks words into many pieces ({words}), so they were rare where it learned; take "
            "commoner words"
        )
    return problems


def _of_overlap(found: Overlap) -> list[str]:
    if not found.pairs:
        return []
    if found.difference is not None and found.difference < NO_DIFFERENCE:
        lowest = min(pair.prompts for pair in found.pairs)
        return [
            f"this tower hardly tells the conditions apart: prompts that differ in the condition alone have cosines of "
            f"{lowest:.4f} and more, and another condition moves a prompt by {found.difference:.2%} of what another "
            "class does; their names will make little difference with it, and other names hardly more"
        ]
    close = [pair for pair in found.pairs if pair.bare_percentile >= ALIKE]
    if len(close) > max(1, len(found.pairs) // 2):
        first = close[0]
        return [
            f"to this tower, {len(close)} of {len(found.pairs)} pairs of conditions are closer than {ALIKE:.0%} of the "
            f"pairs of classes, {first.conditions[0]!r} and {first.conditions[1]!r} the closest (cosine "
            f"{first.bare:.3f}, classes {found.bare_median:.3f} in the middle); take names that differ more, or fewer"
        ]
    return [
        f"to this tower, conditions {pair.conditions[0]!r} and {pair.conditions[1]!r} are closer than "
        f"{pair.bare_percentile:.0%} of the pairs of classes (cosine {pair.bare:.3f}, classes {found.bare_median:.3f} "
        "in the middle); rename one or keep one of them"
        for pair in close
    ]


def _of_coverage(conditions: ConditionSet, found: Coverage) -> list[str]:
    problems = []
    for condition in conditions.conditions:
        if (share := found.shares[condition.name]) < MIN_SHARE:
            remedy = "correct its cues" if condition.cues else "give it cues, words of sentences that belong to it,"
            problems.append(
                f"{share:.1%} of {found.num_sentences} sentences speak of condition {condition.name!r}; {remedy} or "
                "take a condition that occurs"
            )
    for pair in found.shared:
        one, other = pair.conditions
        # Good sentences speak of several conditions: those that most speak of meet in most by chance.
        chance = _jaccard_by_chance(found.shares[one], found.shares[other])
        if pair.jaccard > max(MAX_JACCARD, TIMES_CHANCE * chance):
            problems.append(
                f"conditions {one!r} and {other!r} occur together in {pair.jaccard:.0%} of the sentences that speak of "
                "either; merge them, or give each cues of its own"
            )
    if found.covered < MIN_COVERED:
        problems.append(
            f"{found.covered:.0%} of {found.num_sentences} sentences have a cue of at least one condition; what the "
            f"others tell (such as {found.uncovered[0]!r}) may be a cue or a condition that is missing"
        )
    return problems


def _jaccard_by_chance(one: float, other: float) -> float:
    """Of two independent events of these probabilities."""
    return one * other / (one + other - one * other) if one and other else 0.0
