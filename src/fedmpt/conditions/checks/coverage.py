"""Which sentences speak of which condition, counted by words.

A word of a sentence counts for a condition if it is one of its cues or a word of its name, by its stem
(`fedmpt.conditions.words`). But a word that is some condition's cue as it stands, but for the plural, counts for the
conditions that have it so. Cues of several words count as a phrase.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from fedmpt.conditions.record import ConditionSet, sentences_of
from fedmpt.conditions.words import IDLE_WORDS, runs_of, stem, words_of

Found = defaultdict[tuple[str, ...], set[tuple[str, str]]]
"""Words to pairs of a condition and its cue as written, "" for a word of its name."""


def coverage(conditions: ConditionSet) -> dict[str, Any] | None:
    """How the sentences in a set's provenance speak of its conditions; None where it keeps no sentence.

    Shares are of all ``num_sentences``: ``shares`` by condition, ``covered`` of those that speak of any. ``shared`` has
    each two conditions with the Jaccard index of their sentences, ``uncovered`` examples of sentences that speak of
    none, and ``unused_cues`` those that occur in no sentence.

    Raises:
        InputError: as `sentences_of`.
    """
    sentences = [text for described in sentences_of(conditions) for text in described.sentences]
    if not sentences:
        return None
    exact, stems = _cues(conditions)
    speaking: dict[str, set[int]] = {name: set() for name in conditions.names}
    used: set[tuple[str, str]] = set()
    for index, sentence in enumerate(sentences):
        for run in set(runs_of(words_of(sentence))):
            found = exact.get(run) or (stems.get((stem(run[0]),), set()) if len(run) == 1 else set())
            used |= found
            for name, _ in found:
                speaking[name].add(index)
    covered = set().union(*speaking.values())
    unused = {each.name: [cue for cue in each.cues if (each.name, cue) not in used] for each in conditions.conditions}
    return {
        "num_sentences": len(sentences),
        "shares": {name: len(some) / len(sentences) for name, some in speaking.items()},
        "covered": len(covered) / len(sentences),
        "shared": [
            {
                "conditions": [one, other],
                "jaccard": len(speaking[one] & speaking[other]) / max(len(speaking[one] | speaking[other]), 1),
            }
            for one, other in combinations(conditions.names, 2)
        ],
        "uncovered": spread([text for index, text in enumerate(sentences) if index not in covered], 5),
        "unused_cues": {name: cues for name, cues in unused.items() if cues},
    }


def spread(items: Sequence[str], num: int) -> list[str]:
    """At most ``num`` items in their order, the same each time and from all over the list."""
    num = min(num, len(items))
    return [items[index * len(items) // num] for index in range(num)]


def _cues(conditions: ConditionSet) -> tuple[Found, Found]:
    """Words of names that stand in one name alone, and cues: as they stand, and single words by their stem."""
    exact, stems = Found(set), Found(set)
    for each in conditions.conditions:
        others = {word for name in conditions.names if name != each.name for word in words_of(name)}
        own = [word for word in words_of(each.name) if word not in {*others, *IDLE_WORDS}]
        for text, words in [*(("", (word,)) for word in own), *((cue, words_of(cue)) for cue in each.cues)]:
            exact[words].add((each.name, text))
            if len(words) == 1:
                stems[stem(words[0]),].add((each.name, text))
    return exact, stems
