"""What can be said against a set of conditions without asking a language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.record import ConditionSet, sentences_of
from fedmpt.conditions.words import IDLE_WORDS, runs_of, stem, words_of
from fedmpt.types import Backbone

Encode = Callable[..., Tensor]
"""Names and ``prefix=`` to the normalised features [n, D] of prompts ``"PREFIX NAME."``, of ``"NAME."`` if empty."""
NUM_CONTEXT, PHRASE, MANY_PIECES = 4, "a photo of a", 4
"""Learnable tokens before the condition, and as many before the class; what those start from; pieces of a rare word."""
MAX_CLASSES, MIN_CLASSES = 100, 10
"""So many are taken of longer lists, evenly spread; shorter ones are filled up: few pairs say little about a tower."""
COMMON_NOUNS = ("dog", "car", "tree", "house", "boat", "apple", "chair", "bird", "phone", "bridge", "shoe", "clock")
ALIKE, NO_DIFFERENCE = 0.95, 0.01
"""Names more similar than this share of the pairs of classes are too close. A condition that moves prompts by less than
this share of what another class does is not told apart."""
MIN_SHARE, MIN_COVERED = 0.02, 0.4
"""Of sentences: that each condition should occur in, and that any should occur in."""
MAX_JACCARD, TIMES_CHANCE = 0.5, 2
"""Two conditions may have so much in common, or so many times what two have that are strewn over the sentences."""


@dataclass(frozen=True)
class Findings:
    """``problems`` say in words what is wrong and what to do; the rest are the numbers behind them, if any."""

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
    """Look for class names in conditions, names that a tower cannot take or tell apart, and sentences left over."""
    found, covered = class_words(conditions.names, class_names or ()), coverage(conditions)
    lengths = alike = None
    if backbone is not None and encode is not None:
        classes = class_names or COMMON_NOUNS
        lengths = prompt_lengths(conditions.names, class_names=classes, backbone=backbone)
        if lengths["compared"] <= lengths["limit"]:
            alike = overlap(conditions.names, class_names=classes, encode=encode)
    problems = [*_of_names(found, lengths), *(_of_overlap(alike) if alike else ()), *_of_coverage(covered)]
    return Findings(problems, found, lengths, alike, covered)


def class_words(names: Sequence[str], class_names: Sequence[str]) -> dict[str, list[str]]:
    """Classes whose name stands in a condition's as whole words, in either number and any case, by condition."""
    runs = {name: set(runs_of(words_of(name))) for name in names}
    found = {name: [each for each in class_names if words_of(each) in runs[name]] for name in names}
    return {name: classes for name, classes in found.items() if classes}


def prompt_lengths(names: Sequence[str], *, class_names: Sequence[str], backbone: Backbone) -> dict[str, Any]:
    """Tokens of ``names`` and of the ``longest`` of FedMPT's prompts, of which the tower takes ``limit``.

    A prompt is start, context, condition, context, class, dot, end; ``compared`` is as `overlap` has it.
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


def overlap(names: Sequence[str], *, class_names: Sequence[str], encode: Encode) -> dict[str, Any]:
    """How alike a text tower finds conditions, bare as ``"NAME."`` and in ``"NAME a photo of a CLASS."``.

    Such cosines lie close together, on another level for each tower, so they are judged by what it gives for pairs of
    classes: ``percentile`` is the share of those that are below. ``pairs`` of conditions come the most similar names
    first; the cosine in prompts is the mean over classes. ``difference`` is how far another condition moves a prompt,
    as a share of how far another class does (means of one minus the cosine); None with a single condition.
    """
    classes = spread(class_names, MAX_CLASSES)
    if len(classes) < MIN_CLASSES:
        classes += [noun for noun in COMMON_NOUNS if noun not in classes]
    features, of_classes = (encode(some, prefix="").double() for some in (names, classes))
    prompts = torch.stack([encode(classes, prefix=f"{name} {PHRASE}").double() for name in names])
    bare, in_prompts = features @ features.T, torch.einsum("ncd,mcd->nm", prompts, prompts) / len(classes)
    one, other = torch.triu_indices(len(classes), len(classes), offset=1)
    bare_classes = (of_classes @ of_classes.T)[one, other]
    prompt_classes = (prompts @ prompts.mT)[:, one, other].flatten()
    pairs = [
        {
            "conditions": [names[row], names[column]],
            "bare": bare[row, column].item(),
            "bare_percentile": (bare_classes < bare[row, column]).double().mean().item(),
            "prompts": in_prompts[row, column].item(),
            "prompts_percentile": (prompt_classes < in_prompts[row, column]).double().mean().item(),
        }
        for row, column in combinations(range(len(names)), 2)
    ]
    moved = 1 - in_prompts[tuple(torch.triu_indices(len(names), len(names), offset=1))].mean().item()
    return {
        "pairs": sorted(pairs, key=lambda pair: -pair["bare"]),
        "num_classes": len(classes),
        "bare_median": bare_classes.median().item(),
        "prompts_median": prompt_classes.median().item(),
        "difference": moved / max(1 - prompt_classes.mean().item(), 1e-12) if pairs else None,
    }


def coverage(conditions: ConditionSet) -> dict[str, Any] | None:
    """How the sentences in a set's provenance speak of its conditions; None where it keeps no sentence.

    A sentence speaks of a condition if it has one of its cues, or a word that stands in its name alone, by stems
    (`fedmpt.conditions.words`). Cues of several words count as a phrase. Shares are of all sentences: ``shares`` by
    condition, ``covered`` of those that speak of any. ``shared`` has each two conditions with the Jaccard index of
    their sentences, ``uncovered`` examples that speak of none, and ``unused_cues`` those that occur in no sentence.
    """
    sentences = [text for described in sentences_of(conditions) for text in described.sentences]
    if not sentences:
        return None
    runs = [set(runs_of(_stems(text))) for text in sentences]
    in_names = Counter(word for name in conditions.names for word in set(_stems(name)))
    idle = {word for word, times in in_names.items() if times > 1}.union(*map(_stems, IDLE_WORDS))
    speaking = {}
    for each in conditions.conditions:
        cues = {(word,) for word in _stems(each.name) if word not in idle}.union(map(_stems, each.cues))
        speaking[each.name] = {index for index, found in enumerate(runs) if not cues.isdisjoint(found)}
    covered, spoken = set().union(*speaking.values()), set().union(*runs)
    unused = {each.name: [cue for cue in each.cues if _stems(cue) not in spoken] for each in conditions.conditions}
    shared = [
        {"conditions": list(pair), "jaccard": len(both[0] & both[1]) / max(len(both[0] | both[1]), 1)}
        for pair, both in zip(combinations(speaking, 2), combinations(speaking.values(), 2), strict=True)
    ]
    return {
        "num_sentences": len(sentences),
        "shares": {name: len(some) / len(sentences) for name, some in speaking.items()},
        "covered": len(covered) / len(sentences),
        "shared": shared,
        "uncovered": spread([text for index, text in enumerate(sentences) if index not in covered], 5),
        "unused_cues": {name: cues for name, cues in unused.items() if cues},
    }


def _stems(text: str) -> tuple[str, ...]:
    return tuple(map(stem, words_of(text)))


def spread(items: Sequence[str], num: int) -> list[str]:
    """At most ``num`` items in their order, the same each time and from all over the list."""
    num = min(num, len(items))
    return [items[index * len(items) // num] for index in range(num)]


def _of_names(class_words: Mapping[str, Sequence[str]], lengths: Mapping[str, Any] | None) -> Iterator[str]:
    for name, classes in class_words.items():
        named = ", ".join(map(repr, classes))
        yield f"condition {name!r} has class {named} in its name, which all its prompts get; name the aspect without it"
    if lengths and lengths["longest"] > lengths["limit"]:
        condition, class_name = lengths["longest_parts"]
        yield (
            f"the prompt for condition {condition!r} and class {class_name!r} has {lengths['longest']} tokens, the "
            f"tower takes {lengths['limit']}; shorten a name, or train with fewer context tokens"
        )
    if lengths and lengths["pieces"]:
        words = ", ".join(f"{word!r} into {count}" for word, count in lengths["pieces"].items())
        rare = "so they were rare where it learned; take commoner words"
        yield f"the tower's tokenizer breaks words into many pieces ({words}), {rare}"


def _of_overlap(found: Mapping[str, Any]) -> Iterator[str]:
    close = [pair for pair in found["pairs"] if pair["bare_percentile"] >= ALIKE]
    if found["pairs"] and found["difference"] < NO_DIFFERENCE:
        close = []
        yield (
            "this tower hardly tells the conditions apart: prompts that differ in the condition alone have cosines of "
            f"{min(pair['prompts'] for pair in found['pairs']):.4f} and more, and another condition moves a prompt by "
            f"{found['difference']:.2%} of what another class does; their names will make little difference with it, "
            "and other names hardly more"
        )
    for pair in close:
        names, share = " and ".join(map(repr, pair["conditions"])), pair["bare_percentile"]
        yield f"to this tower, {names} are closer than {share:.0%} of the pairs of classes; rename or drop one"


def _of_coverage(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    shares, sentences = found["shares"], f"{found['num_sentences']} sentences"
    for name, share in shares.items():
        if share < MIN_SHARE:
            yield f"{share:.1%} of {sentences} speak of condition {name!r}; correct its cues or take one that occurs"
    for pair in found["shared"]:
        one, other = (shares[name] for name in pair["conditions"])
        # Good sentences speak of several conditions: those that most speak of meet in most by chance.
        chance = one * other / (one + other - one * other) if one and other else 0.0
        if pair["jaccard"] > max(MAX_JACCARD, TIMES_CHANCE * chance):
            names = " and ".join(map(repr, pair["conditions"]))
            yield f"of sentences that speak of {names}, {pair['jaccard']:.0%} speak of both; merge them or their cues"
    if found["covered"] < MIN_COVERED:
        example = (
            f"what the others tell (such as {found['uncovered'][0]!r}) may be a cue or a condition that is missing"
        )
        yield f"{found['covered']:.0%} of {sentences} have a cue of at least one condition; {example}"
