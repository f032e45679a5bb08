"""Texts as words, for comparing what names, cues and sentences say: by rules, in any language, and without a grammar.

Words are compared in lower case and in the singular (boxes, berries) or, as stems, without -ing and -ed (standing,
shaded) and a final e too. "parked" and "park" are one stem.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

IDLE_WORDS = (
    *("a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with"),
    *("image", "object", "photo", "picture", "scene", "thing", "type"),
)
"""Words of a name that say nothing of what it is about."""

_IRREGULAR = dict(
    pair.split(":")
    for pair in (
        *("buses:bus", "children:child", "feet:foot", "geese:goose", "knives:knife", "leaves:leaf", "men:man"),
        *("mice:mouse", "people:person", "shelves:shelf", "teeth:tooth", "wolves:wolf", "women:woman"),
        *("cookies:cookie", "lens:lens", "lenses:lens", "movies:movie", "potatoes:potato", "tomatoes:tomato"),
    )
)
_NO_VERBS = frozenset(("evening", "morning", "ceiling", "during", "anything", "everything", "nothing", "something"))


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, each in the singular."""
    # Marks (vowels of Hindi, accents that stand apart) are parts of words, which regular expressions do not know.
    plain = unicodedata.normalize("NFC", text.casefold())
    split = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in plain).split()
    return tuple(singular(word) for word in split)


def runs_of(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All words that stand side by side: each alone, two, three, and so on."""
    return (words[start:end] for start in range(len(words)) for end in range(start + 1, len(words) + 1))


def singular(word: str) -> str:
    """A lower-case word without the ending of its plural: berries, boxes, dogs. Short words are left as they are."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "sses", "xes")) else word[:-1]


def stem(word: str) -> str:
    """A singular word without -ing or -ed, if three letters with a vowel stay, and without a final e."""
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and re.search("[aeiouy]", rest) and word not in _NO_VERBS:
            is_doubled = rest[-1] == rest[-2] and rest[-1] not in "aeiouls"
            return rest[:-1] if is_doubled else rest
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
