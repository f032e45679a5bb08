"""Texts as words: the same word in another form is the same, in any language."""

from __future__ import annotations

import unicodedata

import pytest

from fedmpt.conditions.words import runs_of, singular, stem, words_of


@pytest.mark.parametrize(
    ("plural", "word"),
    [
        *[("dogs", "dog"), ("boxes", "box"), ("benches", "bench"), ("glasses", "glass"), ("berries", "berry")],
        *[("houses", "house"), ("buses", "bus"), ("people", "person"), ("leaves", "leaf"), ("bus", "bus")],
        *[("grass", "grass"), ("tennis", "tennis"), ("gas", "gas"), ("ties", "tie"), ("pies", "pie")],
        *[("movies", "movie"), ("potatoes", "potato"), ("lenses", "lens"), ("lens", "lens"), ("wolves", "wolf")],
    ],
)
def test_the_singular_of_a_word(plural: str, word: str) -> None:
    assert singular(plural) == word


@pytest.mark.parametrize(
    "words",
    [
        *[("stand", "standing"), ("sit", "sitting"), ("ride", "riding"), ("shade", "shaded"), ("light", "lighting")],
        *[("park", "parked"), ("fall", "falling"), ("dress", "dressed"), ("stop", "stopped"), ("close", "closed")],
    ],
)
def test_forms_of_a_word_have_one_stem(words: tuple[str, str]) -> None:
    assert len(set(map(stem, words))) == 1


@pytest.mark.parametrize("word", ["string", "wing", "red", "bed", "evening", "spring", "during", "thing"])
def test_words_that_only_end_so_are_left_alone(word: str) -> None:
    assert stem(word) == word


def test_words_are_split_at_all_that_is_no_letter_or_digit() -> None:
    assert words_of("A dog's close-up, 2 CAFÉS_a!") == ("a", "dog", "s", "close", "up", "2", "café", "a")


def test_marks_are_parts_of_words() -> None:
    assert words_of("रात की रोशनी, ไฟ") == ("रात", "की", "रोशनी", "ไฟ")


def test_letters_with_accents_are_the_same_however_they_are_stored() -> None:
    assert words_of(unicodedata.normalize("NFD", "Straßencafé é")) == words_of("Straßencafé é") == ("strassencafé", "é")


def test_runs_are_all_words_side_by_side() -> None:
    assert list(runs_of(("a", "b", "c"))) == [("a",), ("a", "b"), ("a", "b", "c"), ("b",), ("b", "c"), ("c",)]
    assert not list(runs_of(()))
