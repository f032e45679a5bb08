"""The note on a run whose last round is not its best."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmpt.evaluation.sums import SummedScores
from fedmpt.federated.rounds import Progress, Round
from fedmpt.runs.finish import falls
from fedmpt.runs.records import RoundLog


@pytest.mark.parametrize(
    "scores", [{}, {10: 64.0}, {5: 64.9, 10: 64.0}, {5: 65.0, 10: 64.0}, {5: 60.0, 10: 64.0}], ids=str
)
def test_no_note_where_nothing_fell(scores: dict[int, float]) -> None:
    assert falls(scores) == []


def test_a_fall_names_both_rounds() -> None:
    (note,) = falls({5: 66.0, 10: 67.9, 15: 67.9, 20: 64.0})
    assert note.startswith("round 10 had 67.9 mAP on the test set, and the last, round 20, has 64.0; --keep best ")


def done(index: int, mAP: float, *scored_by: str) -> Round:
    scores = SummedScores(mAP, 50.0, 50.0, 50.0)
    progress = Progress(rounds_done=index, state={}, personal={})
    return Round(index, (0,), 1.0, 0.1, scores, 1.0, progress, scored_by=scored_by or None)


def test_rounds_that_other_sites_scored_are_not_compared(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / "rounds.jsonl", keep=0)
    assert log.mAP == {}
    for one in (done(1, 90.0), done(2, 66.0, "a", "b"), done(3, 64.0, "a", "b")):
        log.append(one)
    for found in (log, RoundLog(tmp_path / "rounds.jsonl", keep=3)):
        assert found.mAP == {2: 66.0, 3: 64.0}
    assert RoundLog(tmp_path / "rounds.jsonl", keep=1).mAP == {1: 90.0}
