"""Which sentences speak of which condition, counted by words.

A word of a sentence counts for a condition if it is one of its cues or a word of its name, by its stem
(`fedmpt.conditions.words`). But a word that is some condition's cue as it stands, but for the plural, counts for the
conditions that have it so. Cues of several words count as a phrase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from fedmpt.conditions.record import ConditionSet, sentences_of
from fedmpt.conditions.words import IDLE_WORDS, stem, words_of

NUM_EXAMPLES = 5
"""Of sentences that no condition covers."""


@dataclass(frozen=True)
class Shared:
    """Two conditions by the sentences that speak of both: ``jaccard`` is their share of those that speak of either."""

    conditions: tuple[str, str]
    jaccard: float


@dataclass(frozen=True)
class Coverage:
    """Shares are of all ``num_sentences``, in [0, 1].

    ``shares`` is by condition, ``covered`` of sentences that speak of at least one, ``uncovered`` are examples of
    others, from all over the list. ``unused_cues`` occur in no sentence; conditions that use all are left out.
    """

    num_sentences: int
    shares: Mapping[str, float]
    covered: float
    shared: tuple[Shared, ...]
    uncovered: tuple[str, ...]
    unused_cues: Mapping[str, tuple[str, ...]]


def coverage(conditions: ConditionSet) -> Coverage | None:
    """How the sentences in a set's provenance speak of its conditions; None where it keeps no sentence.

    Raises:
        InputError: as `sentences_of`.
    """
    sentences = [text for described in sentences_of(conditions) for text in described.sentences]
    if not sentences:
        return None
    cues = _Cues.of(conditions)
    speaking: list[set[int]] = [set() for _ in conditions.conditions]
    used: set[_Cue] = set()
    for index, sentence in enumerate(sentences):
        found = cues.found_in(sentence)
        used |= found
        for cue in found:
            speaking[cue.condition].add(index)
    covered = set().union(*speaking)
    uncovered = [sentence for index, sentence in enumerate(sentences) if index not in covered]
    names = conditions.names
    return Coverage(
        num_sentences=len(sentences),
        shares={name: len(some) / len(sentences) for name, some in zip(names, speaking, strict=True)},
        covered=len(covered) / len(sentences),
        shared=tuple(
            Shared((names[one], names[other]), _jaccard(speaking[one], speaking[other]))
            for one, other in combinations(range(len(names)), 2)
        ),
        uncovered=spread(uncovered, NUM_EXAMPLES),
        unused_cues=_unused(conditions, used),
    )


def spread(items: Sequence[str], num: int) -> tuple[str, ...]:
    """At most ``num`` items in their order, the same each time and from all over the list."""
    num = min(num, len(items))
    return tuple(items[index * len(items) // num] for index in range(num))


class _Cue(NamedTuple):
    condition: int
    text: str | None
    """As written in the list of cues; None for a word of the name."""


@dataclass(frozen=True)
class _Cues:
    """All cues by their word as it stands and by its stem; phrases by their first word."""

    exact: dict[str, set[_Cue]]
    stems: dict[str, set[_Cue]]
    phrases: dict[str, list[tuple[tuple[str, ...], _Cue]]]

    @classmethod
    def of(cls, conditions: ConditionSet) -> _Cues:
        found = cls({}, {}, {})
        for index, condition in enumerate(conditions.conditions):
            for word in _words_of_name(conditions, index):
                found._add((word,), _Cue(index, None))
            for text in condition.cues:
                found._add(words_of(text), _Cue(index, text))
        return found

    def _add(self, words: tuple[str, ...], cue: _Cue) -> None:
        if len(words) == 1:
            self.exact.setdefault(words[0], set()).add(cue)
            self.stems.setdefault(stem(words[0]), set()).add(cue)
        elif words:
            self.phrases.setdefault(words[0], []).append((words, cue))

    def found_in(self, sentence: str) -> set[_Cue]:
        words = words_of(sentence)
        found: set[_Cue] = set()
        for word in set(words):
            found |= self.exact.get(word) or self.stems.get(stem(word), set())
        for start, word in enumerate(words):
            found |= {cue for phrase, cue in self.phrases.get(word, ()) if words[start : start + len(phrase)] == phrase}
        return found


def _words_of_name(conditions: ConditionSet, index: int) -> Iterable[str]:
    """Words that stand in this condition's name alone."""
    others = {word for number, name in enumerate(conditions.names) if number != index for word in words_of(name)}
    return [word for word in words_of(conditions.names[index]) if word not in {*others, *IDLE_WORDS}]


def _unused(conditions: ConditionSet, used: set[_Cue]) -> dict[str, tuple[str, ...]]:
    unused = {
        condition.name: tuple(text for text in condition.cues if _Cue(index, text) not in used)
        for index, condition in enumerate(conditions.conditions)
    }
    return {name: cues for name, cues in unused.items() if cues}


def _jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0
