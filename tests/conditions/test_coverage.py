"""Sentences and conditions by words, counted by hand."""

from __future__ import annotations

from fedmpt.conditions.checks.coverage import Shared, coverage, spread
from fedmpt.conditions.record import Condition, ConditionSet

CONDITIONS = (
    Condition("lighting and weather", cues=("night", "rain", "in the shade")),
    Condition("object pose", cues=("standing", "parked")),
    Condition("object scale", cues=("close-up",)),
    Condition("place", cues=("park", "streets")),
)
SENTENCES = (
    "A dog stands in the shade.",  # lighting, pose
    "Cars PARKED on a street at NIGHT!",  # lighting, pose, place
    "A park.",  # place: "parked" is another cue
    "Some object.",  # none: "object" is in two names
    "Closeup of a flower.",  # none
    "A flower in CLOSE-UP.",  # scale
    "Shade, the in.",  # none: not in this order
    "Good light on a nighthawk",  # lighting, by its name
)


def described(*sentences: str, conditions: tuple[Condition, ...] = CONDITIONS) -> ConditionSet:
    entries = [{"classes": ["x"], "sentences": [sentence]} for sentence in sentences]
    return ConditionSet("x", conditions, {"sentences": [*entries, {"classes": ["y"], "sentences": []}]})


def test_counts_of_a_few_sentences() -> None:
    found = coverage(described(*SENTENCES))
    assert found is not None
    assert found.num_sentences == 8
    assert found.shares == {"lighting and weather": 3 / 8, "object pose": 2 / 8, "object scale": 1 / 8, "place": 2 / 8}
    assert found.covered == 5 / 8
    assert found.uncovered == (SENTENCES[3], SENTENCES[4], SENTENCES[6])
    assert found.unused_cues == {"lighting and weather": ("rain",)}
    jaccard = {shared.conditions: shared.jaccard for shared in found.shared}
    assert len(jaccard) == 6
    assert jaccard["lighting and weather", "object pose"] == 2 / 3
    assert jaccard["lighting and weather", "place"] == 1 / 4
    assert jaccard["object pose", "place"] == 1 / 3
    assert jaccard["object pose", "object scale"] == 0


def test_no_sentences_have_no_coverage() -> None:
    assert coverage(ConditionSet("x", CONDITIONS, {})) is None
    assert coverage(described()) is None


def test_a_condition_that_never_occurs_shares_nothing() -> None:
    conditions = (Condition("sound"), Condition("smell"))
    found = coverage(described("A dog.", conditions=conditions))
    assert found is not None
    assert found.shared == (Shared(("sound", "smell"), 0.0),)
    assert found.covered == 0


def test_examples_of_uncovered_sentences_are_few_and_from_all_over() -> None:
    found = coverage(described(*(f"Word{number}." for number in range(100))))
    assert found is not None
    assert found.uncovered == ("Word0.", "Word20.", "Word40.", "Word60.", "Word80.")


def test_a_sample_is_spread_and_no_larger_than_the_list() -> None:
    assert spread("abcdefgh", 4) == ("a", "c", "e", "g")
    assert spread("abc", 5) == ("a", "b", "c")
    assert spread("", 5) == ()
