"""What a round's evaluation says, whoever scored it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class SomeScores(Protocol):
    """What a round shows of its scores on test images, in percent."""

    @property
    def mAP(self) -> float: ...
    @property
    def CF1(self) -> float: ...
    @property
    def OF1(self) -> float: ...
    @property
    def CF1_PR(self) -> float: ...


class Evaluation(NamedTuple):
    """Scores of a round's global model on test images, and its mAP on held-out images; None without any.

    ``of_best`` is the mAP of the best round so far on the same held-out images; None where it is the one that is known.
    ``scored_by`` are the names of the clients whose test images were scored; None: of all.
    """

    scores: SomeScores | None = None
    held_out_mAP: float | None = None
    of_best: float | None = None
    scored_by: tuple[str, ...] | None = None
