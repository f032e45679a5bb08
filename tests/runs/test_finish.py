"""The note on a run whose last round is not its best."""

from __future__ import annotations

import pytest

from fedmpt.runs.finish import falls


@pytest.mark.parametrize(
    "scores", [{}, {10: 64.0}, {5: 64.9, 10: 64.0}, {5: 65.0, 10: 64.0}, {5: 60.0, 10: 64.0}], ids=str
)
def test_no_note_where_nothing_fell(scores: dict[int, float]) -> None:
    assert falls(scores) == []


def test_a_fall_names_both_rounds() -> None:
    (note,) = falls({5: 66.0, 10: 67.9, 15: 67.9, 20: 64.0})
    assert note.startswith("round 10 had 67.9 mAP on the test set, and the last, round 20, has 64.0; --keep best ")
